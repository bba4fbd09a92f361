//! No client can connect before the store has been read, so that every connection gets an answer.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hearthmq::{
    net::Listener,
    store::{MemoryStore, Store, StoreError, StoredSession},
};

use crate::{
    support::{Client, free_address, packets::*},
    transports::ways::builder,
};

/// A store that tries to connect to the broker that reads it.
#[derive(Clone)]
struct Knocking {
    store: Arc<MemoryStore>,
    address: SocketAddr,
    path: PathBuf,
    refused: Arc<Mutex<Vec<Option<ErrorKind>>>>,
}

impl Store for Knocking {
    fn sessions(&self, each: &mut dyn FnMut(StoredSession)) -> Result<(), StoreError> {
        let mut refused = self.refused.lock().unwrap();
        refused.push(TcpStream::connect(self.address).err().map(|error| error.kind()));
        refused.push(UnixStream::connect(&self.path).err().map(|error| error.kind()));
        self.store.sessions(each)
    }

    hearthmq_test::from_below!(|this| &*this.store =>
        apply sync bounds retained logins records histories in_flight waiting);
}

#[actix_rt::test]
async fn nobody_connects_before_the_store_has_been_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let address = free_address();
    let store =
        Knocking { store: Arc::default(), address, path: path.clone(), refused: Arc::default() };
    let refused = Arc::clone(&store.refused);
    let builder = builder().store(store).tcp(address.to_string()).listen(Listener::unix(&path));
    let broker = builder.start().await.unwrap();
    assert_eq!(*refused.lock().unwrap(), [Some(ErrorKind::ConnectionRefused); 2]);
    let stream = tokio::net::TcpStream::connect(broker.local_addrs()[0]).await.unwrap();
    Client::on(stream, V5).connect(connect("c")).await;
    UnixStream::connect(&path).unwrap();
}
