//! Both versions of IP.

use std::net::SocketAddr;

use hearthmq::auth::{AccessRequest, Authorizer, Decision};
use tokio::net::TcpStream;

use crate::{
    support::{Client, packets::*},
    transports::ways::builder,
};

/// Admits clients with IPv4 addresses.
struct OnlyV4;

impl Authorizer for OnlyV4 {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.peer.is_ipv4() {
            true => Decision::Allow,
            false => Decision::Deny,
        }
    }
}

#[actix_rt::test]
async fn all_addresses_of_ipv6_are_all_of_ipv4_too_which_stay_such_to_permissions() {
    let broker = builder().authorizer(OnlyV4).tcp("[::]:0").start().await.unwrap();
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
