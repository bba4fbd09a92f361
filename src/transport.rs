//! The byte stream under a connection, and how it moves from one shard's reactor to another's.

use std::{
    any::Any,
    error::Error,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// Any byte stream that MQTT can run over.
///
/// A stream that is registered with the reactor of the thread that made it can let go of it and
/// register with another; for streams that are not, both steps are nothing.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Leaves the reactor of this thread.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn leave_reactor(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Registers with this thread's reactor.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn join_reactor(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns whether the client has closed its direction or the connection, even if bytes that came
    /// before are not read yet; `false` where only reading tells that.
    fn has_peer_closed(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    /// Whether closing it says something of its own to the client, which dropping it would not.
    fn has_farewell(&self) -> bool {
        true
    }

    /// Verifies again the certificate that the client has shown, if it has shown one.
    ///
    /// # Errors
    /// It would not be trusted now.
    fn verify_certificate(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Returns what TLS knows of the client; `None` without TLS.
    fn tls(&self) -> Option<TlsFacts> {
        None
    }

    /// Returns the transport itself if it is one that observes the stream of another.
    fn observer(&mut self) -> Option<&mut dyn Any> {
        None
    }
}

/// Stands where a transport was taken out.
impl Transport for tokio::io::Empty {}

/// Returns a transport without a stream, in the place of one that is taken out.
pub(crate) fn absent() -> Box<dyn Transport> {
    Box::new(tokio::io::empty())
}

/// The properties of a client's TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFacts {
    /// The version: `1.2` or `1.3`.
    pub version: &'static str,
    /// The client's certificate, if it has shown one.
    pub certificate: Option<CertificateFacts>,
}

impl TlsFacts {
    /// Returns the facts of a connection.
    #[must_use]
    pub const fn new(version: &'static str, certificate: Option<CertificateFacts>) -> Self {
        Self { version, certificate }
    }
}

/// The certificate of a connected client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The subject, such as `CN=device-7`.
    pub subject: String,
    /// The authority that signed it.
    pub issuer: String,
    /// The DNS names, addresses and URIs of the Subject Alternative Name; at most 100.
    pub names: Vec<String>,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_millis: u64,
    /// The SHA-256 of its public key (SubjectPublicKeyInfo, DER), in lower-case hexadecimal.
    pub public_key: String,
}

impl Transport for DuplexStream {
    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        // The other half takes nothing more once it is dropped.
        matches!(Pin::new(self).poll_write(cx, &[]), Poll::Ready(Err(_)))
    }
}

/// A socket of the operating system, which a reactor watches.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + Sized + 'static {
    /// The same socket, watched by no reactor.
    type Detached: Send + Unpin;

    /// Returns whether the reactor has seen that the other side has closed its direction.
    fn has_peer_closed(&self, cx: &mut Context<'_>) -> bool;

    /// Leaves the reactor of this thread.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn detach(self) -> io::Result<Self::Detached>;

    /// Registers with this thread's reactor.
    ///
    /// # Errors
    /// If the operating system refuses.
    fn attach(detached: Self::Detached) -> io::Result<Self>;
}

impl Socket for TcpStream {
    type Detached = std::net::TcpStream;

    fn has_peer_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.ready(Interest::READABLE)).poll(cx);
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn detach(self) -> io::Result<Self::Detached> {
        self.into_std()
    }

    fn attach(detached: Self::Detached) -> io::Result<Self> {
        Self::from_std(detached)
    }
}

impl Socket for UnixStream {
    type Detached = std::os::unix::net::UnixStream;

    fn has_peer_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = pin!(self.ready(Interest::READABLE)).poll(cx);
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn detach(self) -> io::Result<Self::Detached> {
        self.into_std()
    }

    fn attach(detached: Self::Detached) -> io::Result<Self> {
        Self::from_std(detached)
    }
}

/// A socket that can move between reactors.
#[derive(Debug)]
pub(crate) struct SocketTransport<S: Socket> {
    state: State<S, S::Detached>,
}

#[derive(Debug)]
enum State<S, D> {
    Registered(S),
    Between(D),
    Lost,
}

impl<S: Socket> SocketTransport<S> {
    /// A socket that is registered with this thread's reactor.
    #[must_use]
    pub(crate) const fn new(socket: S) -> Self {
        Self { state: State::Registered(socket) }
    }

    fn registered(&mut self) -> io::Result<Pin<&mut S>> {
        match &mut self.state {
            State::Registered(socket) => Ok(Pin::new(socket)),
            State::Between(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: Socket> Transport for SocketTransport<S> {
    fn leave_reactor(&mut self) -> io::Result<()> {
        // What fails is lost.
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Registered(socket) => State::Between(socket.detach()?),
            state @ (State::Between(_) | State::Lost) => state,
        };
        Ok(())
    }

    fn join_reactor(&mut self) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Between(socket) => State::Registered(S::attach(socket)?),
            state @ (State::Registered(_) | State::Lost) => state,
        };
        Ok(())
    }

    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(&self.state, State::Registered(socket) if socket.has_peer_closed(cx))
    }

    fn has_farewell(&self) -> bool {
        false
    }
}

impl<S: Socket> AsyncRead for SocketTransport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.registered()?.poll_read(cx, buf)
    }
}

impl<S: Socket> AsyncWrite for SocketTransport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.registered()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registered()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.state, State::Registered(socket) if socket.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_shutdown(cx)
    }
}

/// A stream of the embedding application's, which stays with the reactor that it came with.
#[derive(Debug)]
pub(crate) struct AnyStream<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for AnyStream<S> {
    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        // By type, because not every stream of an application can tell this.
        let stream = &mut self.0 as &mut dyn Any;
        if let Some(socket) = stream.downcast_ref::<TcpStream>() {
            return socket.has_peer_closed(cx);
        }
        if let Some(socket) = stream.downcast_ref::<UnixStream>() {
            return socket.has_peer_closed(cx);
        }
        stream.downcast_mut::<DuplexStream>().is_some_and(|half| half.has_peer_closed(cx))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Writes `bytes` from `written` on; `Ready` once all are written and flushed.
pub(crate) fn poll_write_all(
    transport: &mut dyn Transport,
    cx: &mut Context<'_>,
    bytes: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while *written < bytes.len() {
        let n = ready!(Pin::new(&mut *transport).poll_write(cx, &bytes[*written..]))?;
        // A transport that takes nothing would make this loop endless.
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *written += n;
    }
    // TLS and WebSocket may hold bytes back until they are flushed.
    Pin::new(transport).poll_flush(cx)
}
