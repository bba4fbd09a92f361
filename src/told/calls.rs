//! Lines of the log about calls of the REST interface: what was changed, and what was refused.

use super::{Kind, Subject, Told, cut};

/// The target of these lines, for filters: `hearthmq::calls=warn`.
const CALLS: &str = "hearthmq::calls";

/// What a call has changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed<'a> {
    /// The call, by its name.
    pub(crate) call: &'a str,
    /// What was changed: a client identifier, or a pattern.
    pub(crate) target: Option<&'a str>,
    /// The value before, where it is known.
    pub(crate) old: Option<&'a str>,
    /// The value from now on.
    pub(crate) new: Option<&'a str>,
}

impl Told {
    /// A call has changed something. Logged whatever is said of clients.
    pub(crate) fn call_changed(&self, caller: &Subject<'_>, changed: Changed<'_>) {
        if !tracing::enabled!(target: CALLS, tracing::Level::INFO) {
            return;
        }
        let Some(left_out) = self.allow(Kind::Change, caller.peer.ip()) else { return };
        let [client_id, old, new, user] =
            [changed.target, changed.old, changed.new, caller.user].map(|text| text.map(cut));
        tracing::info!(
            target: CALLS, parent: None,
            peer = %caller.peer, listener = caller.listener, call = changed.call,
            client_id = client_id.as_deref(), old = old.as_deref(), new = new.as_deref(),
            user = user.as_deref(), left_out,
            "changed"
        );
    }

    /// A call was refused: its caller did not show who it is, or may not do that, or calls too often.
    pub(crate) fn call_refused(&self, caller: &Subject<'_>, call: &str, reason: &str) {
        if !tracing::enabled!(target: CALLS, tracing::Level::WARN) {
            return;
        }
        let Some(left_out) = self.allow(Kind::Trouble, caller.peer.ip()) else { return };
        let (call, user) = (cut(call), caller.user.map(cut));
        tracing::warn!(
            target: CALLS, parent: None,
            peer = %caller.peer, listener = caller.listener, reason, call = &*call,
            user = user.as_deref(), left_out,
            "call refused"
        );
    }
}
