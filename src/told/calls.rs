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
    /// The changed object: a client identifier, or a pattern.
    pub(crate) target: Option<&'a str>,
    /// The previous value, if known.
    pub(crate) old: Option<&'a str>,
    /// The new value.
    pub(crate) new: Option<&'a str>,
}

/// What a call has done that changes nothing to be remembered.
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
    /// Logs at `debug` what a call has done.
    pub(crate) fn call_made(&self, caller: &Subject<'_>, made: Made<'_>) {
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
        let [client_id, old, new, user] =
            [changed.target, changed.old, changed.new, caller.user].map(|text| text.map(cut));
        tracing::info!(
            target: AUDIT, parent: None,
            peer = %caller.peer, listener = caller.listener, call = changed.call,
            client_id = client_id.as_deref(), old = old.as_deref(), new = new.as_deref(),
            user = user.as_deref(), left_out,
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
