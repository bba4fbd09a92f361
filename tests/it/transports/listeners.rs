//! The name of the listener that accepted a connection, as authenticators and permissions see it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hearthmq::{
    auth::{
        AccessRequest, AllowAll, AuthenticationError, Authenticator, Authorizer, Credentials,
        Decision, Identity,
    },
    mqtt::ReasonCode,
};

use crate::{
    support::{Client, packets::*},
    transports::ways::{Way, World, builder},
};

/// Allows everything, and records the names that it gets.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    fn see(&self, listener: &str) {
        self.0.lock().unwrap().push(listener.to_owned());
    }

    fn seen(&self) -> Vec<String> {
        let mut names = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(names.len() >= 4, "login, connect, subscribe and publish: {names:?}");
        names.dedup();
        names
    }
}

#[async_trait]
impl Authenticator for Names {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        self.see(shown.listener);
        AllowAll.authenticate(shown).await
    }
}

impl Authorizer for Names {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        self.see(request.listener);
        Decision::Allow
    }
}

#[actix_rt::test]
async fn whatever_way_a_client_comes_its_listener_is_known_by_the_url_that_the_start_prints() {
    for (way, scheme, path) in [
        (Way::Tcp, "mqtt://127.0.0.1:", ""),
        (Way::Tls, "mqtts://127.0.0.1:", ""),
        (Way::WebSocket, "ws://127.0.0.1:", "/mqtt"),
        (Way::SecureWebSocket, "wss://127.0.0.1:", "/mqtt"),
        (Way::Unix, "unix:/", "/mqtt.sock"),
        (Way::Ipv6, "mqtt://[::1]:", ""),
        (Way::Proxied, "mqtt://127.0.0.1:", ""),
        (Way::ProxiedSecureWebSocket, "wss://127.0.0.1:", "/mqtt"),
        (Way::Hosted, "hosted-websocket", ""),
    ] {
        let names = Names::default();
        let world = World::configured(way, |builder| {
            builder.authenticator(names.clone()).authorizer(names.clone())
        })
        .await;
        let (mut client, _) = world.connected(connect("c")).await;
        client.subscribe("a", QOS_0).await;
        client.publish(publish_1(1, "b", "x")).await;
        client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
        let seen = names.seen();
        assert_eq!(seen.len(), 1, "{way:?}: {seen:?}");
        assert!(seen[0].starts_with(scheme) && seen[0].ends_with(path), "{way:?}: {seen:?}");
        let urls = world.broker.listener_urls();
        assert!(way == Way::Hosted || *urls.last().unwrap() == seen[0].clone().into());
    }
}

#[actix_rt::test]
async fn a_stream_that_the_application_brings_comes_in_process() {
    let names = Names::default();
    let broker =
        builder().authenticator(names.clone()).authorizer(names.clone()).start().await.unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut client = Client::on(ours, V5);
    let peer = "192.0.2.1:4711".parse().unwrap();
    tokio::join!(broker.serve(theirs, peer), client.connect(connect("c")));
    client.subscribe("a", QOS_0).await;
    client.publish(publish_1(1, "b", "x")).await;
    client.expect(puback(1, ReasonCode::NoMatchingSubscribers)).await;
    assert_eq!(names.seen(), ["in-process"]);
}
