//! Webhooks over real sockets: the messages of a real broker, and the answers of an endpoint.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::StartError,
    control::{ClientPattern, FeedFilter, FeedKind},
    net::tls::{ClientAuth, TlsConfig, TlsVersion, server_config},
    rustls::{ServerConnection, StreamOwned},
    webhooks::{Webhook, WebhookBounds, WebhookError, WebhookUrl},
};
use hearthmq_test::receiver::{Call, Receiver, Stream};

use crate::{
    mqtt::{Client, connect},
    pki::Pki,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// A deadline that only a broker exceeds that does not end.
const DEADLINE: Duration = Duration::from_secs(60);

fn webhook(name: &str, receiver: &Receiver) -> Webhook {
    let url = WebhookUrl::new(&format!("http://{}/events?key=7", receiver.address)).unwrap();
    Webhook::new(name, url, SECRET.parse().unwrap()).unwrap()
}

/// Starts a broker with these webhooks, on threads of its own: a test may block.
async fn broker(webhooks: impl IntoIterator<Item = Webhook>) -> Broker {
    let builder = Broker::builder().tcp("127.0.0.1:0").authenticator(AllowAll).authorizer(AllowAll);
    let builder = webhooks.into_iter().fold(builder, hearthmq::broker::Builder::webhook);
    builder.start().await.unwrap()
}

fn client(broker: &Broker, client_id: &str) -> Client {
    Client::connected(broker.local_addrs()[0], connect(client_id))
}

/// Returns which of the signatures of a call is by this secret.
fn signed_by(call: &Call, secret: &str) -> Option<usize> {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let (id, at) = (call.header("webhook-id"), call.header("webhook-timestamp"));
    let signed = [format!("{id}.{at}.").as_bytes(), &call.body].concat();
    call.header("webhook-signature").split(' ').position(|one| {
        let tag = STANDARD.decode(one.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, &signed, &tag).is_ok()
    })
}

#[actix_rt::test]
async fn an_endpoint_receives_a_reset_and_then_every_change_signed() {
    let receiver = Receiver::start();
    let broker = broker([webhook("fleet", &receiver)]).await;
    let first = receiver.next();
    assert_eq!(first.line, "POST /events?key=7 HTTP/1.1");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(signed_by(&first, SECRET), Some(0));
    assert_eq!(signed_by(&first, NEXT_SECRET), None);
    assert_eq!(first.events(), ["reset"]);
    let body = first.json();
    let reset = &body["events"][0]["data"];
    let id = body["events"][0]["id"].as_str().unwrap();
    assert!(id.starts_with(reset["epoch"].as_str().unwrap()), "{body}");
    assert_eq!((&body["type"], &reset["version"]), (&"presence".into(), &0.into()));
    assert!(reset["timestamp"].is_u64(), "{body}");
    first.answer("204 No Content");

    let car = client(&broker, "car");
    let call = receiver.next();
    assert_eq!(call.events(), ["client_connected car"]);
    assert_eq!(call.json()["events"][0]["data"]["event"], "client.connected");
    call.answer("200 OK");
    drop(car);
    let call = receiver.next();
    assert_eq!(call.events(), ["client_disconnected car"]);
    assert_eq!(call.connection, 1, "the connection is used again");
    call.answer("200 OK");
    broker.shutdown(DEADLINE).await;
}

#[actix_rt::test]
async fn two_secrets_sign_each_message_and_a_filter_selects_events() {
    let receiver = Receiver::start();
    let filter = FeedFilter::default()
        .clients(ClientPattern::new("car-*").unwrap())
        .kinds([FeedKind::ClientConnected]);
    let webhook = webhook("fleet", &receiver).matching(filter);
    let webhook = webhook.also_signed_with(NEXT_SECRET.parse().unwrap()).unwrap();
    let again = webhook.clone().also_signed_with(SECRET.parse().unwrap());
    assert!(matches!(again, Err(WebhookError::TooManySecrets)));
    let broker = broker([webhook]).await;
    let reset = receiver.next();
    assert_eq!((signed_by(&reset, SECRET), signed_by(&reset, NEXT_SECRET)), (Some(0), Some(1)));
    reset.answer("204 No Content");
    for client_id in ["bus-1", "car-1", "bus-2", "car-2"] {
        drop(client(&broker, client_id));
    }
    let events = receiver.take_until("client_connected car-2");
    assert_eq!(events, ["client_connected car-1", "client_connected car-2"]);
    broker.shutdown(DEADLINE).await;
}

#[actix_rt::test]
async fn a_message_is_sent_until_it_is_taken() {
    let receiver = Receiver::start();
    let bounds = WebhookBounds { timeout: Duration::from_millis(300), ..WebhookBounds::default() };
    let broker = broker([webhook("fleet", &receiver).bounds(bounds).unwrap()]).await;
    let _car = client(&broker, "car");
    let first = receiver.next();
    let id = first.header("webhook-id").to_owned();
    first.answer("500 Broken");
    let redirected = receiver.next();
    redirected.answer("307 Elsewhere\r\nLocation: /other");
    // This one is not answered: after 300 ms the next attempt follows.
    let _unanswered = receiver.next();
    let long = receiver.next();
    assert_eq!((long.header("webhook-id"), &*long.line), (&*id, "POST /events?key=7 HTTP/1.1"));
    assert_eq!(signed_by(&long, SECRET), Some(0), "each attempt is signed with its time");
    // What an answer says is not read to its end.
    long.answer_bytes(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(1_000_000)
    ));
    assert_eq!(receiver.take_until("client_connected car"), ["client_connected car"]);
    let metrics = broker.metrics();
    let [metrics] = metrics.webhooks() else { panic!("there is one webhook") };
    assert_eq!((metrics.name(), metrics.failed.value()), ("fleet", 3));
    broker.shutdown(DEADLINE).await;
}

#[actix_rt::test]
async fn a_dead_endpoint_holds_up_neither_another_nor_clients() {
    let (dead, good) = (Receiver::start(), Receiver::start());
    // The attempt does not end while this test goes on.
    let bounds = WebhookBounds { timeout: 100 * DEADLINE, ..WebhookBounds::default() };
    let of_dead = webhook("dead", &dead).bounds(bounds).unwrap();
    let broker = broker([of_dead, webhook("good", &good)]).await;
    let _unanswered = dead.next();
    for number in 0..50 {
        drop(client(&broker, &format!("car-{}", number % 5)));
    }
    let mut events = Vec::new();
    while events.len() < 101 {
        let call = good.next();
        events.extend(call.events());
        call.answer("204 No Content");
    }
    // In order for each client: every connection ends before the next one begins.
    for client_id in 0..5 {
        let own = |event: &&String| event.ends_with(&format!("car-{client_id}"));
        let names: Vec<_> =
            events.iter().filter(own).map(|event| event.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["client_connected", "client_disconnected"].repeat(10));
    }
    let expected = [
        "hearthmq_webhook_delivered_total{webhook=\"good\"} 101",
        "hearthmq_webhook_pending{webhook=\"dead\"} 101",
    ];
    // The broker learns of the last answer, and stores the last event, after the test does.
    let text_of = || broker.metrics().encode();
    let until = Instant::now() + DEADLINE;
    while !expected.iter().all(|line| text_of().contains(line)) {
        assert!(Instant::now() < until, "{}", text_of());
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    broker.shutdown(DEADLINE).await;
}

#[actix_rt::test]
async fn an_endpoint_over_https_must_have_a_certificate_of_a_trusted_authority() {
    let pki = Pki::new();
    let files = TlsConfig {
        certificate: pki.server.chain.clone(),
        key: pki.server.key.clone(),
        client_ca: Vec::new(),
        client_auth: ClientAuth::None,
        crl: Vec::new(),
        min_version: TlsVersion::default(),
        ocsp: std::path::PathBuf::new(),
    };
    let config = server_config(&files).unwrap();
    let receiver = Receiver::start_with(move |stream: TcpStream| {
        let tls = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(StreamOwned::new(tls, stream)) as Box<dyn Stream>)
    });
    let https = |name: &str, ca| {
        let url = format!("https://localhost:{}/", receiver.address.port());
        let webhook =
            Webhook::new(name, WebhookUrl::new(&url).unwrap(), SECRET.parse().unwrap()).unwrap();
        webhook.trusting(ca).unwrap()
    };
    let broker = broker([https("good", &pki.ca), https("bad", &pki.foreign.chain)]).await;
    let call = receiver.next();
    assert_eq!(call.events(), ["reset"]);
    call.answer("204 No Content");
    let _car = client(&broker, "car");
    assert_eq!(receiver.take_until("client_connected car"), ["client_connected car"]);
    let metrics = broker.metrics();
    let [good, bad] = metrics.webhooks() else { panic!("there are two webhooks") };
    assert_eq!((good.failed.value(), bad.delivered.value()), (0, 0));
    broker.shutdown(DEADLINE).await;
}

#[actix_rt::test]
async fn a_broker_does_not_start_with_two_webhooks_of_one_name() {
    let receiver = Receiver::start();
    let builder = Broker::builder().authenticator(AllowAll).authorizer(AllowAll);
    let builder = builder.webhook(webhook("a", &receiver)).webhook(webhook("a", &receiver));
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, StartError::Webhook(WebhookError::Repeated(_))), "{error}");
    assert!(receiver.is_quiet());
}
