//! MQTT over WebSocket (MQTT 5.0 and 3.1.1, chapter 6): a byte stream made of binary frames.
//!
//! `upgrade` answers the HTTP request that opens a WebSocket, `frames` decodes and encodes frames,
//! `hosted` is a WebSocket inside the HTTP server of another application. To the session it is a
//! [`Transport`] like any other: a packet may span several frames, and a frame may contain several
//! packets. [MQTT-6.0.0-2]
//!
//! A WebSocket has no buffer of its own. Frames are decoded in the reader's buffer and written
//! around the writer's data, so an idle WebSocket needs only some hundred bytes more than its
//! socket.

mod frames;
#[cfg(feature = "http")]
mod hosted;
#[cfg(all(test, feature = "http"))]
mod tests;
mod upgrade;

use std::{
    error::Error,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::coding::CloseCode;

use self::frames::{Deframed, Deframer, End, SENT_HEADER_BYTES_MAX};
use crate::transport::{TlsFacts, Transport};

pub use self::upgrade::WebSocketOptions;
pub(super) use self::upgrade::accept;
#[cfg(feature = "http")]
pub(crate) use self::{
    hosted::hosted,
    upgrade::{Accepted, Pages, UpgradeRefusal, UpgradeRequest},
};

/// Maximum number of reads without payload before other tasks get their turn.
const READS_PER_POLL: usize = 4;

/// A WebSocket whose opening request has been answered.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: S,
    /// Bytes that arrived together with the request.
    ahead: Vec<u8>,
    incoming: Deframer,
    end: Option<End>,
    /// The reader knows about the end; further input is dropped.
    is_over: bool,
    sending: FrameOutput,
}

/// The output to the client.
#[derive(Debug, Default)]
struct FrameOutput {
    header: [u8; SENT_HEADER_BYTES_MAX],
    /// The range of the header that is not written yet.
    header_left: (usize, usize),
    /// Bytes of payload missing in the current frame.
    payload_left: usize,
    /// The current control frame, and how many bytes of it are written.
    control: (Vec<u8>, usize),
    /// The payload of a ping to answer.
    ping: Option<Vec<u8>>,
    close: Close,
    /// A control frame was written but perhaps not flushed.
    is_unflushed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Close {
    #[default]
    Open,
    Due(CloseCode),
    Sent,
    /// An answer could not be written; the next write fails with this error.
    Lost(io::ErrorKind),
}

impl<S: Transport> WebSocket<S> {
    /// Creates a WebSocket on a stream whose opening request has been answered; `ahead` are bytes
    /// that came after the request.
    pub(crate) fn new(stream: S, ahead: Vec<u8>) -> Self {
        Self {
            stream,
            ahead,
            incoming: Deframer::default(),
            end: None,
            is_over: false,
            sending: FrameOutput::default(),
        }
    }

    /// Reads raw frames: first the bytes read ahead, then the stream.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops input until the client closes its side.
    fn poll_rest(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..READS_PER_POLL {
            let start = buf.filled().len();
            ready!(self.poll_frames(cx, buf))?;
            if buf.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(start);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes over pings, close frames and errors.
    fn take_note(&mut self, found: Deframed) {
        // No frame may follow a close frame. (RFC 6455, 5.5.1)
        // Only the last ping is answered, as the standard allows, so pings need no queue.
        if found.ping.is_some() && matches!(self.sending.close, Close::Open) {
            self.sending.ping = found.ping;
        }
        self.end = found.end;
        if let Some(End::Closed(code) | End::Failed(code)) = found.end {
            self.sending.close_with(code);
        }
    }

    /// Sends the answers that are due, as far as the socket accepts them. The rest is sent with the
    /// next write or flush, or when the socket wakes the reader.
    ///
    /// An answer that cannot be sent does not invalidate the client's input, so reading continues.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if self.sending.has_control()
            && let Poll::Ready(Err(error)) = self.poll_all_flushed(cx)
        {
            self.sending.give_up(error.kind());
        }
    }

    fn poll_all_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.sending.poll_control(&mut self.stream, cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.sending.is_unflushed = false;
        Poll::Ready(Ok(()))
    }
}

impl FrameOutput {
    fn close_with(&mut self, code: CloseCode) {
        if self.close == Close::Open {
            self.close = Close::Due(code);
        }
    }

    /// Drops all answers that are due.
    fn give_up(&mut self, error: io::ErrorKind) {
        self.control = (Vec::new(), 0);
        self.ping = None;
        self.is_unflushed = false;
        self.close = Close::Lost(error);
    }

    /// Returns whether a data frame is incomplete, so that no other frame may be written.
    const fn is_in_frame(&self) -> bool {
        self.header_left.0 < self.header_left.1 || self.payload_left > 0
    }

    fn has_control(&self) -> bool {
        !self.control.0.is_empty()
            || self.ping.is_some()
            || matches!(self.close, Close::Due(_))
            || self.is_unflushed
    }

    /// Writes the control frames that are due, unless a data frame is incomplete.
    fn poll_control<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // A control frame may stand between two data frames, but not inside one. (RFC 6455, 5.4)
        while !self.is_in_frame() {
            let (frame, written) = &mut self.control;
            if *written < frame.len() {
                let wrote = Pin::new(&mut *stream).poll_write(cx, &frame[*written..]);
                *written += ready!(wrote).and_then(not_zero)?;
                self.is_unflushed = true;
            } else if let Some(payload) = self.ping.take() {
                // A pong comes before a close frame, because no frame may follow a close frame.
                self.control = (frames::pong(&payload), 0);
            } else if let Close::Due(code) = self.close {
                self.control = (frames::close(code), 0);
                self.close = Close::Sent;
            } else if let Close::Lost(error) = self.close {
                return Poll::Ready(Err(error.into()));
            } else {
                self.control = (Vec::new(), 0);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the beginning of `payload`, in a new frame or in the current one; returns the number
    /// of bytes written.
    fn poll_data<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One frame for the whole payload. Its length is
        // fixed by its header, so a later call continues it.
        if !self.is_in_frame() {
            let (header, length) = frames::binary_header(payload.len());
            (self.header, self.header_left, self.payload_left) =
                (header, (0, length), payload.len());
        }
        loop {
            let (begin, end) = self.header_left;
            let header = &self.header[begin..end];
            let payload = &payload[..payload.len().min(self.payload_left)];
            let slices = [IoSlice::new(header), IoSlice::new(payload)];
            let stream = Pin::new(&mut *stream);
            let wrote = match header.is_empty() {
                true => ready!(stream.poll_write(cx, payload)),
                false => ready!(stream.poll_write_vectored(cx, &slices)),
            }
            .and_then(not_zero)?;
            let of_header = wrote.min(header.len());
            self.header_left.0 += of_header;
            self.payload_left -= wrote - of_header;
            // Zero would mean the end of the stream; if
            // only header bytes went out, the loop goes on.
            if wrote > of_header {
                return Poll::Ready(Ok(wrote - of_header));
            }
        }
    }
}

fn not_zero(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

impl<S: Transport> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Before reading, so that a client that only sends pings gets its pongs.
        this.answer(cx);
        for _ in 0..READS_PER_POLL {
            match this.end {
                _ if buf.remaining() == 0 => return Poll::Ready(Ok(())),
                None => {}
                // A close with unread input would reset the
                // connection, and the close frame could be lost.
                Some(_) if this.is_over => return this.poll_rest(cx, buf),
                Some(End::Closed(_)) => {
                    this.is_over = true;
                    return Poll::Ready(Ok(()));
                }
                Some(End::Failed(code)) => {
                    this.is_over = true;
                    let error = FrameError(code.into());
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
            let start = buf.filled().len();
            ready!(this.poll_frames(cx, buf))?;
            if buf.filled().len() == start {
                return Poll::Ready(Ok(())); // closed without a close frame
            }
            let found = this.incoming.deframe(&mut buf.filled_mut()[start..]);
            let data_bytes = found.data_bytes;
            buf.set_filled(start + data_bytes);
            this.take_note(found);
            this.answer(cx);
            if data_bytes > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        // A client that sends only empty or control frames gives the thread back after some reads.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A client violates the WebSocket protocol.
#[derive(Debug, thiserror::Error)]
#[error("invalid WebSocket frame from an MQTT client, answered with close code {0}")]
struct FrameError(u16);

impl<S: Transport> AsyncWrite for WebSocket<S> {
    /// Writes everything in binary frames. [MQTT-6.0.0-1]
    ///
    /// After a partial write the caller must continue with the rest of `buf`, which may have grown
    /// at its end.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.sending.poll_control(&mut this.stream, cx))?;
        if buf.is_empty() || (this.sending.close != Close::Open && !this.sending.is_in_frame()) {
            return Poll::Ready(Ok(buf.len())); // nobody reads after a close frame
        }
        this.sending.poll_data(&mut this.stream, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_all_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sending.close_with(CloseCode::Normal);
        ready!(this.poll_all_flushed(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: Transport> Transport for WebSocket<S> {
    fn leave_reactor(&mut self) -> io::Result<()> {
        self.stream.leave_reactor()
    }

    fn join_reactor(&mut self) -> io::Result<()> {
        self.stream.join_reactor()
    }

    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.has_peer_closed(cx)
    }

    fn verify_certificate(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.stream.verify_certificate()
    }

    fn tls(&self) -> Option<TlsFacts> {
        self.stream.tls()
    }
}
