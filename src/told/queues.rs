//! Lines of the log about clients whose full queue loses messages.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use super::{CLIENTS, ClientLines, LineKind, Told, cut};

/// A session whose messages are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    /// Where it is connected from, if it is.
    pub(crate) peer: Option<SocketAddr>,
}

impl Told {
    /// Logs that a queue is full and loses messages. Returns whether it did: the lines are limited for each
    /// address, that of the client's last connection.
    pub(crate) fn dropping_began(&self, whose: &Dropped<'_>, limited_by: IpAddr) -> bool {
        let is_wanted = self.lines() != ClientLines::None
            && tracing::enabled!(target: CLIENTS, tracing::Level::WARN);
        // The limit is asked only for a wanted line, so that no other line is counted as left out.
        let Some(left_out) = is_wanted.then(|| self.allow(LineKind::Trouble, limited_by)).flatten()
        else {
            return false;
        };
        let Dropped { client_id, user, peer } = *whose;
        let (client_id, user) = (&*cut(client_id), user.map(cut));
        tracing::warn!(
            target: CLIENTS, parent: None,
            peer = peer.map(tracing::field::display), client_id, user = user.as_deref(), left_out,
            "queue full, drops messages"
        );
        true
    }

    /// Logs that stored messages of a client cannot be read, and why. The lines are limited for each
    /// address, that of the client's last connection.
    pub(crate) fn unreadable(&self, client_id: &str, limited_by: IpAddr, why: &dyn Display) {
        let Some(left_out) = self.allow(LineKind::Trouble, limited_by) else { return };
        let client_id = &*cut(client_id);
        tracing::error!(parent: None, client_id, %why, left_out, "stored messages cannot be read");
    }

    /// Logs that publishers wait no longer for a client, whose full queue drops messages from now on.
    /// The lines are limited for each address, that of the client's last connection.
    pub(crate) fn gave_up(&self, client_id: &str, limited_by: IpAddr) {
        let Some(left_out) = self.allow(LineKind::Trouble, limited_by) else { return };
        let client_id = &*cut(client_id);
        tracing::warn!(
            parent: None, client_id, left_out,
            "does not empty its full queue, which drops its oldest now"
        );
    }

    /// Logs that nothing has been dropped for a while: how many messages were, in how many seconds.
    pub(crate) fn dropping_ended(&self, whose: &Dropped<'_>, messages: u64, secs: u64) {
        let Dropped { client_id, user, peer } = *whose;
        let (client_id, user) = (&*cut(client_id), user.map(cut));
        tracing::warn!(
            target: CLIENTS, parent: None,
            peer = peer.map(tracing::field::display), messages, secs, client_id,
            user = user.as_deref(),
            "drops no more messages"
        );
    }
}
