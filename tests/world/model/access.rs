//! Who may be there, and what clients may have: a list of bans, and subscriptions that are withdrawn.

use hearthmq::hooks::DisconnectReason;

use super::{End, Model};
use crate::vocabulary::{BANS, FILTERS, split};

/// A ban.
#[derive(Clone, Copy)]
pub(crate) struct Ban {
    /// Its place in [`BANS`].
    ban: usize,
    pub(crate) ends_at: Option<u64>,
}

impl Model {
    /// Bans clients; those that are online are disconnected. Their sessions stay.
    pub(crate) fn ban(&mut self, ban: usize, secs: Option<u8>) {
        self.bans.retain(|former| former.ban != ban);
        let ends_at = secs.map(|secs| self.now + u64::from(secs) * 1000);
        self.bans.push(Ban { ban, ends_at });
        for client in BANS[ban].2 {
            let end = End::without_disconnect(DisconnectReason::Banned);
            self.end_connection(*client, end);
        }
    }

    /// Lifts a ban, and returns it.
    pub(crate) fn lift_ban(&mut self, ban: usize) -> Option<Ban> {
        let at = self.bans.iter().position(|former| former.ban == ban)?;
        Some(self.bans.remove(at))
    }

    /// Returns the bans that end by themselves.
    pub(crate) fn bans_that_end(&self) -> Vec<usize> {
        self.bans.iter().filter(|ban| ban.ends_at.is_some()).map(|ban| ban.ban).collect()
    }

    /// Returns whether one of the bans of now is about the client at this time.
    pub(crate) fn is_banned_at(&self, client: usize, at: u64) -> bool {
        let mut bans = self.bans.iter();
        bans.any(|ban| {
            BANS[ban.ban].2.contains(&client) && ban.ends_at.is_none_or(|ends_at| at < ends_at)
        })
    }

    /// Takes from a client the subscriptions that need this permission; returns whether it had one. One
    /// permission is for all groups of a filter.
    pub(crate) fn denied(&mut self, client: usize, filter: &'static str) -> bool {
        let same = FILTERS.into_iter().filter(|other| split(other).1 == split(filter).1);
        same.filter(|filter| self.withdraw(client, filter)).count() > 0
    }
}
