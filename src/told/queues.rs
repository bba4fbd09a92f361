//! Lines of the log about clients whose full queue loses messages.

use std::net::{IpAddr, SocketAddr};

use super::{CLIENTS, ClientLines, Kind, Told, cut};

/// Whose messages are dropped.
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
        let Some(left_out) = is_wanted.then(|| self.allow(Kind::Trouble, limited_by)).flatten()
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
