//! Answers that go on, on virtual time and polled portion by portion: they end when their caller loses its login
//! or its permission.

use std::{
    fs,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_http::{Payload, Request};
use actix_web::{
    App, Error,
    body::{BoxBody, MessageBody},
    dev::{Service, ServiceResponse},
    test::{TestRequest, init_service},
    web::Bytes,
};
use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use hearthmq::{
    Broker,
    auth::{
        AccessRequest, Accounts, AuthenticationConfig, AuthenticationError, Authenticator,
        Authorizer, Credentials, Decision, FileAuthenticator, Identity, JwtAuthenticator,
        JwtConfig, Standing,
    },
    broker::Builder,
    control::{ExistingUsers, ImportUsers, ListUsers, NewUser, UserAccounts as _},
};
use hearthmq_test::http::basic;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{Client, packets::*, secs, world_with};

/// Admits everybody, and allows everything, until a test takes the login or the permissions of `ops` away.
#[derive(Clone, Default)]
struct Doors(Arc<DoorState>);

#[derive(Default)]
struct DoorState {
    generation: AtomicU64,
    is_gone: AtomicBool,
    is_denied: AtomicBool,
}

impl Doors {
    fn remove_account(&self) {
        self.0.is_gone.store(true, Relaxed);
        self.0.generation.fetch_add(1, Relaxed);
    }

    fn deny(&self) {
        self.0.is_denied.store(true, Relaxed);
        self.0.generation.fetch_add(1, Relaxed);
    }
}

#[async_trait]
impl Authenticator for Doors {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        Ok(Identity { username: shown.username.map(Into::into), ..Identity::default() })
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Relaxed)
    }

    fn standing(&self, identity: &Identity, _: u64) -> Standing {
        let is_gone = identity.username.is_some() && self.0.is_gone.load(Relaxed);
        if is_gone { Standing::Gone } else { Standing::Good }
    }
}

impl Authorizer for Doors {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_denied = request.identity.username.is_some() && self.0.is_denied.load(Relaxed);
        if is_denied { Decision::Deny } else { Decision::Allow }
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Relaxed)
    }
}

async fn world(configure: impl FnOnce(Builder) -> Builder) -> (Broker, Doors) {
    let doors = Doors::default();
    let (of_logins, of_rules) = (doors.clone(), doors.clone());
    let broker =
        world_with(|builder| configure(builder.authenticator(of_logins).authorizer(of_rules)));
    (broker.await, doors)
}

/// Returns the REST interface of a broker on this thread.
async fn rest(
    broker: &Broker,
) -> impl Service<Request, Response = ServiceResponse<BoxBody>, Error = Error> {
    init_service(App::new().configure(broker.http_routes())).await
}

/// An answer whose body is read as far as a test wants.
struct Answered {
    status: u16,
    cookie: String,
    body: Pin<Box<BoxBody>>,
}

/// Makes a call with these headers, and a JSON body unless it is null.
async fn ask(
    rest: &impl Service<Request, Response = ServiceResponse<BoxBody>, Error = Error>,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    body: &Value,
) -> Answered {
    let request = TestRequest::with_uri(target).method(method.parse().unwrap());
    let request = request.peer_addr("127.0.0.1:40000".parse().unwrap());
    let request = request.insert_header(("Host", "localhost"));
    let request = headers.iter().fold(request, |request, pair| request.insert_header(*pair));
    let request = if body.is_null() { request } else { request.set_json(body) };
    let response = rest.call(request.to_request()).await.unwrap();
    let status = response.status().as_u16();
    let cookie = response.headers().get("Set-Cookie").map(|value| value.to_str().unwrap());
    let cookie = cookie.unwrap_or_default().split(';').next().unwrap().to_owned();
    Answered { status, cookie, body: Box::pin(response.into_body()) }
}

impl Answered {
    /// Returns the next portion of the body; `None` at its end, an error if the connection is cut.
    async fn portion(&mut self) -> Option<Result<String, String>> {
        let portion = poll_fn(|cx| self.body.as_mut().poll_next(cx)).await?;
        let portion = portion.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        Some(portion.map_err(|error| error.to_string()))
    }

    async fn text(&mut self) -> String {
        let mut text = String::new();
        while let Some(portion) = self.portion().await {
            text += &portion.unwrap();
        }
        text
    }

    /// Expects that the last line is this error, and that the connection is cut.
    async fn expect_refusal(&mut self, code: &str) {
        let line = self.portion().await.unwrap().unwrap();
        let error: Value = serde_json::from_str(&line).expect(&line);
        assert_eq!((&error["success"], &error["code"]), (&json!(false), &json!(code)), "{line}");
        assert!(self.portion().await.unwrap().is_err(), "the connection is cut");
    }

    /// Returns how long the stream goes on from now, if it ends within `most`.
    async fn ends_within(&mut self, most: Duration) -> Duration {
        let begun = Instant::now();
        let rest = async { while self.portion().await.is_some() {} };
        timeout(most, rest).await.expect("the stream does not end");
        begun.elapsed()
    }
}

const LINES: (&str, &str) = ("Accept", "application/x-ndjson");

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The longest silence of a stream is 15 s, after which it would notice the expiry, too.
#[actix_rt::test]
async fn a_stream_of_a_trace_ends_with_the_token_of_its_caller() {
    const SECRET: &str = "a secret of at least thirty-two bytes";
    let files = tempfile::TempDir::new().unwrap();
    let secret = files.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let (algorithms, secrets) = (vec!["HS256".to_owned()], vec![secret]);
    let config = JwtConfig { algorithms, secrets, ..JwtConfig::default() };
    let tokens = JwtAuthenticator::open(&config).unwrap();
    // Before the clock of the broker starts, so that the stream cannot end later than this clock says.
    let (began, began_at) = (Instant::now(), unix_now());
    let broker = world_with(|builder| builder.authenticator(tokens)).await;
    let expires_at = began_at.as_secs() + 607;
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let claims = json!({"sub": "ops", "exp": expires_at});
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer), LINES];
    let rest = rest(&broker).await;
    let trace = json!({"client_id": "car", "duration_seconds": 3_600});
    let mut made = ask(&rest, ("POST", "/api/v1/traces"), &headers[..1], &trace).await;
    let made: Value = serde_json::from_str(&made.text().await).unwrap();
    let target = format!("/api/v1/traces/{}", made["id"].as_str().unwrap());
    let mut stream = ask(&rest, ("GET", &target), &headers, &Value::Null).await;
    assert_eq!(stream.status, 200);
    stream.ends_within(secs(3_000)).await;
    let ended_at = began_at + began.elapsed();
    let expires_at = Duration::from_secs(expires_at);
    assert!(ended_at <= expires_at + Duration::from_millis(1), "late: {:?}", ended_at - expires_at);
    let again = ask(&rest, ("GET", &target), &headers, &Value::Null).await;
    assert_eq!(again.status, 401, "the token has expired");
}

#[actix_rt::test]
async fn a_stream_of_events_on_which_nothing_happens_ends_at_the_logout_of_its_page() {
    let (broker, _) = world(|builder| builder).await;
    let rest = rest(&broker).await;
    let page = ("X-HearthMQ-Console", "active");
    let login = json!({"username": "ops", "password": "any"});
    let opened = ask(&rest, ("POST", "/api/v1/session"), &[page], &login).await;
    assert_eq!(opened.status, 200);
    let headers = [page, ("Cookie", &*opened.cookie), ("Accept", "text/event-stream")];
    let mut stream = ask(&rest, ("GET", "/api/v1/events"), &headers, &Value::Null).await;
    assert_eq!(stream.status, 200);
    let mut text = String::new();
    while !text.contains(": still here") {
        text += &stream.portion().await.unwrap().unwrap();
    }
    let logout = ask(&rest, ("DELETE", "/api/v1/session"), &headers[..2], &Value::Null).await;
    assert_eq!(logout.status, 200);
    let after = stream.ends_within(secs(600)).await;
    assert!(after <= secs(1), "{after:?}");
}

#[actix_rt::test]
async fn streams_on_which_nothing_happens_end_with_the_account_of_their_caller() {
    let ops = basic("ops:any");
    for target in ["/api/v1/events", "/api/v1/messages?filter=a"] {
        let (broker, doors) = world(|builder| builder).await;
        let rest = rest(&broker).await;
        let headers = [("Authorization", &*ops), LINES];
        let mut stream = ask(&rest, ("GET", target), &headers, &Value::Null).await;
        assert_eq!(stream.status, 200, "{target}");
        // Signs of life come every 15 s.
        while stream.portion().await.unwrap().unwrap() != "\n" {}
        doors.remove_account();
        let after = stream.ends_within(secs(600)).await;
        assert!(after <= secs(1), "{target}: {after:?}");
    }
}

/// Returns a broker with this number of accounts in its store.
async fn with_accounts(number: usize) -> (Broker, Doors) {
    let accounts = Accounts::parse(std::path::Path::new("users.toml"), "").unwrap();
    let file = Arc::new(FileAuthenticator::new(accounts, AuthenticationConfig::default()));
    let (broker, doors) = world(|builder| builder.stored_users(file.stored_users())).await;
    let users: Vec<_> =
        (0..number).map(|number| NewUser::new(format!("car-{number:03}"))).collect();
    for users in users.chunks(500) {
        let from = "127.0.0.1".parse().unwrap();
        let import = ImportUsers::new(users.to_vec(), ExistingUsers::Fail, from);
        assert!(broker.import_users(import).await.iter().all(Result::is_ok));
    }
    (broker, doors)
}

#[actix_rt::test]
async fn an_export_ends_when_its_caller_loses_its_account_or_its_permission() {
    let ops = basic("ops:any");
    for (take_away, code) in [
        (None, ""),
        (Some(Doors::remove_account as fn(&Doors)), "unauthenticated"),
        (Some(Doors::deny as fn(&Doors)), "forbidden"),
    ] {
        let (broker, doors) = with_accounts(600).await;
        let rest = rest(&broker).await;
        let headers = [("Authorization", &*ops)];
        let mut export = ask(&rest, ("GET", "/api/v1/users/export"), &headers, &Value::Null).await;
        let first = export.portion().await.unwrap().unwrap();
        assert_eq!(first.lines().count(), 500);
        let Some(take_away) = take_away else {
            assert_eq!(export.text().await.lines().count(), 100);
            continue;
        };
        take_away(&doors);
        export.expect_refusal(code).await;
    }
}

#[actix_rt::test]
async fn an_import_ends_when_its_caller_loses_its_account_or_its_permission() {
    const PART: usize = 2 * ImportUsers::USERS_MAX;
    let ops = basic("ops:any");
    for (take_away, code) in [
        (Doors::remove_account as fn(&Doors), "unauthenticated"),
        (Doors::deny as fn(&Doors), "forbidden"),
    ] {
        let (broker, doors) = with_accounts(0).await;
        let rest = rest(&broker).await;
        let mut request = TestRequest::post().uri("/api/v1/users/import");
        request = request.peer_addr("127.0.0.1:40000".parse().unwrap());
        request = request.insert_header(("Host", "localhost"));
        let mut request = request.insert_header(("Authorization", &*ops)).to_request();
        // The caller loses it after the first of two parts of the body.
        let parts = stream::iter([0, PART]).map(move |first| {
            if first > 0 {
                take_away(&doors);
            }
            let line = |number| format!("{{\"name\":\"car-{number:04}\"}}\n");
            Ok(Bytes::from((first..first + PART).map(line).collect::<String>()))
        });
        *request.payload() = Payload::Stream { payload: Box::pin(parts) };
        let response = rest.call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = Box::pin(response.into_body());
        let text = Answered { status: 200, cookie: String::new(), body }.text().await;
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (sums, results) = lines.split_last().unwrap();
        assert!(sums["ended"].is_string(), "{sums}");
        let created = results.iter().filter(|result| result["result"] == "created").count();
        let refused = results.iter().filter(|result| result["code"] == code).count();
        assert_eq!((created, refused), (PART, ImportUsers::USERS_MAX), "{sums}");
        assert_eq!(results.len(), created + refused, "no line after these was read");
        let mut behind = ListUsers::new(10);
        behind.after = Some(format!("car-{:04}", PART - 2));
        assert_eq!(broker.list_users(behind).await.unwrap().len(), 1);
    }
}

#[actix_rt::test]
async fn a_list_of_all_clients_ends_with_the_account_of_its_caller() {
    let (broker, doors) = world(|builder| builder).await;
    let _car = Client::connected(&broker, connect("car")).await;
    let rest = rest(&broker).await;
    let ops = basic("ops:any");
    let headers = [("Authorization", &*ops), LINES];
    let mut whole = ask(&rest, ("GET", "/api/v1/clients"), &headers, &Value::Null).await;
    assert!(whole.text().await.contains("\"car\""));
    let mut list = ask(&rest, ("GET", "/api/v1/clients"), &headers, &Value::Null).await;
    doors.remove_account();
    list.expect_refusal("unauthenticated").await;
}

#[actix_rt::test]
async fn a_call_with_a_selector_changes_no_client_after_the_account_of_its_caller_is_gone() {
    for (target, body) in [
        ("/api/v1/clients/kick", json!({"clients": "*"})),
        ("/api/v1/keep-alive", json!({"clients": "*", "interval": 300})),
    ] {
        let (broker, doors) = world(|builder| builder).await;
        let mut car = Client::connected(&broker, connect("car")).await;
        let rest = rest(&broker).await;
        let ops = basic("ops:any");
        let headers = [("Authorization", &*ops)];
        let mut answer = ask(&rest, ("POST", target), &headers, &body).await;
        assert_eq!(answer.status, 200);
        doors.remove_account();
        answer.expect_refusal("unauthenticated").await;
        car.expect_nothing().await;
        let session = broker.client("car").await.unwrap().unwrap();
        assert!(session.online && session.keep_alive_secs != 300, "{session:?}");
    }
}

/// One search finds more clients than one portion of the answer has.
#[actix_rt::test]
async fn clients_that_were_found_stay_if_the_caller_loses_its_permission_before_their_turn() {
    let (broker, doors) = world(|builder| builder).await;
    let mut cars = Vec::new();
    for number in 0..512 {
        cars.push(Client::connected(&broker, connect(&format!("car-{number}"))).await);
    }
    let rest = rest(&broker).await;
    let ops = basic("ops:any");
    let headers = [("Authorization", &*ops)];
    let body = json!({"clients": "car-*"});
    let mut answer = ask(&rest, ("POST", "/api/v1/clients/kick"), &headers, &body).await;
    let kicked = answer.portion().await.unwrap().unwrap().lines().count();
    assert_eq!(kicked, 500, "there are more");
    doors.deny();
    assert_eq!(answer.text().await, "");
    let names: Vec<_> = (0..512).map(|number| format!("car-{number}")).collect();
    let online = broker.online_many(&names).await.unwrap();
    assert_eq!(online.iter().filter(|state| state.online).count(), 12);
}
