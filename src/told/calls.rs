//! Log lines about REST calls: changes, and refusals.

use super::{LineKind, Subject, Told, cut};

/// Target of these lines, for filters: `hearthmq::calls=warn`.
const CALLS: &str = "hearthmq::calls";
/// Target of lines about changes: `hearthmq::audit=off`.
const AUDIT: &str = "hearthmq::audit";

/// The change that a call has made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed<'a> {
    /// Name of the call.
    pub(crate) call: &'a str,
    /// The changed object.
    pub(crate) target: Option<ChangedObject<'a>>,
    /// The previous value, if known.
    pub(crate) old: Option<&'a str>,
    /// The new value.
    pub(crate) new: Option<&'a str>,
}

/// The object of a change. Its kind is the name of its field in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChangedObject<'a> {
    /// A client identifier.
    Client(&'a str),
    /// Client identifiers.
    List(&'a str),
    /// A pattern for client identifiers.
    Clients(&'a str),
    /// A user name.
    User(&'a str),
    /// The identifier of a rule.
    Rule(&'a str),
    /// The kind and the value of a ban.
    Ban(&'a str),
    /// The name of an API token.
    Token(&'a str),
    /// A Topic Name.
    Topic(&'a str),
    /// The serial number and the issuer of a certificate.
    Certificate(&'a str),
    /// An address, and a user name there.
    Address(&'a str),
}

impl<'a> ChangedObject<'a> {
    /// Returns the clients that a call has selected: by a pattern, or by their user name.
    pub(crate) const fn selected(is_pattern: bool, name: &'a str) -> Self {
        if is_pattern { Self::Clients(name) } else { Self::User(name) }
    }

    /// Returns the name of the kind of target.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Client(_) => "client_id",
            Self::List(_) => "client_ids",
            Self::Clients(_) => "clients",
            Self::User(_) => "username",
            Self::Rule(_) => "rule",
            Self::Ban(_) => "ban",
            Self::Token(_) => "token",
            Self::Topic(_) => "topic",
            Self::Certificate(_) => "certificate",
            Self::Address(_) => "address",
        }
    }

    /// Returns the name of the target.
    pub(crate) const fn name(self) -> &'a str {
        match self {
            Self::Client(name)
            | Self::List(name)
            | Self::Clients(name)
            | Self::User(name)
            | Self::Rule(name)
            | Self::Ban(name)
            | Self::Token(name)
            | Self::Topic(name)
            | Self::Certificate(name)
            | Self::Address(name) => name,
        }
    }
}

/// The outcome of a call that changes no stored value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made<'a> {
    /// Name of the call.
    pub(crate) call: &'a str,
    /// The topic, if there is one.
    pub(crate) topic: Option<&'a str>,
    /// The number of items that were done.
    pub(crate) done: usize,
    /// The number of items of the call.
    pub(crate) items: usize,
}

impl Told {
    /// Logs the effect of a call at `debug`.
    pub(crate) fn call_made(&self, caller: &Subject<'_>, made: Made<'_>) {
        // Asked first, because everything below allocates.
        if !tracing::enabled!(target: CALLS, tracing::Level::DEBUG) {
            return;
        }
        let Some(left_out) = self.allow(LineKind::Usual, caller.peer.ip()) else { return };
        let [topic, user] = [made.topic, caller.user].map(|text| text.map(cut));
        tracing::debug!(
            target: CALLS, parent: None,
            peer = %caller.peer, listener = caller.listener, call = made.call,
            topic = topic.as_deref(), done = made.done, items = made.items,
            user = user.as_deref(), left_out,
            "made"
        );
    }

    /// Logs a change made by a call, independent of the setting for lines about clients.
    pub(crate) fn call_changed(&self, caller: &Subject<'_>, changed: Changed<'_>) {
        if !tracing::enabled!(target: AUDIT, tracing::Level::INFO) {
            return;
        }
        let Some(left_out) = self.allow(LineKind::Change, caller.peer.ip()) else { return };
        // Texts come from callers, so they are shortened and escaped.
        let [old, new, user] = [changed.old, changed.new, caller.user].map(|text| text.map(cut));
        let name = changed.target.map(|target| (target.kind(), cut(target.name())));
        // The name of a field is fixed in the macro, so each kind has its own field, and most stay empty.
        let of_kind = |kind| name.as_ref().filter(|(other, _)| *other == kind).map(|it| &*it.1);
        let (client_id, client_ids) = (of_kind("client_id"), of_kind("client_ids"));
        let (clients, username) = (of_kind("clients"), of_kind("username"));
        let (rule, ban, token) = (of_kind("rule"), of_kind("ban"), of_kind("token"));
        let (topic, certificate, address) =
            (of_kind("topic"), of_kind("certificate"), of_kind("address"));
        tracing::info!(
            target: AUDIT, parent: None,
            peer = %caller.peer, listener = caller.listener, call = changed.call,
            client_id, client_ids, clients, username, rule, ban, token, topic, certificate, address,
            old = old.as_deref(), new = new.as_deref(), user = user.as_deref(), left_out,
            "changed"
        );
    }

    /// Logs a refused call: its caller did not authenticate, lacks permission, or calls too often.
    pub(crate) fn call_refused(&self, caller: &Subject<'_>, call: &str, reason: &str) {
        if !tracing::enabled!(target: CALLS, tracing::Level::WARN) {
            return;
        }
        let Some(left_out) = self.allow(LineKind::Trouble, caller.peer.ip()) else { return };
        let (call, user) = (cut(call), caller.user.map(cut));
        tracing::warn!(
            target: CALLS, parent: None,
            peer = %caller.peer, listener = caller.listener, reason, call = &*call,
            user = user.as_deref(), left_out,
            "call refused"
        );
    }
}
