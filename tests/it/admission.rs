//! Who is let in: bounds on connections, on how fast they come, and on the time that CONNECT may take.

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{AuthenticationError, Authenticator, Credentials, Identity},
    metrics::ConnectRefusal,
    mqtt::{Connect, Packet, ReasonCode},
};
use tokio::net::TcpStream;

use super::support::{Client, builder, generous, packets::*, pass, secs, world_with, world_within};

#[actix_rt::test]
async fn a_connect_that_takes_too_long_is_counted() {
    let broker = world_within(|limits| limits.connect_timeout_secs = 3).await;
    let mut client = Client::new(&broker, V5);
    client.expect_nothing_for(super::support::millis(2990)).await;
    client.expect_closed().await;
    let refused = &broker.metrics().shard(0).connects_refused;
    assert_eq!(refused.of(ConnectRefusal::ConnectTimeout).value(), 1);
}

/// Thinks for ever, or for as many seconds as the user name says.
struct Slow;

#[async_trait]
impl Authenticator for Slow {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        match credentials.username.and_then(|name| name.parse().ok()) {
            Some(number) => pass(secs(number)).await,
            None => std::future::pending().await,
        }
        Ok(Identity::default())
    }
}

#[actix_rt::test]
async fn an_authenticator_that_hangs_is_not_waited_for_for_ever() {
    let broker = world_with(|builder| builder.authenticator(Slow)).await;
    for version in VERSIONS {
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
        client.expect_nothing_for(secs(59)).await;
        client.expect_refused(ReasonCode::ServerUnavailable).await;
        let mut patient = Client::new(&broker, version);
        let packet = Connect { username: Some("58"), ..connect_in(version, "c") };
        patient.send(Packet::Connect(Box::new(packet))).await;
        patient.expect_nothing_for(secs(57)).await;
        patient.expect_connected().await;
        patient.leave().await;
    }
}

async fn over_tcp(broker: &Broker) -> Client<TcpStream> {
    let stream = TcpStream::connect(broker.local_addrs()[0]).await.unwrap();
    Client::on(stream, V5)
}

/// A client whose connection the broker sees at once, because it says something.
async fn knock(broker: &Broker) -> Client<TcpStream> {
    let mut client = over_tcp(broker).await;
    client.send(Packet::Connect(Box::new(connect("knocking")))).await;
    client
}

async fn listening(change: impl FnOnce(&mut hearthmq::limits::Limits)) -> Broker {
    let mut limits = generous();
    change(&mut limits);
    let builder = builder().limits(limits).tcp("127.0.0.1:0");
    builder.start().await.unwrap()
}

/// Two are in, the third is closed, and when one leaves there is room again.
async fn assert_two_at_a_time(broker: &Broker, refusal: ConnectRefusal) {
    let mut first = over_tcp(broker).await;
    first.connect(connect("1")).await;
    let mut second = over_tcp(broker).await;
    second.connect(connect("2")).await;
    knock(broker).await.expect_closed().await;
    let refused = &broker.metrics().shard(0).connects_refused;
    assert_eq!(refused.of(refusal).value(), 1);
    first.ping().await;
    first.leave().await;
    while broker.connections() > 1 {
        tokio::task::yield_now().await;
    }
    over_tcp(broker).await.connect(connect("3")).await;
    second.ping().await;
}

#[actix_rt::test]
async fn connections_are_bounded() {
    let broker = listening(|limits| limits.connections_max = 2).await;
    assert_two_at_a_time(&broker, ConnectRefusal::ConnectionsMax).await;
}

#[actix_rt::test]
async fn connections_of_one_address_are_bounded() {
    let broker = listening(|limits| limits.connections_per_address_max = 2).await;
    assert_two_at_a_time(&broker, ConnectRefusal::ConnectionsPerAddressMax).await;
}

#[actix_rt::test]
async fn the_rate_of_connects_from_one_address_is_bounded() {
    let broker = listening(|limits| {
        limits.connects_per_address_per_sec = 1;
        limits.connects_per_address_burst = 3;
    })
    .await;
    let mut clients = Vec::new();
    for client_id in ["1", "2", "3"] {
        let mut client = over_tcp(&broker).await;
        client.connect(connect(client_id)).await;
        clients.push(client);
    }
    knock(&broker).await.expect_closed().await;
    let refused = &broker.metrics().shard(0).connects_refused;
    assert_eq!(refused.of(ConnectRefusal::ConnectRate).value(), 1);
    for client in &mut clients {
        client.ping().await;
    }
}

/// Over a socket, with more on its way than the broker reads: the client still hears why.
#[actix_rt::test]
async fn who_sends_too_large_a_packet_is_told_so_over_a_socket() {
    let broker = listening(|limits| limits.packet_bytes_max = 1000).await;
    for _ in 0..20 {
        let mut client = over_tcp(&broker).await;
        client.connect(connect("c")).await;
        let mut packet = vec![b'x'; 100_000];
        packet[..4].copy_from_slice(&[0x30, 0xFF, 0xFF, 0x7F]);
        client.send_bytes(&packet).await;
        client
            .receive(|packet| {
                let Packet::Disconnect(disconnect) = packet else { panic!("{packet:?}") };
                assert_eq!(disconnect.reason, ReasonCode::PacketTooLarge);
                assert_eq!(disconnect.properties.reason_string, Some("MQTT-3.2.2-15"));
            })
            .await;
    }
}
