//! Brokers that bridges connect, on virtual time: the streams of bridges lead to other brokers of the
//! test, or to the test itself, and can be cut.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use hearthmq::{
    Broker,
    bridge::{Bridge, BridgeOptions, BridgeTopic, Direction},
    broker::Builder,
    control::{BridgeControl as _, BridgePhase, BridgeView},
    mqtt::{ProtocolVersion, QoS},
};
use tokio::{
    io::{DuplexStream, copy_bidirectional},
    sync::{Notify, mpsc},
};

use crate::support::{Client, millis, pass, secs, stream_of};

/// Where the streams of bridges lead, by host.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Hosts>>);

#[derive(Default)]
struct Hosts {
    brokers: HashMap<String, Broker>,
    servers: HashMap<String, mpsc::UnboundedSender<DuplexStream>>,
    /// Told when all present streams are cut.
    cut: Arc<Notify>,
}

impl Network {
    /// Lets a host be this broker; a broker that was it before is no longer reached.
    pub(crate) fn host(&self, name: &str, broker: &Broker) {
        self.lock().brokers.insert(name.to_owned(), broker.clone());
    }

    /// Lets a host be unreachable.
    pub(crate) fn lose(&self, name: &str) {
        self.lock().brokers.remove(name);
    }

    /// Lets a host be the test itself, which gets the streams.
    pub(crate) fn server(&self, name: &str) -> Server {
        let (sender, streams) = mpsc::unbounded_channel();
        self.lock().servers.insert(name.to_owned(), sender);
        Server(streams)
    }

    /// Cuts all streams to brokers that are open.
    pub(crate) async fn cut(&self) {
        let cut = Arc::clone(&self.lock().cut);
        cut.notify_waiters();
        pass(millis(1)).await;
    }

    /// Gives a broker bridges that lead into this network.
    pub(crate) fn join(
        &self,
        builder: Builder,
        bridges: impl IntoIterator<Item = Bridge>,
    ) -> Builder {
        let network = self.clone();
        let builder = builder.dial_bridges(move |address| network.dial(address));
        bridges.into_iter().fold(builder, Builder::bridge)
    }

    fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let host = address.trim_start_matches("mqtt://").split(':').next().unwrap_or_default();
        let hosts = self.lock();
        if let Some(server) = hosts.servers.get(host) {
            let (here, there) = tokio::io::duplex(1 << 20);
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            server.send(there).map_err(refused)?;
            return Ok(here);
        }
        let broker = hosts.brokers.get(host).ok_or(io::ErrorKind::ConnectionRefused)?;
        let mut there = stream_of(broker, 1 << 16);
        let (here, mut between) = tokio::io::duplex(1 << 16);
        let cut = Arc::clone(&hosts.cut);
        actix_rt::spawn(async move {
            tokio::select! {
                _ = copy_bidirectional(&mut between, &mut there) => {}
                () = cut.notified() => {}
            }
        });
        Ok(here)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's side of the streams of bridges.
pub(crate) struct Server(mpsc::UnboundedReceiver<DuplexStream>);

impl Server {
    /// Returns the next stream, as a client that sends what a server would send.
    pub(crate) async fn accept(&mut self, version: ProtocolVersion) -> Client {
        let stream = tokio::time::timeout(secs(600), self.0.recv()).await;
        let stream = stream.expect("a bridge is expected to connect").unwrap();
        Client::on(stream, version)
    }
}

/// Returns a topic of a bridge.
pub(crate) fn topic(filter: &str, direction: Direction, qos: QoS) -> BridgeTopic {
    BridgeTopic { filter: filter.to_owned(), direction, qos, ..BridgeTopic::default() }
}

/// Returns a bridge to a host.
pub(crate) fn bridge_to(host: &str, topics: Vec<BridgeTopic>) -> Bridge {
    let address = format!("mqtt://{host}").parse().unwrap();
    Bridge::new(host, vec![address], topics).unwrap()
}

/// Returns a bridge to a host without marks, and with these options changed.
pub(crate) fn bridge_with(
    host: &str,
    topics: Vec<BridgeTopic>,
    change: impl FnOnce(&mut BridgeOptions),
) -> Bridge {
    let mut options = BridgeOptions { marks_loops: false, ..BridgeOptions::default() };
    change(&mut options);
    bridge_to(host, topics).options(options).unwrap()
}

/// Waits until a bridge is in this phase.
pub(crate) async fn until(broker: &Broker, name: &str, phase: BridgePhase) -> BridgeView {
    for _ in 0..60_000 {
        let view = broker.find_bridge(name).await.unwrap();
        if view.phase == phase {
            return view;
        }
        pass(millis(10)).await;
    }
    panic!("the bridge {name} is not {phase:?}: {:?}", broker.find_bridge(name).await);
}

/// Waits until a bridge is connected.
pub(crate) async fn connected(broker: &Broker, name: &str) -> BridgeView {
    until(broker, name, BridgePhase::Connected).await
}
