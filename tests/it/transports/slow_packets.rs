//! Packets that take longer to arrive than the client's Keep Alive, over each layer: their bytes
//! count as a sign of life, however they are wrapped. `keep_alive/slow_packets` shows, on virtual time, how many
//! bytes are enough.

use std::time::Duration;

use futures_util::future::join_all;
use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, ReasonCode, encode};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    support::{Client, packets::*},
    transports::ways::{Way, World},
    websocket_client::Binary,
};

const ALL: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];
const KEEP_ALIVE_SECS: u16 = 2;
/// One and a half times the Keep Alive.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);
const PIECES: usize = 25;
/// All pieces together take twice as long as a client may be silent.
const BETWEEN: Duration = Duration::from_millis(240);

/// Returns the bytes of a large PUBLISH.
fn large(version: ProtocolVersion) -> Vec<u8> {
    let payload = "x".repeat(300_000);
    let mut encoded = Vec::new();
    encode(&Packet::Publish(publish_1(1, "t", &payload)), version, &mut encoded).unwrap();
    encoded
}

fn client_id(version: ProtocolVersion) -> &'static str {
    match version {
        V3_1 => "oldest",
        V3_1_1 => "older",
        V5 => "newest",
    }
}

fn connect_of(version: ProtocolVersion) -> Connect<'static> {
    Connect { keep_alive: KEEP_ALIVE_SECS, ..connect_in(version, client_id(version)) }
}

async fn expect_taken<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) {
    let reason = match client.version {
        V5 => ReasonCode::NoMatchingSubscribers,
        V3_1 | V3_1_1 => ReasonCode::Success,
    };
    client.expect(puback(1, reason)).await;
    client.ping().await;
}

async fn keeps_the_connection(world: &World, version: ProtocolVersion) {
    let (mut client, _) = world.connected(connect_of(version)).await;
    let packet = large(version);
    for piece in packet.chunks(packet.len().div_ceil(PIECES)) {
        client.send_bytes(piece).await;
        sleep(BETWEEN).await;
    }
    expect_taken(&mut client).await;
}

async fn is_given_up(world: &World, version: ProtocolVersion) {
    let begun = Instant::now(); // The broker counts from CONNECT on.
    let (mut client, _) = world.connected(connect_of(version)).await;
    for piece in large(version).chunks(5).take(10) {
        client.send_bytes(piece).await;
        sleep(BETWEEN).await;
    }
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    assert!(begun.elapsed() >= GIVEN_UP_AFTER, "given up after {:?}", begun.elapsed());
}

pub(crate) async fn bytes_of_a_packet_are_a_sign_of_life(way: Way) {
    let world = World::with(way).await;
    join_all(ALL.map(|version| keeps_the_connection(&world, version))).await;
    join_all(ALL.map(|version| is_given_up(&world, version))).await;
}

#[actix_rt::test]
async fn bytes_of_a_packet_are_a_sign_of_life_over_tcp() {
    bytes_of_a_packet_are_a_sign_of_life(Way::Tcp).await;
}

#[actix_rt::test]
async fn bytes_of_a_packet_are_a_sign_of_life_over_tls() {
    bytes_of_a_packet_are_a_sign_of_life(Way::Tls).await;
}

#[actix_rt::test]
async fn bytes_of_a_packet_are_a_sign_of_life_in_frames_of_a_websocket() {
    bytes_of_a_packet_are_a_sign_of_life(Way::WebSocket).await;
}

#[actix_rt::test]
async fn bytes_of_a_packet_are_a_sign_of_life_over_a_secure_websocket() {
    bytes_of_a_packet_are_a_sign_of_life(Way::SecureWebSocket).await;
}

#[actix_rt::test]
async fn bytes_of_a_packet_are_a_sign_of_life_over_a_websocket_of_a_host() {
    bytes_of_a_packet_are_a_sign_of_life(Way::Hosted).await;
}

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;

/// Returns a frame's head as clients send it; a mask of zeros leaves the payload unchanged.
fn head(is_last: bool, opcode: u8, payload_bytes: usize) -> Vec<u8> {
    let mut head = vec![if is_last { 0x80 | opcode } else { opcode }, 0x80 | 127];
    head.extend((payload_bytes as u64).to_be_bytes());
    head.extend([0; 4]);
    head
}

/// How a packet is divided into frames.
#[derive(Clone, Copy)]
enum Frames {
    /// In one frame.
    One,
    /// In one message with a frame for each piece.
    Fragments,
}

/// Sends a client's packet in a number of pieces of this size.
async fn send_in_pieces(
    client: &mut Client<Binary<TcpStream>>,
    frames: Frames,
    bytes: usize,
    pieces: usize,
) {
    let packet = large(client.version);
    let socket = client.stream.raw();
    if let Frames::One = frames {
        socket.write_all(&head(true, BINARY, packet.len())).await.unwrap();
    }
    let in_all = packet.len().div_ceil(bytes);
    for (at, piece) in packet.chunks(bytes).take(pieces).enumerate() {
        if let Frames::Fragments = frames {
            let opcode = if at == 0 { BINARY } else { CONTINUATION };
            socket.write_all(&head(at + 1 == in_all, opcode, piece.len())).await.unwrap();
        }
        socket.write_all(piece).await.unwrap();
        sleep(BETWEEN).await;
    }
}

async fn over_a_websocket(world: &World, version: ProtocolVersion) -> Client<Binary<TcpStream>> {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut client = Client::on(Binary::over(stream).await, version);
    client.connect(connect_of(version)).await;
    client
}

#[actix_rt::test]
async fn a_websocket_frame_that_is_not_whole_is_as_good_as_whole_ones() {
    let world = World::with(Way::WebSocket).await;
    for frames in [Frames::One, Frames::Fragments] {
        join_all(ALL.map(async |version| {
            let mut client = over_a_websocket(&world, version).await;
            send_in_pieces(&mut client, frames, 12_500, usize::MAX).await;
            expect_taken(&mut client).await;
        }))
        .await;
    }
}

/// The heads of frames are not bytes of a packet, however many come.
#[actix_rt::test]
async fn a_websocket_frame_that_trickles_is_not() {
    let world = World::with(Way::WebSocket).await;
    for frames in [Frames::One, Frames::Fragments] {
        join_all(ALL.map(async |version| {
            let begun = Instant::now();
            let mut client = over_a_websocket(&world, version).await;
            send_in_pieces(&mut client, frames, 5, 10).await;
            client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
            assert!(begun.elapsed() >= GIVEN_UP_AFTER, "given up after {:?}", begun.elapsed());
        }))
        .await;
    }
}
