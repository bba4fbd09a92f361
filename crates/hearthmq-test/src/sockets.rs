//! A broker that listens on the loopback interface, and clients that reach it over TCP.
//!
//! Time is real here, so no test waits for silence: to show that no packet comes, a client sends
//! PINGREQ and expects PINGRESP as the next packet.

use std::net::SocketAddr;

use hearthmq::{
    Broker,
    broker::Builder,
    mqtt::{Connect, ProtocolVersion},
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::builder;

/// A client over TCP.
pub type Client = crate::Client<TcpStream>;

impl Client {
    /// Expects exactly these bytes next.
    pub async fn expect_bytes(&mut self, expected: &[u8]) {
        while self.received.len() < expected.len() {
            let read = timeout(self.patience, self.stream.read_buf(&mut self.received)).await;
            let read = read.expect("bytes are expected, nothing came").unwrap();
            assert!(read > 0, "bytes are expected, came {:02x?} and the end", self.received);
        }
        let came: Vec<u8> = self.received.drain(..expected.len()).collect();
        assert_eq!(came, expected, "in {:?}, then came {:02x?}", self.version, self.received);
    }
}

/// Starts a broker on this thread; returns its address too.
pub async fn broker() -> (Broker, SocketAddr) {
    broker_with(|builder| builder).await
}

/// Does the same with configuration.
pub async fn broker_with(configure: impl FnOnce(Builder) -> Builder) -> (Broker, SocketAddr) {
    let broker = configure(builder().tcp("127.0.0.1:0")).start().await.unwrap();
    let address = broker.local_addrs()[0];
    (broker, address)
}

/// Returns a client that has not yet sent CONNECT.
pub async fn client(address: SocketAddr, version: ProtocolVersion) -> Client {
    Client::on(TcpStream::connect(address).await.unwrap(), version)
}

/// Returns a client whose CONNECT was accepted.
pub async fn connected(address: SocketAddr, connect: Connect<'_>) -> Client {
    connected_with(address, connect).await.0
}

/// Returns a client whose CONNECT was accepted, and whether its session was present.
pub async fn connected_with(address: SocketAddr, connect: Connect<'_>) -> (Client, bool) {
    let mut client = client(address, connect.version).await;
    let session_present = client.connect(connect).await;
    (client, session_present)
}
