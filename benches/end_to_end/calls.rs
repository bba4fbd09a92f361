//! The two REST calls while clients are connected, and an empty handler of actix-web with the same
//! authentication for comparison.

use std::{
    fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header::ContentType, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::Histogram;
use hearthmq::auth::{
    AuthenticationConfig, Authenticator, Credentials, FileAuthenticator, ListenerLogins,
};

use super::{
    Outcome, Settings, brokers::Running, crowd::Crowd, ledger::LATENCY_NANOS_MAX, report::Figures,
};

pub(crate) const USER: &str = "bench";
const PASSWORD: &str = "a password of the benchmark";
/// Number of connections that call, each with one request at a time.
pub(crate) const CALLERS: usize = 32;

/// The call to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    QueryOnline,
    SetKeepAlive,
}

/// Creates the account of the callers in a new directory.
pub(crate) fn make_account(binary: &str, directory: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(directory)?;
    let file = directory.join("users.toml");
    let mut child = Command::new(binary)
        .args(["passwd", USER, "--file"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let input = child.stdin.as_mut().ok_or("no standard input")?;
    writeln!(input, "{PASSWORD}")?;
    if child.wait()?.success() { Ok(file) } else { Err("the account could not be made".into()) }
}

/// Serves an empty handler behind HTTP Basic until it is killed: the cost of a call that does
/// nothing.
pub(crate) fn serve_empty_handler(port: u16, accounts: PathBuf) -> io::Result<()> {
    actix_web::rt::System::new().block_on(async move {
        let authenticator = FileAuthenticator::open(accounts, AuthenticationConfig::default());
        let authenticator = web::Data::new(authenticator.map_err(io::Error::other)?);
        HttpServer::new(move || {
            App::new().app_data(authenticator.clone()).default_service(web::to(empty))
        })
        .workers(1)
        .bind((Ipv4Addr::LOCALHOST, port))?
        .run()
        .await
    })
}

async fn empty(request: HttpRequest, authenticator: web::Data<FileAuthenticator>) -> HttpResponse {
    let basic = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let basic = basic.and_then(|text| STANDARD.decode(text.strip_prefix("Basic ")?).ok());
    let pair = basic.as_deref().unwrap_or_default();
    let colon = pair.iter().position(|byte| *byte == b':').unwrap_or(0);
    let credentials = Credentials {
        client_id: None,
        username: std::str::from_utf8(&pair[..colon]).ok(),
        password: pair.get(colon + 1..),
        bearer: None,
        certificate: None,
        peer: request.peer_addr().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
        listener: "http",
        rules: ListenerLogins::default(),
        proven: false,
        may_pass: false,
    };
    match authenticator.authenticate(credentials).await {
        Ok(_) => HttpResponse::Ok().insert_header(ContentType::json()).body(r#"{"online":true}"#),
        Err(_) => HttpResponse::Unauthorized().finish(),
    }
}

/// Calls about `clients` identifiers, at a rate or as fast as answers come; runs `meanwhile` now
/// and then.
pub(crate) struct Callers {
    crowd: Crowd,
    call: Call,
    clients: usize,
    authorization: String,
    random: fastrand::Rng,
    sent_at: Vec<Instant>,
    latency: Histogram<u64>,
    pub(crate) answers: u64,
    pub(crate) failures: u64,
}

impl Callers {
    pub(crate) fn connect(http: SocketAddr, call: Call, clients: usize) -> Outcome<Self> {
        let mut crowd = Crowd::new(http)?;
        for _ in 0..CALLERS {
            crowd.open()?;
        }
        Ok(Self {
            crowd,
            call,
            clients,
            authorization: STANDARD.encode(format!("{USER}:{PASSWORD}")),
            random: fastrand::Rng::with_seed(1),
            sent_at: vec![Instant::now(); CALLERS],
            latency: Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)?,
            answers: 0,
            failures: 0,
        })
    }

    /// Sends the request of one caller.
    pub(crate) fn ask(&mut self, who: usize, since: Instant) {
        let number = self.random.usize(..self.clients);
        let target = match self.call {
            Call::QueryOnline => format!("GET /client-id/idle-{number}/status"),
            Call::SetKeepAlive => {
                let interval = self.random.u32(30..=1200);
                format!("POST /keep-alive?client-id=idle-{number}&interval={interval}")
            }
        };
        let request = format!(
            "{target} HTTP/1.1\r\nhost: bench\r\nauthorization: Basic {}\r\ncontent-length: 0\r\n\r\n",
            self.authorization
        );
        self.sent_at[who] = since;
        self.crowd.say(who, |out| out.raw(request.as_bytes()));
    }

    /// Receives answers; returns the callers that got one.
    pub(crate) fn turn(&mut self, wait: Duration) -> Outcome<Vec<usize>> {
        let Self { crowd, sent_at, latency, answers, failures, .. } = self;
        let mut free = Vec::new();
        crowd.turn_raw(wait, |who, bytes, _| {
            let Some(length) = answer_length(bytes) else { return 0 };
            *answers += 1;
            *failures += u64::from(!bytes.starts_with(b"HTTP/1.1 200"));
            latency.saturating_record(sent_at[who].elapsed().as_nanos() as u64);
            free.push(who);
            length
        })?;
        Ok(free)
    }

    /// Calls as fast as answers come.
    pub(crate) fn measure(mut self, server: &Running, settings: &Settings) -> Outcome<Figures> {
        for who in 0..CALLERS {
            self.ask(who, Instant::now());
        }
        self.go_on_for(Duration::from_millis(500))?;
        // The first half second fills caches and remembered credentials, and does not count.
        self.latency.reset();
        let (answers, began, usage) = (self.answers, Instant::now(), server.usage());
        self.go_on_for(settings.time)?;
        let (took, after) = (began.elapsed().as_secs_f64(), server.usage());
        let count = (self.answers - answers) as f64;
        let mut figures = Figures::with_faults(self.failures);
        figures.put("per s", count / took);
        figures.put("CPU s per million", (after.cpu_secs - usage.cpu_secs) / count * 1e6);
        figures.put("p50 us", self.latency.value_at_quantile(0.5) as f64 / 1e3);
        figures.put("p99 us", self.latency.value_at_quantile(0.99) as f64 / 1e3);
        Ok(figures)
    }

    /// Does not sleep: over loopback the server would pay for waking the caller.
    fn go_on_for(&mut self, time: Duration) -> Outcome<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for who in self.turn(Duration::ZERO)? {
                self.ask(who, Instant::now());
            }
        }
        Ok(())
    }
}

/// Returns the length of an HTTP answer with a body of known length, once it is complete.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (bytes.len() >= head + length).then_some(head + length)
}
