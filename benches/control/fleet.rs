//! A broker with its HTTP server in this process, and clients on in-process streams.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer, dev::ServerHandle};
use hearthmq::{
    Broker,
    auth::{AllowAll, FilePolicy},
    broker::Builder,
    http::{ApiOptions, routes},
    limits::Limits,
    metrics::TurnTimes,
    mqtt::{Connect, Packet},
};
use hearthmq_test::packets::{QOS_1, V3_1_1, connect_in, encoded, filter, subscribe};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes that a stream holds in each direction.
const STREAM_BYTES: usize = 256;

/// Ten rules, of which the last allows.
fn policy() -> String {
    let denied = (0..9).map(|n| {
        format!(
            "[[rules]]\neffect = \"deny\"\nactions = [\"observe\"]\nclients = [\"other-{n}-*\"]\n"
        )
    });
    let actions =
        "[\"connect\", \"publish\", \"subscribe\", \"observe\", \"control\", \"administer\"]";
    let allowed = format!("[[rules]]\neffect = \"allow\"\nactions = {actions}\n");
    denied.chain([allowed]).collect()
}

/// Turns of the shards above a millisecond.
pub(crate) struct LongTurns {
    /// Their number, without those that were only interrupted.
    pub(crate) long: u64,
    /// The time of other threads in all of them.
    pub(crate) interrupted: Duration,
}

pub(crate) struct Fleet {
    pub(crate) broker: Broker,
    pub(crate) http: SocketAddr,
    clients: Vec<DuplexStream>,
    server: ServerHandle,
    _directory: TempDir,
}

impl Fleet {
    /// Starts the broker and its HTTP server.
    pub(crate) async fn start(shards: usize) -> Self {
        Self::start_with(shards, |builder| builder).await
    }

    /// Does the same with a builder that is changed.
    pub(crate) async fn start_with(shards: usize, change: impl FnOnce(Builder) -> Builder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        fs::write(&path, policy()).unwrap();
        let limits = Limits { connections_max: u32::MAX, ..Limits::default() };
        let builder = Broker::builder()
            .authenticator(AllowAll)
            .authorizer(FilePolicy::open(&path).unwrap())
            .limits(limits)
            .shards(shards);
        let broker = change(builder).start().await.unwrap();
        let options = ApiOptions {
            followers_max: 100,
            followers_per_account_max: 100,
            ..ApiOptions::default()
        };
        let api = broker.api(&options);
        let server = HttpServer::new(move || App::new().configure(routes(api.clone())))
            .workers(1)
            .tcp_nodelay(true)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        let http = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { broker, http, clients: Vec::new(), server: handle, _directory: directory }
    }

    /// Connects clients until their number is reached.
    pub(crate) async fn grow_to(&mut self, clients: usize) {
        let began = Instant::now();
        for number in self.clients.len()..clients {
            self.clients.push(connect(&self.broker, &client_id(number)).await);
        }
        println!("{clients} clients are connected, after {:.1?}", began.elapsed());
    }

    /// Subscribes each client to a topic of its own.
    pub(crate) async fn subscribe(&mut self) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            let topic = format!("to/{}", client_id(number));
            let packet = encoded(&subscribe(1, vec![filter(&topic, QOS_1)]), V3_1_1);
            client.write_all(&packet).await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
        }
    }

    /// Returns the number of clients.
    pub(crate) const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Returns how many turns of the shards took longer than a millisecond so far.
    pub(crate) fn turns(&self) -> LongTurns {
        let metrics = self.broker.metrics();
        let turns = || metrics.shards().map(|shard| &shard.turns);
        LongTurns {
            long: turns().map(|turns| turns.longer_than(1_000)).sum(),
            interrupted: turns().map(TurnTimes::interrupted).sum(),
        }
    }

    pub(crate) async fn end(self) {
        drop(self.clients);
        self.broker.shutdown(Duration::ZERO).await;
        self.server.stop(false).await;
    }
}

/// Returns the Client Identifier of a client. A tenth of the clients have the same last digit.
pub(crate) fn client_id(number: usize) -> String {
    format!("car-{}-{number:07}", number % 10)
}

/// Connects a client that keeps no session.
pub(crate) async fn connect(broker: &Broker, client_id: &str) -> DuplexStream {
    let (mut here, there) = tokio::io::duplex(STREAM_BYTES);
    let serve = broker.serve(there, "192.0.2.1:1".parse().unwrap());
    let packet = Connect { keep_alive: 1_200, ..connect_in(V3_1_1, client_id) };
    here.write_all(&encoded(&Packet::Connect(Box::new(packet)), V3_1_1)).await.unwrap();
    serve.await;
    here.read_exact(&mut [0; 4]).await.unwrap();
    here
}
