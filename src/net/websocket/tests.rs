//! WebSockets whose client can no longer be reached, and their size.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

/// Frames with the mask 0.
const PING: &[u8] = &[0x89, 0x80, 0, 0, 0, 0];
const DISCONNECT_AND_CLOSE: &[u8] = &[0x82, 0x82, 0, 0, 0, 0, 0xE0, 0x00, 0x88, 0x80, 0, 0, 0, 0];

/// There may be many WebSockets, and an idle one has no memory elsewhere.
#[test]
fn a_websocket_costs_at_most_256_bytes_more_than_what_it_lies_upon() {
    let added = size_of::<WebSocket<DuplexStream>>() - size_of::<DuplexStream>();
    assert!(added <= 256, "{added}");
}

/// The Will of a client that sends DISCONNECT and disappears is not published. [MQTT-3.1.2-10]
#[actix_rt::test]
async fn what_came_is_read_although_its_sender_can_be_told_nothing() {
    let chunks = [PING, DISCONNECT_AND_CLOSE].map(|chunk| Ok::<_, ()>(Bytes::from(chunk)));
    let (socket, body, feed) = hosted(stream::iter(chunks));
    drop(body);
    feed.await;
    let mut websocket = WebSocket::new(socket, Vec::new());
    let mut read = Vec::new();
    websocket.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [0xE0, 0x00]);
    for _ in 0..2 {
        let error = websocket.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

/// (RFC 6455, 5.5.1)
#[actix_rt::test]
async fn nothing_follows_the_close_frame() {
    let chunks = [PING, DISCONNECT_AND_CLOSE].map(|chunk| Ok::<_, ()>(Bytes::from(chunk)));
    let (socket, body, feed) = hosted(stream::iter(chunks));
    feed.await;
    let mut websocket = WebSocket::new(socket, Vec::new());
    websocket.shutdown().await.unwrap();
    websocket.read_to_end(&mut Vec::new()).await.unwrap();
    drop(websocket);
    let sent: Vec<_> = body.map(Result::unwrap).collect().await;
    assert_eq!(sent.concat(), [0x88, 0x02, 0x03, 0xE8]);
}
