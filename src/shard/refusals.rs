//! Events of refused clients, on their way to a shard, which announces them.
//!
//! A client is refused on any thread, often before it has a home.

use super::{Shard, common::Core};
use crate::{
    between::door::{Sender, ToShard},
    hooks::{
        ClientRefused,
        json::{self, Event},
    },
    mqtt::Timestamp,
    told::Subject,
};

impl Core {
    /// Announces that a connection was refused, within the limits. May be called from any thread.
    pub(crate) fn announce_refused(&self, subject: &Subject<'_>, reason: &'static str) {
        let now = self.clock.now();
        if !self.refusals.allows(subject.peer.ip(), now) {
            return;
        }
        let event = ClientRefused {
            client_id: subject.client_id.map(Into::into),
            username: subject.user.map(Into::into),
            reason,
            peer: subject.peer,
            at: now,
            number: 0,
        };
        let home = self.home(subject.client_id.unwrap_or_default());
        if let Some(shard) = self.shard(home) {
            shard.door.send(Sender::Listener, ToShard::Refused(Box::new(event)));
        }
    }
}

impl Shard {
    /// Gives the event its number and announces it.
    pub(in crate::shard) fn take_refused(&mut self, mut event: ClientRefused, now: Timestamp) {
        self.announce_any(
            |_, numbers| {
                event.number = numbers.next();
                Some(Event::Refused(event))
            },
            json::CLIENT_REFUSED,
            now,
        );
    }
}
