//! PROXY headers: which senders are trusted, and what the address is used for.

use std::net::SocketAddr;

use hearthmq::{
    Broker,
    limits::Limits,
    metrics::ConnectRefusal,
    mqtt::{Packet, encode},
    net::{Listener, ProxyProtocol},
};
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    support::{Client, generous, packets::*},
    transports::ways::{builder, expect_refused},
};

async fn broker_within(limits: Limits, trusted: &[&str]) -> (Broker, SocketAddr) {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let listener = Listener::tcp("127.0.0.1:0").proxy_protocol(ProxyProtocol { trusted });
    let broker = builder().limits(limits).listen(listener).start().await.unwrap();
    let address = broker.local_addrs()[0];
    (broker, address)
}

async fn broker(trusted: &[&str]) -> (Broker, SocketAddr) {
    broker_within(generous(), trusted).await
}

fn header_for(source: &str) -> ProxyHeader<'static> {
    let source: SocketAddr = source.parse().unwrap();
    let destination = if source.is_ipv4() { "192.0.2.1:1883" } else { "[2001:db8::2]:1883" };
    ProxyHeader::with_address(ProxiedAddress::stream(source, destination.parse().unwrap()))
}

fn version_2(header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes).unwrap();
    bytes
}

/// Connects a client with this header. CONNECT comes in the same segment.
async fn connected(address: SocketAddr, header: &[u8], client_id: &str) -> Client<TcpStream> {
    let mut client = Client::on(TcpStream::connect(address).await.unwrap(), V5);
    let mut bytes = header.to_vec();
    encode(&Packet::Connect(Box::new(connect(client_id))), V5, &mut bytes).unwrap();
    client.send_bytes(&bytes).await;
    client.expect_connected().await;
    client
}

/// Sends these bytes and CONNECT, and expects the connection to close.
async fn expect_closed(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = bytes.to_vec();
    encode(&Packet::Connect(Box::new(connect("c"))), V5, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

async fn peer_of(broker: &Broker, client_id: &str) -> String {
    broker.client(client_id).await.unwrap().unwrap().peer.to_string()
}

#[actix_rt::test]
async fn the_address_in_the_header_is_the_clients() {
    let (broker, address) = broker(&[]).await;
    let mut text = Vec::new();
    header_for("203.0.113.5:1234").encode_v1(&mut text).unwrap();
    let mut mapped = header_for("[::ffff:203.0.113.6]:5");
    mapped.append_tlv(Tlv::Authority("mqtt.example.org".into()));
    mapped.append_tlv(Tlv::UniqueId(vec![7; 128].into()));
    for (header, expected) in [
        (text, "203.0.113.5:1234"),
        (version_2(&header_for("203.0.113.5:1234")), "203.0.113.5:1234"),
        (version_2(&header_for("[2001:db8::7]:80")), "[2001:db8::7]:80"),
        (version_2(&mapped), "203.0.113.6:5"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 52953 1883\r\n".to_vec(), "[2001:db8::1]:52953"),
    ] {
        let _client = connected(address, &header, "c").await;
        assert_eq!(peer_of(&broker, "c").await, expected);
    }
}

/// A balancer's own health check has its own address.
#[actix_rt::test]
async fn a_header_without_an_address_leaves_the_connections_own() {
    let (broker, address) = broker(&[]).await;
    for header in [version_2(&ProxyHeader::with_local()), b"PROXY UNKNOWN\r\n".to_vec()] {
        let client = connected(address, &header, "c").await;
        let own = client.stream.local_addr().unwrap();
        assert_eq!(peer_of(&broker, "c").await, own.to_string());
    }
}

#[actix_rt::test]
async fn a_connection_without_a_header_that_can_be_used_is_closed_and_counted() {
    let (broker, address) = broker(&[]).await;
    let mut future = version_2(&header_for("203.0.113.5:1"));
    future[12] = 0x31;
    let mut long = version_2(&header_for("203.0.113.5:1"));
    long[14..16].copy_from_slice(&5000_u16.to_be_bytes());
    long.resize(5016, 0);
    let wrong: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 203.0.113.5 here 1 2\r\n",
        b"PROXY TCP5 203.0.113.5 203.0.113.6 1 2\r\n",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
        &future,
        &long,
    ];
    for bytes in wrong {
        expect_closed(address, bytes).await;
    }
    expect_refused(&broker, ConnectRefusal::ProxyProtocol, 6).await;
    assert_eq!(broker.online("c").await, Ok(false));
}

#[actix_rt::test]
async fn only_trusted_balancers_may_say_whose_connection_it_is() {
    let header = version_2(&header_for("203.0.113.5:1234"));
    let (trusting, address) = broker(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    let _client = connected(address, &header, "c").await;
    assert_eq!(peer_of(&trusting, "c").await, "203.0.113.5:1234");

    let (wary, address) = broker(&["10.0.0.0/8"]).await;
    expect_closed(address, &header).await;
    expect_refused(&wary, ConnectRefusal::ProxyProtocol, 1).await;
}

/// The balancer's own address is not counted, because all clients come from it.
#[actix_rt::test]
async fn limits_of_one_address_count_the_clients_and_not_the_balancer() {
    let limits = Limits { connections_per_address_max: 1, ..generous() };
    let (broker, address) = broker_within(limits, &[]).await;
    let one = version_2(&header_for("203.0.113.1:1"));
    let other = version_2(&header_for("203.0.113.2:1"));
    let _one = connected(address, &one, "one").await;
    let _other = connected(address, &other, "other").await;
    assert_eq!(broker.connections(), 2);
    expect_closed(address, &one).await;
    expect_refused(&broker, ConnectRefusal::ConnectionsPerAddressMax, 1).await;
}
