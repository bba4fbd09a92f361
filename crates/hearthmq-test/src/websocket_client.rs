//! A WebSocket client as a byte stream: writes become binary frames, and reads return the contents
//! of binary frames.
//!
//! Knows tokio-tungstenite; of MQTT it knows only the name of the subprotocol.

use std::{
    io::{Error, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Bytes, Message,
        client::IntoClientRequest as _,
        handshake::client::{Request, Response},
        http::HeaderValue,
    },
};

/// Returns the request for MQTT over WebSocket.
pub fn request(subprotocol: Option<&str>) -> Request {
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    if let Some(name) = subprotocol {
        let value = HeaderValue::from_str(name).unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
    }
    request
}

/// Opens a WebSocket on `stream`; returns the response to the request too.
pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
) -> (WebSocketStream<S>, Response) {
    client_async(request(Some("mqtt")), stream).await.unwrap()
}

/// The bytes in binary frames.
pub struct Binary<S> {
    socket: WebSocketStream<S>,
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Binary<S> {
    pub async fn over(stream: S) -> Self {
        Self::on(websocket(stream).await.0)
    }

    pub fn on(socket: WebSocketStream<S>) -> Self {
        Self { socket, rest: Bytes::new() }
    }

    /// What the frames go over, for those that are made by hand.
    pub fn raw(&mut self) -> &mut S {
        self.socket.get_mut()
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::BrokenPipe, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Binary<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) => self.rest = data,
                Some(Ok(Message::Text(text))) => panic!("a text frame: {text}"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Binary<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(buf));
        socket.as_mut().start_send(message).map_err(broken)?;
        // Bytes that are not sent at once are sent with the next read or write.
        let _ = socket.poll_flush(cx).map_err(broken)?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}
