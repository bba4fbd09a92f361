//! The addresses of a bridge: which one is tried when, and what TLS says to a server.

use std::{io, net::SocketAddr, sync::mpsc, thread};

use hearthmq::{
    Broker,
    bridge::{Bridge, BridgeOptions, BridgeTls, Direction},
    control::{BridgeControl as _, BridgePhase},
};
use hearthmq_test::pki::Pki;
use rustls::server::Acceptor;

use super::network::{Network, connected, topic, until};
use crate::support::{builder, millis, packets::QOS_1, pass, secs, world, world_with};

fn bridge_to_all(addresses: &[&str], change: impl FnOnce(&mut BridgeOptions)) -> Bridge {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let topics = vec![topic("out/#", Direction::Out, QOS_1)];
    let mut options = BridgeOptions { reconnect_max: secs(1), ..BridgeOptions::default() };
    change(&mut options);
    Bridge::new("many", addresses, topics).unwrap().options(options).unwrap()
}

async fn address_of(broker: &Broker) -> String {
    connected(broker, "many").await.address.unwrap().into()
}

#[actix_rt::test]
async fn an_address_where_nobody_answers_is_passed_over() {
    let network = Network::default();
    let _silent = network.server("silent"); // it takes connections, and says nothing
    let hub = world().await;
    network.host("hub", &hub);
    let addresses = ["mqtt://dead", "mqtt://silent", "mqtt://hub", "mqtt://later"];
    let bridge = bridge_to_all(&addresses, |_| ());
    let edge = world_with(|builder| network.join(builder, [bridge])).await;
    pass(secs(15)).await; // ten of them for the silent one
    assert_eq!(address_of(&edge).await, "mqtt://hub:1883");
    let view = edge.find_bridge("many").await.unwrap();
    assert_eq!((view.connects, view.failures, view.last_error), (1, 0, None));
}

/// A bridge stays where it is connected, and looks for the first address after that.
#[actix_rt::test]
async fn each_attempt_begins_with_the_first_address_unless_they_take_turns() {
    let hub = world().await;
    for (takes_turns, then) in [(false, "mqtt://one:1883"), (true, "mqtt://three:1883")] {
        let network = Network::default();
        network.host("two", &hub);
        let addresses = ["mqtt://one", "mqtt://two", "mqtt://three"];
        let bridge = bridge_to_all(&addresses, |it| it.round_robin = takes_turns);
        let edge = world_with(|builder| network.join(builder, [bridge])).await;
        assert_eq!(address_of(&edge).await, "mqtt://two:1883");
        network.host("one", &hub);
        network.host("three", &hub);
        pass(secs(60)).await;
        assert_eq!(address_of(&edge).await, "mqtt://two:1883");
        network.cut().await;
        pass(secs(10)).await;
        assert_eq!(address_of(&edge).await, then);
        edge.shutdown(secs(1)).await;
    }
}

/// What a bridge says in its ClientHello: the name of the server, and the protocols.
type Hello = (Option<String>, Vec<Vec<u8>>);

/// Reads the ClientHello of each connection, and closes it.
fn listening() -> (SocketAddr, mpsc::Receiver<Hello>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, hellos) = mpsc::channel();
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            let mut acceptor = Acceptor::default();
            let accepted = loop {
                if acceptor.read_tls(&mut stream)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if let Some(accepted) = acceptor.accept().map_err(|_| io::ErrorKind::InvalidData)? {
                    break accepted;
                }
            };
            let hello = accepted.client_hello();
            let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            let name = hello.server_name().map(str::to_owned);
            if sender.send((name, alpn)).is_err() {
                return Ok(());
            }
        }
    });
    (address, hellos)
}

#[actix_rt::test]
async fn a_server_is_told_the_name_that_is_expected_in_its_certificate() {
    let pki = Pki::new();
    let tls = || BridgeTls::default().trusting(&pki.ca).unwrap();
    for (host, tls, name, alpn) in [
        ("localhost", tls(), Some("localhost"), None),
        ("127.0.0.1", tls(), None, None), // SNI has names only (RFC 6066, section 3)
        ("127.0.0.1", tls().server_name("broker.example").unwrap(), Some("broker.example"), None),
        ("localhost", tls().alpn("mqtt"), Some("localhost"), Some("mqtt")),
    ] {
        let (address, hellos) = listening();
        let address = format!("mqtts://{host}:{}", address.port());
        let bridge = bridge_to_all(&[&address], |_| ()).tls(tls);
        let broker = builder().bridge(bridge).start().await.unwrap();
        let hello = loop {
            if let Ok(hello) = hellos.try_recv() {
                break hello;
            }
            pass(millis(1)).await;
        };
        let alpn: Vec<_> = alpn.into_iter().map(|alpn: &str| alpn.as_bytes().to_vec()).collect();
        assert_eq!(hello, (name.map(str::to_owned), alpn), "{host}");
        let view = until(&broker, "many", BridgePhase::Waiting).await;
        assert_eq!(view.last_error.unwrap().code, "tls");
        broker.shutdown(secs(1)).await;
    }
}
