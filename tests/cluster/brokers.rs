//! Brokers of a cluster in this process, and what their clients receive.

use std::{sync::Arc, time::Duration};

use hearthmq::{
    Broker,
    auth::AllowAll,
    control::{ClusterState, MemberState, Readiness as _},
    internals::cluster::{joining::ClusterSettings, nats::NatsSettings},
    limits::Limits,
    mqtt::{Connect, Packet, Publish, ReasonCode},
    store::MemoryStore,
};
use hearthmq_test::{Client, generous, nats::NatsServers, packets::*};
use tempfile::{TempDir, tempdir};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::support::{PATIENCE, settings};

/// A broker of a cluster. It ends with the value.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) directory: TempDir,
}

pub(crate) type TcpClient = Client<TcpStream>;

impl Node {
    pub(crate) async fn start(nats: NatsSettings) -> Self {
        Self::within(nats, generous()).await
    }

    pub(crate) async fn within(nats: NatsSettings, limits: Limits) -> Self {
        Self::on(nats, limits, Arc::default(), tempdir().unwrap()).await
    }

    /// Starts a broker with what a former one has left.
    pub(crate) async fn on(
        nats: NatsSettings,
        limits: Limits,
        store: Arc<MemoryStore>,
        directory: TempDir,
    ) -> Self {
        let settings = ClusterSettings { nats, directory: directory.path().to_owned() };
        let broker = Broker::builder()
            .tcp("127.0.0.1:0")
            .shards(2)
            .shared_store(store)
            .limits(limits)
            .authenticator(AllowAll)
            .authorizer(AllowAll)
            .cluster(settings)
            .start()
            .await
            .unwrap();
        Self { broker, directory }
    }

    /// Connects a client.
    pub(crate) async fn client(&self, connect: Connect<'_>) -> TcpClient {
        let stream = TcpStream::connect(self.broker.local_addrs()[0]).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client::on(stream, connect.version);
        client.connect(connect).await;
        client
    }

    pub(crate) fn sees(&self, names: &[&str], state: MemberState) -> bool {
        let view = self.broker.cluster().unwrap();
        let is_it = |name: &&str| {
            view.members.iter().any(|member| member.node == *name && member.state == state)
        };
        view.state == ClusterState::Serving && names.iter().all(is_it)
    }
}

/// Starts a broker with each of these names, and waits until all serve.
pub(crate) async fn nodes<const N: usize>(servers: &NatsServers, names: [&str; N]) -> [Node; N] {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(Node::start(settings(servers, name)).await);
    }
    for node in &nodes {
        wait(|| node.sees(&names, MemberState::Serving)).await;
    }
    nodes.try_into().ok().unwrap()
}

pub(crate) async fn wait(is_it: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_it() {
        assert!(began.elapsed() < PATIENCE, "it does not happen");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Receives the next PUBLISH, and acknowledges it. PUBRELs may come before it.
pub(crate) async fn next_message<T>(client: &mut TcpClient, look: impl Fn(Publish<'_>) -> T) -> T {
    loop {
        let came = client.receive(|packet| {
            if let Packet::PubRel(release) = &packet {
                return Err(release.packet_id.0.get());
            }
            let Packet::Publish(publish) = packet else { panic!("PUBLISH, not {packet:?}") };
            Ok((publish.flags.qos, publish.packet_id, look(publish)))
        });
        match came.await {
            Err(packet_id) => client.send(pubcomp(packet_id)).await,
            Ok((qos, packet_id, seen)) => {
                let packet_id = packet_id.map(|packet_id| packet_id.0.get());
                match (qos, packet_id) {
                    (QOS_1, Some(id)) => client.send(puback(id, ReasonCode::Success)).await,
                    (QOS_2, Some(id)) => client.send(pubrec(id, ReasonCode::Success)).await,
                    _ => {}
                }
                return seen;
            }
        }
    }
}

/// Expects this PUBLISH, whatever its Packet Identifier is, and acknowledges it.
pub(crate) async fn expect_message(client: &mut TcpClient, expected: Publish<'_>) {
    let look = |publish: Publish<'_>| {
        assert_eq!(Publish { packet_id: expected.packet_id, ..publish }, expected);
    };
    next_message(client, look).await;
}

/// Expects that no PUBLISH comes before the answer to PINGREQ.
pub(crate) async fn expect_no_more(client: &mut TcpClient) {
    client.send(Packet::PingReq).await;
    loop {
        let came = client.receive(|packet| {
            if let Packet::PubRel(release) = &packet {
                return Some(release.packet_id.0.get());
            }
            assert_eq!(packet, Packet::PingResp);
            None
        });
        match came.await {
            Some(packet_id) => client.send(pubcomp(packet_id)).await,
            None => return,
        }
    }
}
