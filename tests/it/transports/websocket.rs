//! Chapter 6: MQTT over WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use hearthmq::{Broker, mqtt::Packet};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Bytes, Error, Message,
        protocol::frame::{
            Frame, FrameHeader,
            coding::{CloseCode, Control, Data, OpCode},
        },
    },
};

use crate::{
    support::{Client, builder, packets::*},
    websocket_client::{Binary, request, websocket},
};

type Socket = WebSocketStream<TcpStream>;

/// Starts a broker; returns its addresses for WebSocket and for TCP.
async fn broker() -> (Broker, SocketAddr, SocketAddr) {
    let broker = builder().websocket("127.0.0.1:0").tcp("127.0.0.1:0").start().await.unwrap();
    let [over_websocket, over_tcp] = broker.local_addrs() else { panic!("two listeners") };
    let (over_websocket, over_tcp) = (*over_websocket, *over_tcp);
    (broker, over_websocket, over_tcp)
}

async fn socket(address: SocketAddr) -> Socket {
    websocket(TcpStream::connect(address).await.unwrap()).await.0
}

fn bytes(packet: Packet<'_>) -> Bytes {
    encoded(&packet, V5).into()
}

fn connect_bytes() -> Bytes {
    bytes(Packet::Connect(Box::new(connect("c"))))
}

/// Returns a masked frame, as a client sends it.
fn frame(opcode: OpCode, is_final: bool, payload: impl Into<Bytes>) -> Message {
    let header = FrameHeader { opcode, is_final, ..FrameHeader::default() };
    Message::Frame(Frame::from_payload(header, payload.into()))
}

/// Expects a binary message next, and returns it.
async fn binary(socket: &mut Socket) -> Bytes {
    match socket.next().await.unwrap().unwrap() {
        Message::Binary(data) => data,
        other => panic!("a binary frame is expected, not {other:?}"),
    }
}

/// Sends CONNECT and expects CONNACK.
async fn connect_on(socket: &mut Socket) {
    socket.send(Message::Binary(connect_bytes())).await.unwrap();
    assert_eq!(binary(socket).await[0], 0x20);
}

/// Expects to be closed with this code, whatever comes before.
async fn expect_close(socket: &mut Socket, code: CloseCode) {
    let close = loop {
        match socket.next().await.unwrap() {
            Ok(Message::Close(close)) => break close,
            Ok(_) => {}
            Err(error) => panic!("a close frame is expected, not {error}"),
        }
    };
    assert_eq!(close.unwrap().code, code);
    assert!(socket.next().await.is_none(), "the network connection is closed");
}

/// [MQTT-6.0.0-1], [MQTT-6.0.0-1] of 3.1.1: Control Packets come in binary frames.
#[actix_rt::test]
async fn packets_are_sent_in_binary_frames() {
    let (_broker, address, _) = broker().await;
    let mut socket = socket(address).await;
    connect_on(&mut socket).await;
    socket.send(Message::Binary(bytes(Packet::PingReq))).await.unwrap();
    assert_eq!(*binary(&mut socket).await, [0xD0, 0x00]);
}

/// [MQTT-6.0.0-1], [MQTT-6.0.0-1] of 3.1.1: any other data frame closes the network connection. The
/// client has sent no DISCONNECT, so its Will is published.
#[actix_rt::test]
async fn a_text_frame_closes_the_connection() {
    let (_broker, address, over_tcp) = broker().await;
    let mut watcher = Client::on(TcpStream::connect(over_tcp).await.unwrap(), V5);
    watcher.connect(connect("watcher")).await;
    watcher.subscribe("will", QOS_0).await;
    for version in VERSIONS {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut socket = websocket(stream).await.0;
        let mut connect = connect_in(version, "c");
        connect.will = Some(will("will", "gone"));
        let packet = encoded(&Packet::Connect(Box::new(connect)), version);
        socket.send(Message::Binary(packet.into())).await.unwrap();
        binary(&mut socket).await;
        socket.send(Message::Text("{\"hello\":1}".into())).await.unwrap();
        expect_close(&mut socket, CloseCode::Unsupported).await;
        watcher.expect_publish(publish("will", "gone")).await;
    }
    let mut early = socket(address).await;
    early.send(Message::Text("CONNECT".into())).await.unwrap();
    expect_close(&mut early, CloseCode::Unsupported).await;
}

/// [MQTT-6.0.0-2], [MQTT-6.0.0-2] of 3.1.1: packets are not aligned with frames.
#[actix_rt::test]
async fn a_frame_holds_a_part_of_a_packet_or_several_packets() {
    let (_broker, address, _) = broker().await;
    let mut cut = socket(address).await;
    for byte in connect_bytes() {
        cut.send(Message::Binary(vec![byte].into())).await.unwrap();
    }
    assert_eq!(binary(&mut cut).await[0], 0x20);

    let mut heap = connect_bytes().to_vec();
    heap.extend_from_slice(&bytes(subscribe_to("t")));
    for number in ["1", "2", "3"] {
        heap.extend_from_slice(&bytes(Packet::Publish(publish("t", number))));
    }
    let (whole, torn) = heap.split_at(heap.len() - 3);
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = Client::on(Binary::over(stream).await, V5);
    client.send_bytes(whole).await;
    client.send_bytes(torn).await;
    client.expect_connected().await;
    client.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)), "{packet:?}")).await;
    for number in ["1", "2", "3"] {
        client.expect_publish(publish("t", number)).await;
    }
}

fn subscribe_to(topic_filter: &str) -> Packet<'_> {
    subscribe(1, vec![filter(topic_filter, QOS_0)])
}

/// [MQTT-6.0.0-2], [MQTT-6.0.0-2] of 3.1.1: a WebSocket message may be split into frames,
/// with control frames between them.
#[actix_rt::test]
async fn a_packet_may_be_cut_into_continuation_frames_with_a_ping_between_them() {
    let (_broker, address, _) = broker().await;
    let mut socket = socket(address).await;
    let packet = connect_bytes();
    let (binary_frame, continuation) = (OpCode::Data(Data::Binary), OpCode::Data(Data::Continue));
    socket.send(frame(binary_frame, false, packet.slice(..3))).await.unwrap();
    socket.send(frame(continuation, false, Bytes::new())).await.unwrap();
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    socket.send(frame(continuation, true, packet.slice(3..))).await.unwrap();
    let (mut is_answered, mut is_connected) = (false, false);
    while !(is_answered && is_connected) {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload, "are you there");
                is_answered = true;
            }
            Message::Binary(data) => {
                assert_eq!(data[0], 0x20);
                is_connected = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-3] of 3.1.1: the client offers `mqtt`. A client that does not
/// is not an MQTT client.
#[actix_rt::test]
async fn a_client_that_does_not_offer_mqtt_is_refused() {
    let (_broker, address, _) = broker().await;
    for offered in [None, Some("chat"), Some("MQTT"), Some("mqtt5")] {
        let stream = TcpStream::connect(address).await.unwrap();
        match client_async(request(offered), stream).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 400, "{offered:?}"),
            other => panic!("{offered:?}: {other:?}"),
        }
    }
}

/// [MQTT-6.0.0-4], [MQTT-6.0.0-4] of 3.1.1: the server selects `mqtt`.
#[actix_rt::test]
async fn the_subprotocol_that_is_selected_is_mqtt() {
    let (_broker, address, _) = broker().await;
    for offered in ["mqtt", "mqttv3.1, mqtt", "chat,mqtt"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let (_, answer) = client_async(request(Some(offered)), stream).await.unwrap();
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "mqtt");
    }
}

/// RFC 6455, 5.5.1: a close frame is answered with one. For MQTT the connection is lost.
#[actix_rt::test]
async fn a_close_frame_is_answered_and_ends_the_connection() {
    let (broker, address, _) = broker().await;
    let mut socket = socket(address).await;
    connect_on(&mut socket).await;
    socket.close(None).await.unwrap();
    expect_close(&mut socket, CloseCode::Normal).await;
    assert_eq!(broker.online("c").await, Ok(false));
}

/// RFC 6455, chapter 5: a frame that a client must not send fails the connection.
#[actix_rt::test]
async fn frames_that_a_client_must_not_send_fail_the_connection() {
    let (_broker, address, _) = broker().await;
    let (binary_frame, continuation) = (OpCode::Data(Data::Binary), OpCode::Data(Data::Continue));
    let reserved = |set: fn(&mut FrameHeader)| {
        let mut frame = Frame::message(connect_bytes(), binary_frame, true);
        set(frame.header_mut());
        Message::Frame(frame)
    };
    let begin = connect_bytes().slice(..3);
    let wrong: [Vec<Message>; 7] = [
        vec![frame(continuation, true, connect_bytes())],
        vec![frame(binary_frame, false, begin.clone()), frame(binary_frame, true, begin.clone())],
        vec![frame(OpCode::Control(Control::Ping), false, "x")],
        vec![frame(OpCode::Control(Control::Ping), true, "x".repeat(126))],
        vec![frame(OpCode::Control(Control::Close), true, "x")],
        vec![reserved(|header| header.rsv1 = true)],
        vec![reserved(|header| header.rsv3 = true)],
    ];
    for frames in wrong {
        let mut socket = socket(address).await;
        for frame in frames {
            socket.send(frame).await.unwrap();
        }
        expect_close(&mut socket, CloseCode::Protocol).await;
    }
    // A client must mask its frames. (5.1)
    let mut socket = socket(address).await;
    socket.get_mut().write_all(&[0x82, 0x02, 0xC0, 0x00]).await.unwrap();
    expect_close(&mut socket, CloseCode::Protocol).await;
}
