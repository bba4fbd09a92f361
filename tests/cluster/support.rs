//! Doors to the servers of a test, and what tests wait for.

use std::{future::Future, net::SocketAddr, time::Duration};

use hearthmq::{
    bytes::Bytes,
    internals::cluster::{
        door::{BucketEntry, BucketEvent, Nats as _, NatsWriteError},
        names::{Bucket, NodeId},
        nats::{ClusterPrefix, NatsDoor, NatsLogin, NatsSettings, NatsTls},
    },
    records::Revision,
};
use hearthmq_test::{free_address, nats::NatsServers};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long one write waits for its answer.
pub(crate) const WRITE: Duration = Duration::from_secs(2);

/// Returns the name of a node.
pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Returns the settings of a node that uses these servers.
pub(crate) fn settings(servers: &NatsServers, name: &str) -> NatsSettings {
    let urls = servers.urls();
    NatsSettings {
        replicas: urls.len(),
        servers: urls,
        login: NatsLogin::None,
        tls: NatsTls::default(),
        prefix: ClusterPrefix::default(),
        node: node(name),
    }
}

/// Opens the door of a node.
pub(crate) async fn open(servers: &NatsServers, name: &str) -> NatsDoor {
    NatsDoor::open(&settings(servers, name)).await.unwrap()
}

/// Writes a key if its revision is the expected one.
pub(crate) async fn update(
    door: &NatsDoor,
    bucket: Bucket,
    key: &str,
    value: &str,
    expected: Revision,
) -> Result<Revision, NatsWriteError> {
    door.update(bucket, key, Bytes::from(value.to_owned()), expected, WRITE).await
}

/// Waits until a future that is made again and again gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it does not happen");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Writes a key again and again, with what is there as the expected revision, until a write is
/// acknowledged: as the core does.
pub(crate) async fn write_through(
    door: &NatsDoor,
    bucket: Bucket,
    key: &str,
    value: &str,
) -> Revision {
    let began = Instant::now();
    let mut expected = Revision(0);
    loop {
        match update(door, bucket, key, value, expected).await {
            Ok(revision) => return revision,
            Err(NatsWriteError::Conflict(Some(found))) => expected = found,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        assert!(began.elapsed() < PATIENCE, "no write is acknowledged");
    }
}

/// Returns an entry as key, revision and text.
pub(crate) fn shown(event: BucketEvent) -> (String, u64, Option<String>) {
    match event {
        BucketEvent::Entry(BucketEntry { key, revision, value }) => {
            (key, revision.0, value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        }
        BucketEvent::Current => ("current".to_owned(), 0, None),
    }
}

/// A connection to a server that a test can cut, for one node alone.
pub(crate) struct Cable {
    address: SocketAddr,
    is_whole: watch::Sender<bool>,
}

impl Cable {
    /// Lays a cable to a server.
    pub(crate) async fn to(url: &str) -> Self {
        let server: SocketAddr = url.strip_prefix("nats://").unwrap().parse().unwrap();
        let address = free_address();
        let listener = TcpListener::bind(address).await.unwrap();
        let (is_whole, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Self { address, is_whole }
    }

    /// Returns the end of the node, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends all connections, and lets none through.
    pub(crate) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    /// Lets connections through.
    pub(crate) fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}
