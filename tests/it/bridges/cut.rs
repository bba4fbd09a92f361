//! What survives the end of a broker.

use hearthmq::{
    Broker,
    bridge::Direction,
    control::{BridgeControl as _, BridgePhase},
    store::{MemoryStore, Store},
};
use std::sync::Arc;

use super::network::{Network, bridge_to, connected, topic, until};
use crate::support::{Client, builder, packets::*, pass, secs, world};

async fn edge_on(network: &Network, store: &Arc<dyn Store>) -> Broker {
    tokio::task::yield_now().await;
    let topics = vec![topic("out/#", Direction::Out, QOS_2)];
    let builder =
        network.join(builder().shared_store(Arc::clone(store)), [bridge_to("hub", topics)]);
    builder.start().await.unwrap()
}

#[actix_rt::test]
async fn what_waits_survives_the_broker() {
    let hub = world().await;
    let network = Network::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let edge = edge_on(&network, &store).await;
    for payload in [b"1", b"2", b"3"] {
        edge.publish("out/a", payload, QOS_2, false).await.unwrap();
    }
    edge.set_bridge_enabled("hub", false).await.unwrap();
    edge.shutdown(secs(10)).await;
    drop(edge);
    network.host("hub", &hub);
    let edge = edge_on(&network, &store).await;
    // It stays stopped, as a call has said.
    let view = until(&edge, "hub", BridgePhase::Stopped).await;
    assert_eq!((view.enabled, view.queued.0), (false, 3));
    let mut client = Client::connected(&hub, connect("subscriber")).await;
    client.subscribe("#", QOS_0).await;
    edge.set_bridge_enabled("hub", true).await.unwrap();
    connected(&edge, "hub").await;
    for payload in ["1", "2", "3"] {
        assert_eq!(client.receive_payload().await, payload);
    }
    pass(secs(1)).await;
    let view = edge.find_bridge("hub").await.unwrap();
    assert_eq!((view.queued.0, view.in_flight), (0, 0));
}

/// The session of a bridge that is no longer configured ends with the next start.
#[actix_rt::test]
async fn a_bridge_that_is_gone_leaves_no_session() {
    let _hub = world().await;
    let network = Network::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let edge = edge_on(&network, &store).await;
    edge.publish("out/a", b"1", QOS_2, false).await.unwrap();
    edge.shutdown(secs(10)).await;
    drop(edge);
    let edge = builder().shared_store(store).start().await.unwrap();
    pass(secs(1)).await;
    assert!(edge.client("$bridge/hub").await.unwrap().is_none());
}
