//! A WebSocket inside the HTTP server of another application: the request's payload is the input,
//! the response body is the output.
//!
//! Knows byte chunks and channels. The server's thread has one end, the client's home shard has the
//! other; both directions are limited to a few chunks.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::{Receiver, channel},
};
use tokio_util::sync::PollSender;

use crate::transport::Transport;

/// Maximum number of chunks between the two threads, in each direction. One read or write makes one
/// chunk.
const CHUNKS_WAITING_MAX: usize = 4;

/// The broker's end.
#[derive(Debug)]
pub(crate) struct HostedSocket {
    incoming: Receiver<Bytes>,
    chunk: Bytes,
    outgoing: PollSender<Bytes>,
}

/// The response body, which ends when the broker closes the socket.
#[derive(Debug)]
pub(crate) struct HostedBody(Receiver<Bytes>);

/// Makes a socket from a request's payload. Also returns the response body, and a future that moves
/// the payload until either side ends.
pub(crate) fn hosted<E>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> (HostedSocket, HostedBody, impl Future<Output = ()>) {
    let (to_broker, incoming) = channel(CHUNKS_WAITING_MAX);
    let (outgoing, to_client) = channel(CHUNKS_WAITING_MAX);
    let socket =
        HostedSocket { incoming, chunk: Bytes::new(), outgoing: PollSender::new(outgoing) };
    let feed = async move {
        let moving = async {
            while let Some(Ok(chunk)) = payload.next().await {
                // Waits while the channel is full, so that the
                // HTTP server stops reading from the client.
                if to_broker.send(chunk).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = moving => {}
            // The connection may end while the client sends
            // nothing; then `next` would never return.
            () = to_broker.closed() => {}
        }
    };
    (socket, HostedBody(to_client), feed)
}

impl Stream for HostedBody {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(Ok))
    }
}

impl AsyncRead for HostedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        if self.chunk.is_empty() {
            self.chunk = Bytes::new(); // an idle connection holds no buffer
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let mut chunk = BytesMut::with_capacity(length);
        bufs.iter().for_each(|buf| chunk.extend_from_slice(buf));
        self.outgoing.send_item(chunk.freeze()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The body ends when the socket is dropped, not here: a server that has sent its whole
    /// response stops reading, but the client's close frame must still be read.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Transport for HostedSocket {
    fn has_peer_closed(&mut self, _: &mut Context<'_>) -> bool {
        self.incoming.is_closed() // The host reads no further while chunks wait here.
    }
}
