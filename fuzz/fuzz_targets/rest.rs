//! REST calls with any query and any body, on a whole broker: no call panics, is answered 500 or stays
//! without an answer, and every answer in JSON is JSON. What a caller gives back is read by itself too: the
//! places of the feed and of lists, patterns for Client Identifiers, URLs and secrets of webhooks.
//!
//! The first byte selects the call, the rest is its query up to a line feed, and its body.
//!
//! `cargo +nightly fuzz run rest -- -max_total_time=600`

#![no_main]

use std::{cell::RefCell, time::Duration};

use actix_rt::{System, SystemRunner};
use hearthmq::{
    Broker,
    actix_web::{
        App,
        body::to_bytes_limited,
        dev::Service as _,
        http::Method,
        test::{TestRequest, init_service},
    },
    auth::AllowAll,
    broker::simulation::SimulatedShards,
    control::{ClientPattern, FeedPosition},
    http::{ApiOptions, routes},
    webhooks::{WebhookSecret, WebhookUrl},
};
use libfuzzer_sys::fuzz_target;

/// Calls whose query and body are of the input. `{}` stands for a part of the path, also of the input.
const CALLS: &[(&str, &str)] = &[
    ("GET", "/api/v1/clients"),
    ("POST", "/api/v1/clients/query"),
    ("GET", "/api/v1/clients/{}"),
    ("PATCH", "/api/v1/clients/{}"),
    ("DELETE", "/api/v1/clients/{}"),
    ("GET", "/api/v1/client"),
    ("GET", "/api/v1/clients/{}/history"),
    ("GET", "/api/v1/clients/{}/subscriptions"),
    ("GET", "/api/v1/clients/{}/queue"),
    ("DELETE", "/api/v1/clients/{}/queue"),
    ("POST", "/api/v1/clients/{}/subscribe"),
    ("POST", "/api/v1/clients/{}/unsubscribe"),
    ("POST", "/api/v1/clients/kick"),
    ("POST", "/api/v1/status"),
    ("POST", "/api/v1/keep-alive"),
    ("GET", "/api/v1/keep-alive/advice"),
    ("GET", "/api/v1/keep-alive/overrides"),
    ("GET", "/api/v1/keep-alive/overrides/{}"),
    ("DELETE", "/api/v1/keep-alive/overrides/{}"),
    ("GET", "/api/v1/settings"),
    ("DELETE", "/api/v1/settings/{}"),
    ("GET", "/api/v1/subscriptions"),
    ("GET", "/api/v1/retained"),
    ("GET", "/api/v1/retained/{}"),
    ("DELETE", "/api/v1/retained/{}"),
    ("POST", "/api/v1/publish"),
    ("POST", "/api/v1/request"),
    ("POST", "/api/v1/redirect"),
    ("GET", "/api/v1/events"),
    ("POST", "/topics/{}"),
    ("POST", "/keep-alive"),
    ("GET", "/client-id/{}/status"),
];

/// Longer than any call may wait by itself; virtual time, which passes at once.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The highest status of an answer: that of a call that took too long.
const STATUS_MAX: u16 = 504;

thread_local! {
    static WORLD: RefCell<Option<(SystemRunner, Broker)>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    read_alone(bytes);
    let Some((first, rest)) = bytes.split_first() else { return };
    let (method, path) = CALLS[usize::from(*first) % CALLS.len()];
    let mut parts = rest.splitn(3, |byte| *byte == b'\n');
    let query = encoded(parts.next().unwrap_or_default(), b"=&%+,.-_~*");
    let (segment, body) = match path.contains("{}") {
        true => (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()),
        false => (&[][..], parts.next().unwrap_or_default()),
    };
    let path = path.replace("{}", &encoded(segment, b"%-._~*"));
    WORLD.with_borrow_mut(|world| {
        let (system, broker) = world.get_or_insert_with(start);
        system.block_on(call(broker, method, &format!("{path}?{query}"), body));
    });
});

/// Returns text for a URL: some bytes as they are, the others encoded.
fn encoded(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte.is_ascii_alphanumeric() || kept.contains(byte) {
            true => text.push(char::from(*byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Reads what is text by itself.
fn read_alone(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(position) = text.parse::<FeedPosition>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    let (pattern, other) = text.split_once('\n').unwrap_or((text, "car-17"));
    if let Ok(pattern) = ClientPattern::new(pattern) {
        assert_eq!(pattern.matches(other), matches(pattern.text(), other));
    }
    // Neither shows what may be a secret.
    if let Ok(url) = WebhookUrl::unencrypted(text) {
        let shown = format!("{url:?}");
        assert!(!shown.contains('@') && !shown.contains('?'), "{shown}");
    }
    if let Ok(secret) = text.parse::<WebhookSecret>() {
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }
}

/// Matches naively: in the worst case, at every place.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn start() -> (SystemRunner, Broker) {
    let system = System::with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime can be built")
    });
    let broker = system.block_on(async {
        let builder = Broker::builder().simulated(&SimulatedShards::new(2, 1));
        let builder = builder.authenticator(AllowAll).authorizer(AllowAll);
        builder.start().await.expect("a broker without listeners starts")
    });
    (system, broker)
}

async fn call(broker: &Broker, method: &str, target: &str, body: &[u8]) {
    if target.parse::<hearthmq::actix_web::http::Uri>().is_err() {
        return; // no HTTP client could send it
    }
    let options = ApiOptions { account_rate: None, address_rate: None, ..ApiOptions::default() };
    let app = init_service(App::new().configure(routes(broker.api(&options)))).await;
    let method: Method = method.parse().expect("it is one");
    let request = TestRequest::default()
        .method(method)
        .uri(target)
        .peer_addr(([192, 0, 2, 7], 40_000).into())
        .insert_header(("Authorization", "Basic b3BzOg=="))
        .insert_header(("Content-Type", "application/json"))
        .set_payload(body.to_vec());
    let answer = tokio::time::timeout(ANSWERED_WITHIN, async {
        let answer = app.call(request.to_request()).await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers());
        let is_json = headers.get("content-type").is_some_and(|kind| kind == "application/json");
        let body = to_bytes_limited(answer.into_body(), ANSWER_BYTES_MAX).await;
        (status, is_json, body)
    });
    let answer = answer.await;
    let (status, is_json, body) = answer.unwrap_or_else(|_| panic!("{target} has no answer"));
    assert!(status != 500 && status <= STATUS_MAX, "{target}: {status}");
    if let (true, Ok(Ok(body))) = (is_json, body)
        && !body.is_empty()
    {
        let parsed = serde_json::from_slice::<serde_json::Value>(&body);
        assert!(parsed.is_ok(), "{target}: {status} {}", String::from_utf8_lossy(&body));
    }
}
