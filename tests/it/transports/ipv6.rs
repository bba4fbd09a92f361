//! Both versions of IP.

use std::net::SocketAddr;

use hearthmq::auth::AccessRequest;
use tokio::net::TcpStream;

use crate::{
    support::{Client, packets::*, refusing},
    transports::ways::builder,
};

/// Returns whether the client has an address of IPv6.
fn is_v6(request: &AccessRequest<'_>) -> bool {
    !request.peer.is_ipv4()
}

#[actix_rt::test]
async fn all_addresses_of_ipv6_are_all_of_ipv4_too_which_stay_such_to_permissions() {
    let broker = builder().authorizer(refusing(is_v6)).tcp("[::]:0").start().await.unwrap();
    let port = broker.local_addrs()[0].port();
    let over =
        async |address: SocketAddr| Client::on(TcpStream::connect(address).await.unwrap(), V5);
    let mut client = over(SocketAddr::from(([127, 0, 0, 1], port))).await;
    client.connect(connect("four")).await;
    let seen = broker.client("four").await.unwrap().unwrap();
    assert_eq!(seen.peer.ip().to_string(), "127.0.0.1");

    let mut client = over(format!("[::1]:{port}").parse().unwrap()).await;
    client.send(hearthmq::mqtt::Packet::Connect(Box::new(connect("six")))).await;
    client.expect_refused(hearthmq::mqtt::ReasonCode::NotAuthorized).await;
}
