//! The Rust example of README: this test runs it as it is printed there.

use std::{error::Error, io};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Connects a client `car-17` of MQTT 3.1.1 with Keep Alive 60.
async fn car(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06car-17").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK with success");
    Ok(stream)
}

/// Between the two marks is README's example, except for lines that say otherwise.
#[actix_rt::test]
async fn the_example_of_the_library_runs() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    // README begins
    use std::time::Duration;

    use actix_web::App;
    use hearthmq::{
        Broker,
        auth::AllowAll,
        control::{Clients, Redirection},
        mqtt::QoS,
        store::DirectoryStore,
    };

    let broker = Broker::builder()
        .tcp("127.0.0.1:0") // also tls, websocket, secure_websocket, unix, listen
        .authenticator(AllowAll) // or a trait Authenticator of yours; without one nobody gets in
        .authorizer(AllowAll) // or a trait Authorizer of yours; without one nothing is allowed
        .store(DirectoryStore::open(&directory)?) // without one nothing survives the broker
        .start() // also enhanced_authenticator (AUTH, by method), hooks (who came and went), limits
        .await?; // every listener is bound now

    let _car = car(broker.local_addrs()[0]).await?; // not in README
    broker.set_keep_alive("car-17", 120).await?;
    assert!(broker.online("car-17").await?);

    let mut positions = broker.subscribe("cars/+/position", QoS::AtMostOnce)?;
    broker.publish("cars/17/position", b"60.17 24.94", QoS::AtLeastOnce, false).await?;
    if let Some(received) = positions.next().await {
        assert_eq!(received.message.publication().payload, b"60.17 24.94");
    }

    let elsewhere = Redirection::new("b.example:8883", false)?;
    broker.redirect(Clients::One("car-17".into()), elsewhere).await?;

    let app = App::new()
        .configure(broker.http_routes()) // the REST interface inside your own actix-web App
        .configure(broker.websocket_routes("/mqtt")); // and MQTT over WebSocket

    drop(app); // not in README
    broker.shutdown(Duration::from_secs(10)).await;
    // README ends
    Ok(())
}

#[test]
fn readme_shows_the_example_that_runs() {
    let this = include_str!("readme.rs");
    let (_, example) = this.split_once("// README begins\n").expect("it begins");
    let (example, _) = example.split_once("    // README ends").expect("it ends");
    let shown = example.lines().filter(|line| !line.ends_with("// not in README"));
    let shown = shown.map(|line| format!("{}\n", line.replace("127.0.0.1:0", "127.0.0.1:1883")));
    let shown: String = shown.collect();
    assert!(include_str!("../README.md").contains(&shown), "README should have\n{shown}");
}
