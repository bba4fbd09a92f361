//! A broker that listens on the loopback interface, and clients that reach it over TCP.
//!
//! Time is real here, so that nothing waits for silence: whoever expects that nothing comes asks
//! for PINGRESP and sees that it is the next packet.

use std::net::SocketAddr;

use hearthmq::{
    Broker,
    broker::Builder,
    mqtt::{Connect, ProtocolVersion},
};
use tokio::net::TcpStream;

use super::support::{self, builder};

/// A client over TCP.
pub(crate) type Client = support::Client<TcpStream>;

/// A broker on this thread, and where it listens.
pub(crate) async fn broker() -> (Broker, SocketAddr) {
    broker_with(|builder| builder).await
}

/// The same, configured.
pub(crate) async fn broker_with(
    configure: impl FnOnce(Builder) -> Builder,
) -> (Broker, SocketAddr) {
    let broker = configure(builder().tcp("127.0.0.1:0")).start().await.unwrap();
    let address = broker.local_addrs()[0];
    (broker, address)
}

/// A client that has not yet sent CONNECT.
pub(crate) async fn client(address: SocketAddr, version: ProtocolVersion) -> Client {
    Client::on(TcpStream::connect(address).await.unwrap(), version)
}

/// A client whose CONNECT is accepted.
pub(crate) async fn connected(address: SocketAddr, connect: Connect<'_>) -> Client {
    connected_with(address, connect).await.0
}

/// A client whose CONNECT is accepted, and whether its session was present.
pub(crate) async fn connected_with(address: SocketAddr, connect: Connect<'_>) -> (Client, bool) {
    let mut client = client(address, connect.version).await;
    let session_present = client.connect(connect).await;
    (client, session_present)
}
