//! Admission: limits on connections, on their rate, and on the time that CONNECT may take.

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{AuthenticationError, Authenticator, Credentials, Identity},
    metrics::{ConnectRefusal, TransportKind},
    mqtt::{Connect, Packet, ReasonCode},
};
use tokio::net::TcpStream;

use crate::support::{
    Client, builder, generous, packets::*, pass, refused, secs, world_with, world_within,
};

#[actix_rt::test]
async fn a_connect_that_takes_too_long_is_counted() {
    let broker = world_within(|limits| limits.connect_timeout_secs = 3).await;
    let mut client = Client::new(&broker, V5);
    client.expect_nothing_for(crate::support::millis(2990)).await;
    client.expect_closed().await;
    assert_eq!(refused(&broker, ConnectRefusal::ConnectTimeout), 1);
}

/// Never answers, or only after the number of seconds in the user name.
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
async fn an_authenticator_that_hangs_is_given_up() {
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

/// Connects a client that the broker notices at once, because it sends something.
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

/// Checks that two clients are admitted, the third is refused, and one that leaves makes room.
async fn assert_two_at_a_time(
    broker: &Broker,
    refusal: ConnectRefusal,
    refuses: impl AsyncFnOnce(&mut Client<TcpStream>),
) {
    let mut first = over_tcp(broker).await;
    first.connect(connect("1")).await;
    let mut second = over_tcp(broker).await;
    second.connect(connect("2")).await;
    refuses(&mut knock(broker).await).await;
    assert_eq!(refused(broker, refusal), 1);
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
    assert_two_at_a_time(&broker, ConnectRefusal::ConnectionsMax, async |client| {
        client.expect_refused(ReasonCode::ServerBusy).await;
    })
    .await;
}

#[actix_rt::test]
async fn connections_of_one_address_are_bounded() {
    let broker = listening(|limits| limits.connections_per_address_max = 2).await;
    assert_two_at_a_time(&broker, ConnectRefusal::ConnectionsPerAddressMax, async |client| {
        client.expect_closed().await;
    })
    .await;
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
    knock(&broker).await.expect_refused(ReasonCode::ConnectionRateExceeded).await;
    assert_eq!(refused(&broker, ConnectRefusal::ConnectRate), 1);
    for client in &mut clients {
        client.ping().await;
    }
}

/// Over a socket, with more data on its way than the broker reads: the client still gets the
/// reason.
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

/// The sockets send nothing, or one byte: they evict each other, and a client can always connect.
#[actix_rt::test]
async fn a_silent_connection_does_not_keep_a_client_out() {
    let broker = listening(|limits| {
        limits.connections_max = 10;
        limits.connecting_max = 8;
        limits.connecting_per_address_max = 4;
    })
    .await;
    let mut silent = Vec::new();
    for round in 0..40 {
        let mut socket = over_tcp(&broker).await;
        socket.send_bytes(&[0x10]).await;
        silent.push(socket);
        if round % 10 == 9 {
            let mut client = over_tcp(&broker).await;
            client.connect(connect("good")).await;
            client.ping().await;
            client.leave().await;
        }
    }
    while refused(&broker, ConnectRefusal::ConnectingMax) < 36 {
        tokio::task::yield_now().await;
    }
    let mut first = silent.swap_remove(0);
    first.expect_closed().await;
}

/// A client that waits for its password check waits for the broker, and idle sockets do not evict
/// it.
#[actix_rt::test]
async fn a_client_that_waits_for_its_password_is_not_evicted_by_silent_ones() {
    let broker = world_with(|builder| {
        let mut limits = generous();
        limits.connecting_max = 2;
        builder.limits(limits).authenticator(Slow)
    })
    .await;
    let mut patient = Client::new(&broker, V5);
    let packet = Connect { username: Some("5"), ..connect("patient") };
    patient.send(Packet::Connect(Box::new(packet))).await;
    pass(secs(1)).await;
    let mut silent: Vec<_> = (0..10).map(|_| Client::new(&broker, V5)).collect();
    pass(secs(1)).await;
    silent[0].expect_closed().await;
    pass(secs(3)).await;
    patient.expect_connected().await;
    patient.ping().await;
}

#[actix_rt::test]
async fn streams_of_the_application_count_like_connections() {
    let broker = world_within(|limits| limits.connections_max = 2).await;
    let mut clients = Vec::new();
    for client_id in ["1", "2"] {
        clients.push(Client::connected(&broker, connect(client_id)).await);
    }
    assert_eq!(broker.connections(), 2);
    for version in VERSIONS {
        let mut third = Client::new(&broker, version);
        third.send(Packet::Connect(Box::new(connect_in(version, "3")))).await;
        third.expect_refused(ReasonCode::ServerBusy).await;
    }
    let metrics = broker.metrics();
    assert_eq!(refused(&broker, ConnectRefusal::ConnectionsMax), VERSIONS.len() as u64);
    let of_shard = &metrics.shard(0).connects_refused;
    let of_shard = of_shard.of(ConnectRefusal::ConnectionsMax).value();
    assert_eq!(of_shard, 0, "no other thread writes what a shard counts");
    let accepted = metrics.shards().map(|cell| {
        let of_application = cell.sockets_accepted.of(TransportKind::InProcess);
        of_application.value()
    });
    assert_eq!(accepted.sum::<u64>(), 2 + VERSIONS.len() as u64);
    clients.remove(0).leave().await;
    while broker.connections() > 1 {
        tokio::task::yield_now().await;
    }
    clients.push(Client::connected(&broker, connect("3")).await);
}
