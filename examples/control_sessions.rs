//! Controls live sessions from an actix application: follows who comes and goes, changes Keep Alives, also
//! for later connections, publishes, lists clients, and disconnects one.
//!
//! ```text
//! cargo run --example control_sessions
//! ```
//!
//! The program connects two devices itself, says what each call has answered, and ends.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use hearthmq::{
    Broker,
    auth::AllowAll,
    control::{
        ClientFilter, FeedKind, FeedPosition, Follow, Kick, KickOptions, ListClients,
        PublishRequest, SetKeepAlive,
    },
    mqtt::{PublicationBuilder, QoS, Timestamp},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Connects a device of MQTT 3.1.1 with Keep Alive 60; its identifier has five characters.
async fn device(address: SocketAddr, client_id: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05").await?;
    stream.write_all(client_id.as_bytes()).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(stream)
}

/// Follows the feed of presence.
struct Watcher {
    broker: Broker,
    from: FeedPosition,
}

impl Watcher {
    /// Returns the names and the JSON of the next events.
    async fn next(&mut self) -> Result<Vec<(FeedKind, String)>, Box<dyn Error>> {
        let question = Follow::new(self.from).waiting(Duration::from_secs(60));
        let part = self.broker.follow(question).await?;
        self.from = part.next;
        let events = part.items.into_iter();
        Ok(events.map(|it| (it.kind, String::from_utf8_lossy(&it.json).into_owned())).collect())
    }

    /// Waits for an event of this kind.
    async fn wait_for(&mut self, kind: FeedKind) -> Result<String, Box<dyn Error>> {
        loop {
            let events = self.next().await?;
            if let Some((_, json)) = events.into_iter().find(|(found, _)| *found == kind) {
                println!("{}: {json}", kind.name());
                return Ok(json);
            }
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = Broker::builder().tcp("127.0.0.1:0");
    let broker = builder.authenticator(AllowAll).authorizer(AllowAll).start().await?;
    let address = broker.local_addrs()[0];

    // Presence: a snapshot, then every change.
    let mut watcher = Watcher { broker: broker.clone(), from: FeedPosition::default() };
    watcher.wait_for(FeedKind::SnapshotEnd).await?;
    let _one = device(address, "car-1").await?;
    watcher.wait_for(FeedKind::ClientConnected).await?;
    let _two = device(address, "car-2").await?;
    watcher.wait_for(FeedKind::ClientConnected).await?;

    // Many Keep Alives in one call, each with a result of its own.
    let wanted = ["car-1", "nobody"].map(|id| SetKeepAlive::new(id, 120).by("example"));
    for result in broker.set_keep_alive_many(wanted.into()).await {
        println!("Keep Alive: {result:?}");
    }
    // Also for the later connections of a client, until the value is removed.
    let sticky = SetKeepAlive::new("car-2", 300).by("example").sticky();
    println!("sticky: {:?}", broker.set_keep_alive_many(vec![sticky]).await);
    println!("override: {:?}", broker.keep_alive_override("car-2").await?);
    println!("removed: {}", broker.remove_keep_alive_override("car-2").await?);

    // The live state.
    let ids = ["car-1", "car-2", "nobody"].map(str::to_owned);
    let states = broker.online_many(&ids).await?;
    println!("online: {:?}", states.iter().map(|state| state.online).collect::<Vec<_>>());
    let page = broker.list_clients(ListClients::new(ClientFilter::default(), 100)).await?;
    for client in page.clients {
        println!("{} with Keep Alive {:?}", client.client_id, client.keep_alive_secs);
    }
    if let Some(client) = broker.client("car-1").await? {
        println!("car-1 last sent something at {:?}", client.last_packet_at_millis);
    }

    let message = PublicationBuilder::new("cars/1/command", "report").qos(QoS::AtLeastOnce);
    let message = Arc::new(message.build(Timestamp(0))?);
    let published = broker.publish_counted(PublishRequest::new(message)).await?;
    println!("{} sessions match", published.matched);

    let options = KickOptions::new().reason_string("maintenance")?;
    println!("kick: {:?}", broker.kick_many(vec![Kick::new("car-1", options)]).await);
    watcher.wait_for(FeedKind::ClientDisconnected).await?;

    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
