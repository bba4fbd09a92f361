//! The broker inside another process: started, used, mounted and ended as a library.

use std::{
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Sender},
    time::Duration,
};

use crate::mqtt::{Client, connect};
use actix_web::{App, HttpResponse, rt::System, test, web};
use hearthmq::{
    Broker,
    actors::QueryOnline,
    auth::AllowAll,
    broker::{Builder, PublishError, StartError},
    control::{ControlError, KeepAliveChanged, KickOptions, Kicked, OnlineState, SetKeepAlive},
    hooks::{ClientConnected, ClientDisconnected, ClientKeepAliveChanged, Hooks},
    mqtt::{PublicationError, QoS, ReasonCode},
    store::{DirectoryStore, StoreError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::spawn_blocking,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Any port, of an address at which no other test listens: a port that a broker has given back is
/// still free then.
const ANY_PORT: &str = "127.0.0.2:0";

/// Returns a broker that admits every client, on a port that the operating system chooses.
fn builder() -> Builder {
    Broker::builder().tcp(ANY_PORT).shards(2).authenticator(AllowAll).authorizer(AllowAll)
}

async fn broker() -> Broker {
    builder().start().await.unwrap()
}

fn client(broker: &Broker, client_id: &str) -> Client {
    Client::connected(broker.local_addrs()[0], connect(client_id))
}

/// Waits for a connection to end without DISCONNECT.
fn expect_cut_off(client: &mut Client) {
    let mut rest = Vec::new();
    match client.stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[actix_rt::test]
async fn two_brokers_in_one_process_know_nothing_of_each_other() {
    let (one, other) = (broker().await, broker().await);
    assert_ne!(one.local_addrs(), other.local_addrs());
    let _client = client(&one, "car");
    assert_eq!(one.online("car").await, Ok(true));
    assert_eq!(other.online("car").await, Ok(false));
    let mut heard = other.subscribe("t", QoS::AtMostOnce).unwrap();
    one.publish("t", b"of one", QoS::AtMostOnce, false).await.unwrap();
    other.publish("t", b"of the other", QoS::AtMostOnce, false).await.unwrap();
    assert_eq!(heard.next().await.unwrap().message.publication().payload, b"of the other");
    one.shutdown(DEADLINE).await;
    assert_eq!(other.online("car").await, Ok(false), "the other one goes on");
}

#[actix_rt::test]
async fn the_application_publishes_and_subscribes_beside_the_clients() {
    let broker = broker().await;
    let mut client = client(&broker, "car");
    client.subscribe("to/car", QoS::AtLeastOnce);
    broker.publish("to/car", b"go", QoS::AtLeastOnce, false).await.unwrap();
    let message = client.message();
    assert_eq!((message.topic.as_str(), &*message.payload), ("to/car", &b"go"[..]));
    assert_eq!(message.qos, QoS::AtLeastOnce);

    let mut heard = broker.subscribe("from/#", QoS::AtLeastOnce).unwrap();
    client.publish("from/car", b"gone", Some(7)).unwrap();
    let received = heard.next().await.unwrap();
    let publication = received.message.publication();
    assert_eq!((publication.topic, publication.payload), ("from/car", &b"gone"[..]));
    assert_eq!(received.qos, QoS::AtLeastOnce);

    assert!(broker.subscribe("a/#/b", QoS::AtMostOnce).is_err());
    let refused = broker.publish("a/+", b"", QoS::AtMostOnce, false).await;
    assert!(matches!(refused, Err(PublishError::Publication(PublicationError::Topic(_)))));
}

#[actix_rt::test]
async fn clients_are_controlled_by_calls_and_by_actor_messages() {
    let broker = broker().await;
    let mut car = client(&broker, "car");
    let changed = KeepAliveChanged::new("hearthmq", 60, 5);
    assert_eq!(broker.set_keep_alive("car", 5).await, Ok(changed));
    let message = SetKeepAlive::new("car", 90).by("me");
    let changed = broker.registry("car").send(message).await.unwrap();
    assert_eq!(changed.unwrap().old_secs, 5);
    assert_eq!(broker.client("car").await.unwrap().unwrap().keep_alive_secs, 90);
    assert_eq!(broker.set_keep_alive("bus", 5).await, Err(ControlError::NotOnline));

    let ids = ["bus", "car", "tram"].map(String::from);
    let states = [None, Some("hearthmq".into()), None].map(OnlineState::of);
    assert_eq!(broker.online_many(&ids).await, Ok(states.into()));
    let kicked = broker.kick("car", KickOptions::new().end_session()).await;
    let mut with_session = Kicked::new("hearthmq");
    with_session.session_ended = true;
    assert_eq!(kicked, Ok(with_session));
    let question = QueryOnline::new("car");
    assert!(!broker.registry("car").send(question).await.unwrap());
    let again = broker.kick("car", KickOptions::new().end_session()).await;
    assert_eq!(again, Err(ControlError::NotOnline));
    car.expect_disconnect(ReasonCode::AdministrativeAction);
    assert_eq!(broker.client("car").await, Ok(None));
}

/// Records the events it receives.
struct Ear(Sender<String>);

impl Hooks for Ear {
    fn client_connected(&self, event: &ClientConnected) {
        let text = format!("{} connected, {} s", event.client_id, event.keep_alive_secs);
        self.0.send(text).unwrap();
    }

    fn client_keep_alive_changed(&self, event: &ClientKeepAliveChanged) {
        let text = format!("{} from {} to {} s", event.client_id, event.old_secs, event.new_secs);
        self.0.send(text).unwrap();
    }

    fn client_disconnected(&self, event: &ClientDisconnected) {
        let text = format!("{}: {:?}", event.client_id, event.reason);
        self.0.send(text).unwrap();
    }
}

#[actix_rt::test]
async fn hooks_hear_what_happens_in_its_order() {
    let (ear, heard) = mpsc::channel();
    let broker = builder().hooks(Ear(ear)).start().await.unwrap();
    let first = client(&broker, "car");
    broker.set_keep_alive("car", 30).await.unwrap();
    let _second = client(&broker, "car");
    drop(first);
    broker.shutdown(DEADLINE).await;
    drop(broker);
    let heard: Vec<String> = heard.iter().collect();
    assert_eq!(
        heard,
        [
            "car connected, 60 s",
            "car from 60 to 30 s",
            "car: Takeovered",
            "car connected, 60 s",
            "car: ServerShutdown",
        ]
    );
}

#[actix_rt::test]
async fn the_rest_routes_live_in_the_hosts_own_app() {
    let broker = broker().await;
    let _car = client(&broker, "car");
    let app = App::new()
        .route("/own", web::get().to(async || HttpResponse::Ok().body("the host's")))
        .service(web::scope("/mqtt").configure(broker.http_routes()));
    let app = test::init_service(app).await;
    let ask = async |request: test::TestRequest| {
        let login = ("Authorization", "Basic bWU6bWU=");
        let request = request.insert_header(login).to_request();
        let response = test::call_service(&app, request).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(test::read_body(response).await.to_vec()).unwrap())
    };
    let get = |path: &str| test::TestRequest::get().uri(path);
    assert_eq!(ask(get("/own")).await, (200, "the host's".into()));
    let status = get("/mqtt/client-id/car/status");
    assert_eq!(ask(status).await, (200, r#"{"online":true}"#.into()));
    let change = "/mqtt/keep-alive?client-id=car&interval=30";
    let changed = ask(test::TestRequest::post().uri(change)).await;
    assert_eq!(changed, (200, r#"{"success":true,"keepalive":30}"#.into()));
    assert_eq!(ask(get("/client-id/car/status")).await.0, 404);

    assert_eq!(ask(get("/mqtt/health/ready")).await.0, 200);
    broker.shutdown(DEADLINE).await;
    assert_eq!(ask(get("/mqtt/health/ready")).await.0, 503);
    assert_eq!(ask(get("/mqtt/client-id/car/status")).await.0, 503);
    assert_eq!(ask(get("/own")).await.0, 200);
}

/// CONNECT of MQTT 3.1.1: Clean Session, Keep Alive 60, client id `in`.
const CONNECT: [u8; 16] = *b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x3C\x00\x02in";

#[actix_rt::test]
async fn any_byte_stream_is_served() {
    let broker = broker().await;
    let (mut here, there) = tokio::io::duplex(64);
    here.write_all(&CONNECT).await.unwrap();
    broker.serve(there, "192.0.2.7:40000".parse().unwrap()).await;
    assert_eq!(here.read_u32().await.unwrap(), 0x2002_0000);
    assert_eq!(broker.online("in").await, Ok(true));
    here.write_u16(0xC000).await.unwrap();
    assert_eq!(here.read_u16().await.unwrap(), 0xD000);

    // Neither a stream before CONNECT nor an open one delays the end.
    let (_silent, there) = tokio::io::duplex(64);
    let handle = broker.clone();
    let serving = actix_rt::spawn(async move {
        handle.serve(there, "192.0.2.7:40001".parse().unwrap()).await;
    });
    broker.shutdown(DEADLINE).await;
    serving.await.unwrap();
    assert_eq!(here.read(&mut [0]).await.unwrap(), 0);
}

#[actix_rt::test]
async fn shutdown_writes_what_is_queued_then_says_goodbye_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(directory.path()).unwrap();
    let broker = builder().store(store).start().await.unwrap();
    let address = broker.local_addrs()[0];
    let mut clients = ["a", "b", "c", "d"].map(|id| client(&broker, id));
    for client in &mut clients {
        client.subscribe("t", QoS::AtMostOnce);
    }
    // Far more than the sockets hold, and no client reads yet.
    let payload = vec![7; 100_000];
    for _ in 0..100 {
        broker.publish("t", &payload, QoS::AtMostOnce, false).await.unwrap();
    }
    let readers = clients.map(|mut client| {
        spawn_blocking(move || {
            for _ in 0..100 {
                assert_eq!(client.message().payload.len(), 100_000);
            }
            client.expect_disconnect(ReasonCode::ServerShuttingDown);
        })
    });
    broker.shutdown(DEADLINE).await;
    for reader in readers {
        reader.await.unwrap();
    }

    assert!(!broker.is_ready());
    assert_eq!(broker.online("a").await, Err(ControlError::Unavailable));
    assert_eq!(broker.set_keep_alive("a", 30).await, Err(ControlError::Unavailable));
    let published = broker.publish("t", b"", QoS::AtMostOnce, false).await;
    assert_eq!(published, Err(PublishError::Stopped));
    TcpListener::bind(address).unwrap();
    broker.shutdown(DEADLINE).await; // a second time does nothing
    drop(broker);
    DirectoryStore::open(directory.path()).unwrap();
}

#[actix_rt::test]
async fn a_second_broker_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _store = DirectoryStore::open(directory.path()).unwrap();
    let second = DirectoryStore::open(directory.path());
    assert!(matches!(second, Err(StoreError::InUse { .. })));
}

#[actix_rt::test]
async fn the_last_handle_takes_the_broker_along() {
    for on_current_arbiter in [false, true] {
        let builder = match on_current_arbiter {
            true => builder().on_current_arbiter(),
            false => builder(),
        };
        let broker = builder.start().await.unwrap();
        let address = broker.local_addrs()[0];
        let connecting = spawn_blocking(move || Client::connected(address, connect("car")));
        let mut client = connecting.await.unwrap();
        let other_handle = broker.clone();
        drop(broker);
        let speaking = spawn_blocking(move || {
            client.ping();
            client
        });
        let mut client = speaking.await.unwrap();
        drop(other_handle);
        let ending = spawn_blocking(move || {
            expect_cut_off(&mut client);
            while TcpStream::connect(address).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        tokio::time::timeout(DEADLINE, ending).await.unwrap().unwrap();
    }
}

#[actix_rt::test]
async fn what_is_in_the_way_of_a_start_is_named_and_nothing_stays_behind() {
    let holder = TcpListener::bind(ANY_PORT).unwrap();
    let taken = holder.local_addr().unwrap();
    let other = TcpListener::bind(ANY_PORT).unwrap();
    let free = other.local_addr().unwrap();
    drop(other);
    let builder = Broker::builder().tcp(free.to_string()).tcp(taken.to_string());
    let error = builder.start().await.err().unwrap();
    assert!(matches!(&error, StartError::Listen { address, .. } if *address == taken.to_string()));
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")));
    TcpListener::bind(free).unwrap();

    for wrong in ["", "127.0.0.1", "127.0.0.1:66000", "no such host:1883"] {
        let error = Broker::builder().tcp(wrong).start().await.err().unwrap();
        assert!(matches!(&error, StartError::Address { address, .. } if address == wrong));
    }
}

#[::core::prelude::v1::test]
fn a_start_needs_a_system_and_leaves_it_to_its_owner() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(builder().start()).err().unwrap();
    assert!(matches!(error, StartError::NoSystem));

    let system = System::new();
    let broker = system.block_on(broker());
    let _car = client(&broker, "car");
    system.block_on(async {
        assert_eq!(broker.online("car").await, Ok(true));
        broker.shutdown(DEADLINE).await;
        actix_rt::spawn(async { System::current().stop_with_code(7) });
    });
    assert_eq!(system.run_with_code().unwrap(), 7);
}
