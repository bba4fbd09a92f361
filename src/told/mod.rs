//! Log lines about clients and callers: one line for each event, with the client, the reason and
//! its address.
//!
//! Every line has the same fields in the same order: `peer`, `listener`, then the event's own,
//! `client_id` and `user`. The address comes before all text from strangers, so that a program that
//! reads the log finds it. Text from strangers is cut here, and escaped by the log itself. Lines
//! that any stranger can cause are limited, see `limit`; the next line has the number of omitted
//! ones. Knows neither MQTT nor HTTP: reasons are words. Called by `net`, `actors` and `http`.

mod accepts;
#[cfg(feature = "http")]
mod calls;
mod limit;
#[cfg(feature = "accounts")]
mod logins;
mod queues;
mod text;

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tracing::Span;

#[cfg(feature = "http")]
pub(crate) use self::calls::{Changed, ChangedObject, Made};
use self::limit::{LeftOut, Limiter, LineKind, Quiet};
#[cfg(feature = "accounts")]
pub(crate) use self::logins::{LockOut, LockOuts};
#[cfg(feature = "postgres")]
pub(crate) use self::logins::{UnusableAnswer, UnusableAnswers};
pub(crate) use self::{
    queues::Dropped,
    text::{cut, without_token},
};

/// Target of lines about clients, for filters: `hearthmq::clients=warn`.
const CLIENTS: &str = "hearthmq::clients";

/// Which lines about clients are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClientLines {
    /// Clients that connect, disconnect and take over, and refusals.
    #[default]
    All,
    /// Only refusals.
    Refusals,
    /// None.
    None,
}

impl ClientLines {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Refusals,
            _ => Self::All,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Refusals => 1,
            Self::All => 2,
        }
    }
}

/// The client or caller that a line is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) peer: SocketAddr,
    /// URL of the listener; empty if unknown.
    pub(crate) listener: &'a str,
    /// Client Identifier, once known.
    pub(crate) client_id: Option<&'a str>,
    /// User name as given, before it was checked.
    pub(crate) user: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Returns a subject of which only the address is known.
    pub(crate) const fn stranger(peer: SocketAddr, listener: &'a str) -> Self {
        Self { peer, listener, client_id: None, user: None }
    }
}

/// Returns a span that adds a connection's subject to every line below it. Returns `None` without
/// `hearthmq::clients=debug`, and then costs nothing.
pub(crate) fn connection_span(subject: &Subject<'_>) -> Option<Box<Span>> {
    if !tracing::enabled!(target: CLIENTS, tracing::Level::DEBUG) {
        return None;
    }
    let (client_id, user) = (subject.client_id.map(cut), subject.user.map(cut));
    let span = tracing::debug_span!(
        target: CLIENTS, parent: None, "connection",
        peer = %subject.peer, listener = subject.listener,
        client_id = client_id.as_deref(), user = user.as_deref(),
    );
    Some(Box::new(span))
}

/// How a client connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Version of MQTT: `3.1`, `3.1.1` or `5.0`.
    pub(crate) version: &'static str,
    pub(crate) keep_alive_secs: u16,
    pub(crate) clean_start: bool,
    pub(crate) session_present: bool,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) reason: &'static str,
    /// The broken clause, or details of the reason.
    pub(crate) why: Option<&'static str>,
    /// How long the connection lasted, in seconds.
    pub(crate) secs: u64,
}

/// How serious a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Normal operation.
    Usual,
    /// A limit, a lock-out, a broken rule of the protocol: an operator should look at it.
    Warning,
}

/// Logs the lines about clients and callers of one broker.
pub(crate) struct Told {
    lines: AtomicU8,
    limiter: Mutex<Limiter>,
    began: Instant,
    /// Number of lines omitted so far.
    left_out: AtomicU64,
    accepts: accepts::Failures,
}

impl Default for Told {
    fn default() -> Self {
        Self::new(ClientLines::default())
    }
}

/// Writes a line with the fields of its subject: at `info` for `Severity::Usual`, else at `warn`.
macro_rules! line {
    ($weight:expr, $subject:expr, $left_out:expr, $message:literal, { $($fields:tt)* }) => {{
        let subject: &Subject<'_> = $subject;
        let (client_id, user) = (subject.client_id.map(cut), subject.user.map(cut));
        let (client_id, user) = (client_id.as_deref(), user.as_deref());
        let listener = Some(subject.listener).filter(|listener| !listener.is_empty());
        let (peer, left_out) = (subject.peer, $left_out);
        match $weight {
            Severity::Usual => tracing::info!(
                target: CLIENTS, parent: None,
                %peer, listener, $($fields)*, client_id, user, left_out, $message
            ),
            Severity::Warning => tracing::warn!(
                target: CLIENTS, parent: None,
                %peer, listener, $($fields)*, client_id, user, left_out, $message
            ),
        }
    }};
}

impl Told {
    pub(crate) fn new(lines: ClientLines) -> Self {
        Self {
            lines: AtomicU8::new(lines.number()),
            limiter: Mutex::default(),
            began: Instant::now(),
            left_out: AtomicU64::new(0),
            accepts: accepts::Failures::default(),
        }
    }

    /// Sets which lines about clients are logged from now on.
    pub(crate) fn set_lines(&self, lines: ClientLines) {
        self.lines.store(lines.number(), Relaxed);
    }

    /// Returns the number of lines that were omitted because of the limits.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// Logs that CONNACK with success was sent.
    pub(crate) fn connected(&self, subject: &Subject<'_>, how: Arrived) {
        let Some(left_out) = self.may_tell_all(subject) else { return };
        let Arrived { version, keep_alive_secs, clean_start, session_present } = how;
        line!(Severity::Usual, subject, left_out, "connected", {
            version, keep_alive_secs, clean_start, session_present
        });
    }

    /// Logs that a connection has ended.
    pub(crate) fn disconnected(&self, subject: &Subject<'_>, how: Left) {
        let Some(left_out) = self.may_tell_all(subject) else { return };
        let Left { reason, why, secs } = how;
        line!(Severity::Usual, subject, left_out, "disconnected", { reason, why, secs });
    }

    /// Logs that a connection was replaced by another one with the same client identifier.
    pub(crate) fn taken_over(
        &self,
        subject: &Subject<'_>,
        (old_peer, old_listener): (SocketAddr, &str),
    ) {
        let Some(left_out) = self.may_tell_all(subject) else { return };
        let old_listener = Some(old_listener).filter(|listener| !listener.is_empty());
        line!(Severity::Usual, subject, left_out, "taken over", { %old_peer, old_listener });
    }

    /// Logs that the certificate with this serial number was pinned to the identifier of a client.
    pub(crate) fn certificate_pinned(&self, subject: &Subject<'_>, serial_number: &str) {
        let Some(left_out) = self.may_tell_all(subject) else { return };
        let serial_number = &*cut(serial_number);
        line!(Severity::Usual, subject, left_out, "certificate pinned", { serial_number });
    }

    /// Logs that a client connects too often, and is banned for it.
    pub(crate) fn flapping(&self, subject: &Subject<'_>, connects: u32, banned_secs: u32) {
        let Some(left_out) = self.may_tell_refusal(subject, Severity::Warning) else { return };
        line!(Severity::Warning, subject, left_out, "flapping", { connects, banned_secs });
    }

    /// Logs that a CONNECT, or a connection before CONNECT, was refused.
    pub(crate) fn connect_refused(
        &self,
        subject: &Subject<'_>,
        weight: Severity,
        reason: &'static str,
        why: Option<&str>,
    ) {
        let Some(left_out) = self.may_tell_refusal(subject, weight) else { return };
        let why = why.map(cut);
        let why = why.as_deref();
        line!(weight, subject, left_out, "connect refused", { reason, why });
    }

    /// Logs at `debug` that an attempt was refused by a lock-out, which was logged when it began.
    pub(crate) fn attempt_not_checked(&self, subject: &Subject<'_>) {
        if !tracing::enabled!(target: CLIENTS, tracing::Level::DEBUG) {
            return;
        }
        let Some(left_out) = self.allow(LineKind::Trouble, subject.peer.ip()) else { return };
        let (client_id, user) = (subject.client_id.map(cut), subject.user.map(cut));
        tracing::debug!(
            target: CLIENTS, parent: None,
            peer = %subject.peer, listener = subject.listener, reason = "locked_out",
            client_id = client_id.as_deref(), user = user.as_deref(), left_out,
            "attempt not checked"
        );
    }

    /// Logs that a client was not allowed to publish to a topic or to subscribe to a filter.
    pub(crate) fn denied(&self, subject: &Subject<'_>, action: &'static str, topic: &str) {
        let Some(left_out) = self.may_tell_refusal(subject, Severity::Warning) else { return };
        let topic = &*cut(topic);
        line!(Severity::Warning, subject, left_out, "denied", { action, topic });
    }

    /// Logs that a client has broken a rule of the protocol, which ends its connection.
    pub(crate) fn broke_rule(&self, subject: &Subject<'_>, code: &dyn Debug, clause: Option<&str>) {
        let Some(left_out) = self.may_tell_refusal(subject, Severity::Warning) else { return };
        line!(Severity::Warning, subject, left_out, "broke a rule of the protocol", { ?code, clause });
    }

    /// Logs that a client exceeded a limit, named as in the configuration.
    pub(crate) fn over_limit(&self, subject: &Subject<'_>, limit: &str, what: Option<&str>) {
        let Some(left_out) = self.may_tell_refusal(subject, Severity::Warning) else { return };
        let what = what.map(cut);
        let what = what.as_deref();
        line!(Severity::Warning, subject, left_out, "over a limit", { limit, what });
    }

    /// Logs how many lines were omitted for addresses that have been quiet since. Called
    /// periodically by one thread.
    pub(crate) fn tell_left_out(&self) {
        let found = self.limiter().quiet(self.now());
        if let Some(found) = found {
            tell_quiet(found);
        }
    }

    /// Decides about a line on normal events: returns the number of lines omitted before it, or
    /// `None` if it must not be written.
    fn may_tell_all(&self, subject: &Subject<'_>) -> Option<Option<u32>> {
        let is_wanted = self.lines() == ClientLines::All
            && tracing::enabled!(target: CLIENTS, tracing::Level::INFO);
        is_wanted.then(|| self.allow(LineKind::Usual, subject.peer.ip())).flatten()
    }

    fn may_tell_refusal(&self, subject: &Subject<'_>, weight: Severity) -> Option<Option<u32>> {
        let is_enabled = match weight {
            Severity::Usual => tracing::enabled!(target: CLIENTS, tracing::Level::INFO),
            Severity::Warning => tracing::enabled!(target: CLIENTS, tracing::Level::WARN),
        };
        let is_wanted = self.lines() != ClientLines::None && is_enabled;
        is_wanted.then(|| self.allow(LineKind::Trouble, subject.peer.ip())).flatten()
    }

    fn allow(&self, kind: LineKind, address: IpAddr) -> Option<Option<u32>> {
        let allowed = self.limiter().allow(kind, address, self.now());
        if allowed.is_none() {
            self.left_out.fetch_add(1, Relaxed);
        }
        allowed.map(|left_out| Some(left_out).filter(|lines| *lines > 0))
    }

    fn lines(&self) -> ClientLines {
        ClientLines::from_number(self.lines.load(Relaxed))
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns microseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Logs how many lines were omitted for addresses that have been quiet since.
fn tell_quiet(found: Quiet) {
    for LeftOut { network, lines, kind } in found.networks {
        let kind = kind.name();
        tracing::warn!(target: CLIENTS, parent: None, %network, lines, kind, "lines left out");
    }
    if found.others > 0 {
        let lines = found.others;
        tracing::warn!(target: CLIENTS, parent: None, lines, "lines left out of more addresses");
    }
}
