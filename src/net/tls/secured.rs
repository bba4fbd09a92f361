//! The TLS handshake of an MQTT client, and a stream that remembers the TLS settings of its listener, so that the client certificate of
//! an open connection can be verified again after these settings are reloaded.

use std::{
    error::Error,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use rustls::{ProtocolVersion, server::Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{TlsSource, Trust, client::certificate_facts, client_certificate, explained};
use crate::{
    metrics::ConnectRefusal,
    net::{
        admission::{Admitted, Stage},
        newcomer::Shown,
        refused::Refused,
    },
    transport::{TlsFacts, Transport},
};

/// Performs the TLS handshake; returns the stream and the client certificate, if there is one.
pub(in crate::net) async fn secure<S: Transport>(
    stream: S,
    source: &TlsSource,
    admitted: &mut Admitted,
) -> Result<(Secured<S>, Shown), Refused> {
    // Taken together, so that a reload in between is noticed by the next verification.
    let (settings, trust) = source.begin();
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        // A valid ClientHello shows a TLS client, so silent sockets are evicted before it.
        admitted.reach(Stage::Speaking);
        // Before the expensive part of the handshake.
        if let Err(refused) = admitted.knock() {
            return Ok(Err(Refused::new(refused)));
        }
        hello.into_stream(settings).await.map(Ok)
    };
    let stream = handshake.await.map_err(explained);
    let stream = stream.map_err(|error| Refused::because(ConnectRefusal::Tls, error))??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = match chain {
        [] => Ok(None),
        chain => client_certificate(chain).map(Some), // an error is reported in CONNACK
    };
    Ok((Secured::new(stream, trust), certificate))
}

pub(in crate::net) struct Secured<S> {
    stream: TlsStream<S>,
    trust: Trust,
}

impl<S> Secured<S> {
    const fn new(stream: TlsStream<S>, trust: Trust) -> Self {
        Self { stream, trust }
    }
}

impl<S: Transport> Transport for Secured<S> {
    fn leave_reactor(&mut self) -> io::Result<()> {
        self.stream.get_mut().0.leave_reactor()
    }

    fn join_reactor(&mut self) -> io::Result<()> {
        self.stream.get_mut().0.join_reactor()
    }

    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.get_mut().0.has_peer_closed(cx)
    }

    fn verify_certificate(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let chain = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(self.trust.verify(chain)?)
    }

    fn tls(&self) -> Option<TlsFacts> {
        let session = self.stream.get_ref().1;
        let is_1_3 = session.protocol_version()? == ProtocolVersion::TLSv1_3;
        let version = if is_1_3 { "1.3" } else { "1.2" };
        let chain = session.peer_certificates().unwrap_or_default();
        Some(TlsFacts::new(version, chain.first().and_then(|der| certificate_facts(der))))
    }
}

impl<S: Transport> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Transport> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
