//! The example of `docs/embedding.md`: this test runs it as it is printed there.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use actix_web::App;
use hearthmq::{
    Broker,
    auth::AllowAll,
    control::{Clients, KickOptions, Redirection},
    mqtt::{PublicationBuilder, QoS},
    store::DirectoryStore,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Connects a client `car-17` of MQTT 3.1.1 with Keep Alive 60.
async fn car(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06car-17").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK with success");
    Ok(stream)
}

/// Between the two marks is the document's example, except for lines that say otherwise.
#[actix_rt::test]
async fn the_example_of_the_library_runs() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    // the document begins
    let broker = Broker::builder()
        .tcp("127.0.0.1:0")
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .store(DirectoryStore::open(directory.path())?)
        .start()
        .await?;

    let _car = car(broker.local_addrs()[0]).await?; // only here
    broker.set_keep_alive("car-17", 120).await?;
    assert!(broker.online("car-17").await?);

    let mut positions = broker.subscribe("cars/+/position", QoS::AtMostOnce)?;
    broker.publish("cars/17/position", b"60.17 24.94", QoS::AtLeastOnce, false).await?;
    if let Some(received) = positions.next().await {
        assert_eq!(received.message.publication().payload, b"60.17 24.94");
    }

    let command = PublicationBuilder::new("cars/17/command", "report")
        .qos(QoS::AtLeastOnce)
        .expiry_secs(30)
        .response_topic("answers/fleet")
        .correlation_data(b"4711");
    broker.publish_with(command).await?;

    let reason = KickOptions::new().reason_string("maintenance until noon")?;
    broker.kick("car-17", reason).await?;
    let elsewhere = Redirection::new("b.example:8883", false)?;
    broker.redirect(Clients::One("car-17".into()), elsewhere).await?;

    let app =
        App::new().configure(broker.http_routes()).configure(broker.websocket_routes("/mqtt"));
    drop(app); // an HttpServer would serve it

    broker.shutdown(Duration::from_secs(10)).await;
    // the document ends
    Ok(())
}

#[test]
fn the_document_shows_the_example_that_runs() {
    let this = include_str!("library.rs");
    let (_, example) = this.split_once("// the document begins\n").expect("it begins");
    let (example, _) = example.split_once("    // the document ends").expect("it ends");
    let shown = example.lines().filter(|line| !line.ends_with("// only here"));
    let shown: String = shown.map(|line| format!("{line}\n")).collect();
    let shown =
        shown.replace("127.0.0.1:0", "127.0.0.1:1883").replace("directory.path()", "\"data\"");
    let document = include_str!("../../../docs/embedding.md");
    assert!(document.contains(&shown), "docs/embedding.md should have\n{shown}");
}

/// Runs an example that ends by itself; cargo has built it beside the tests.
#[test]
fn the_example_that_controls_sessions_runs() {
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().with_file_name("examples").join("control_sessions");
    if !example.exists() {
        return crate::skipped::skipped(
            "the example is not built; cargo test without a filter builds it",
        );
    }
    let output = std::process::Command::new(example).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "Keep Alive: Err(NotOnline)",
        "removed: true",
        "online: [true, true, false]",
        "car-1 with Keep Alive Some(120)",
        "0 sessions match",
        "kick: [Ok(Kicked { node: \"hearthmq\", was_online: true, session_ended: true, will: Absent })]",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
