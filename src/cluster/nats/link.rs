//! One connection to NATS, on a thread of its own: so neither a busy shard nor a long answer delays it.
//!
//! It connects again by itself. It asks questions with a deadline, and says how a question ended; it does
//! not repeat a question. Called by all other files of `nats`.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_nats::{
    AuthError, Client, ConnectOptions, Event, HeaderMap, Message, Request, ServerAddr,
    client::RequestErrorKind, connection::State, jetstream,
};
use bytes::Bytes;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tracing::{info, warn};

use super::{login::NatsLoginError, settings::NatsSettings};

/// Between two PINGs; the connection is given up when three were not answered. A frozen server must be
/// left before the leases of a node end.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// How long one server may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest pause before another attempt to connect.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The oldest version of a NATS server that is used: the first with a preferred server in STEPDOWN.
const VERSION_MIN: (i64, i64, i64) = (2, 11, 0);

/// Why a node cannot use NATS.
#[derive(Debug, thiserror::Error)]
pub enum NatsLinkError {
    /// A URL is invalid.
    #[error("parse the address of a NATS server: {0}")]
    Address(String),
    /// A secret is not there.
    #[error(transparent)]
    Login(#[from] NatsLoginError),
    /// No server accepts a connection.
    #[error("connect to NATS: {0}")]
    Connect(String),
    /// The server is too old.
    #[error("use the NATS server: it is version {0}; 2.11 is the oldest that is used")]
    Version(String),
    /// No thread can be started.
    #[error("start the thread of the connection to NATS: {0}")]
    Thread(#[from] io::Error),
}

/// How a question to NATS ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskFault {
    /// There is no connection; the question was not sent.
    NotConnected,
    /// Nobody takes such questions now: of a stream, it has no leader.
    NoResponders,
    /// No answer in time, or the connection was lost meanwhile.
    NoAnswer,
    /// It is longer than the server accepts, or its subject is invalid.
    Unfit(String),
}

/// One connection to NATS. It ends with the value.
pub struct NatsLink {
    client: Client,
    jetstream: jetstream::Context,
    shared: Arc<LinkState>,
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
}

/// The state that the callbacks of the connection write and its users read.
#[derive(Debug, Default)]
pub(super) struct LinkState {
    is_closed: AtomicBool,
    /// The last error that a server reported. It names the cause of a request that gets no answer.
    told: Mutex<Option<String>>,
}

impl LinkState {
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    pub(super) fn tell(&self, error: String) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns the last error that a server told, and forgets it.
    pub(super) fn take_told(&self) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl NatsLink {
    /// Connects to the first server that accepts. `purpose` is a word for the name of the thread and of
    /// the connection.
    ///
    /// # Errors
    /// Any [`NatsLinkError`].
    pub async fn connect(
        settings: &NatsSettings,
        purpose: &'static str,
    ) -> Result<Self, NatsLinkError> {
        let servers = settings.servers.iter().map(|url| url.parse::<ServerAddr>());
        let servers = servers.collect::<Result<Vec<_>, _>>();
        let servers = servers.map_err(|error| NatsLinkError::Address(error.to_string()))?;
        // Names the file at fault before a server refuses the login.
        settings.login.answer(b"")?;
        let shared = Arc::new(LinkState::default());
        let options = options(settings, purpose, &shared);
        // One channel tells the result, the other ends the thread with the link.
        let (end, ended) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Err(error) => drop(tell.send(Err(error.into()))),
                Ok(runtime) => runtime.block_on(async {
                    let client = options.connect(servers).await;
                    let client = client.map_err(|error| NatsLinkError::Connect(error.to_string()));
                    // The context starts a task, which belongs to this thread too.
                    let made = client
                        .map(|client| (jetstream::new(client.clone()), client, Handle::current()));
                    // The caller may have given up meanwhile.
                    if tell.send(made).is_ok() {
                        let _ = ended.await; // Ends with the link.
                    }
                }),
            }
        };
        thread::Builder::new().name(format!("nats-{purpose}")).spawn(run)?;
        let gone = || NatsLinkError::Connect("its thread has ended".to_owned());
        let (jetstream, client, runtime) = told.await.map_err(|_| gone())??;
        let (major, minor, patch) = VERSION_MIN;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(NatsLinkError::Version(client.server_info().version));
        }
        Ok(Self { client, jetstream, shared, runtime, end: Some(end) })
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    pub(super) const fn state(&self) -> &Arc<LinkState> {
        &self.shared
    }

    /// Runs a task on the thread of the connection. It ends with the link, at the latest.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// Returns whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Gives the connection up, and connects to another server.
    pub async fn reconnect(&self) {
        let _ = self.client.force_reconnect().await; // It fails after the end of the link.
    }

    /// Sends a question, and returns the answer that comes within the time. The time also bounds the
    /// wait for room in the queue of the connection.
    pub(super) async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        time_max: Duration,
    ) -> Result<Message, AskFault> {
        // The client would queue the question, and its deadline would pass there.
        if !self.is_connected() {
            return Err(AskFault::NotConnected);
        }
        let mut request = Request::new().payload(payload).timeout(Some(time_max));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        match timeout(time_max, self.client.send_request(subject, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            // Whether a question has had an effect depends on the kind of fault.
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => AskFault::NoResponders,
                RequestErrorKind::TimedOut | RequestErrorKind::Other => AskFault::NoAnswer,
                RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                    AskFault::Unfit(error.to_string())
                }
            }),
            Err(_) => Err(AskFault::NoAnswer),
        }
    }
}

impl std::fmt::Debug for NatsLink {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("NatsLink").field("is_connected", &self.is_connected()).finish()
    }
}

impl Drop for NatsLink {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        if let Some(end) = self.end.take() {
            let _ = end.send(()); // The thread may have ended.
        }
    }
}

fn options(
    settings: &NatsSettings,
    purpose: &'static str,
    shared: &Arc<LinkState>,
) -> ConnectOptions {
    let login = settings.login.clone();
    // Read for each connection, so that new credentials are used without a restart.
    let answer =
        move |nonce: Vec<u8>| std::future::ready(login.answer(&nonce).map_err(AuthError::new));
    let state = Arc::clone(shared);
    let told = move |event: Event| {
        told(&state, purpose, &event);
        std::future::ready(())
    };
    let mut options = ConnectOptions::with_auth_callback(answer)
        .name(format!("hearthmq {} {purpose}", settings.node))
        // Inboxes have the prefix, so that a NATS account needs no right to those of others.
        .custom_inbox_prefix(format!("_INBOX_{}", settings.prefix))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIME_MAX)
        .reconnect_delay_callback(pause)
        .require_tls(settings.tls.is_required)
        .event_callback(told);
    if let Some(authorities) = &settings.tls.authorities {
        options = options.add_root_certificates(authorities.clone());
    }
    if let Some((certificate, key)) = &settings.tls.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
}

/// Returns the pause before an attempt to connect, by the number of attempts since the last success.
fn pause(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        more => CONNECT_PAUSE_MAX.min(Duration::from_millis(10 << more.min(10))),
    }
}

/// Logs what an operator wants to know: a line when the connection is lost, and one when it is back.
fn told(state: &LinkState, purpose: &str, event: &Event) {
    match event {
        Event::Connected => info!(purpose, "connected to NATS"),
        Event::Disconnected => warn!(purpose, "connection to NATS lost"),
        Event::LameDuckMode => info!(purpose, "NATS server is shutting down"),
        Event::SlowConsumer(_) => warn!(purpose, "messages of NATS dropped: too many are waiting"),
        Event::ServerError(error) => state.tell(error.to_string()),
        Event::ClientError(error) => state.tell(error.to_string()),
        Event::Draining | Event::Closed => {}
    }
}
