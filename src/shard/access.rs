//! Access as shards and listeners need it: the check for a ban, the event of a new ban, and audit entries.

use std::net::IpAddr;

use super::{Core, Shard};
use crate::{
    auth::ClientCertificate,
    between::door::{Sender, ToShard},
    control::{AuditEntry, Ban, ListAudit},
    hooks::{
        ClientBanned,
        json::{self, Event},
    },
    mqtt::{Connect, Timestamp},
};

impl Core {
    /// Returns whether a ban keeps a client out, by its names, which are not proven yet.
    pub(crate) fn keeps_out(
        &self,
        connect: &Connect<'_>,
        client_id: &str,
        certificate: Option<&ClientCertificate>,
        address: IpAddr,
    ) -> bool {
        let now = self.clock.now();
        let by_name = |name| self.bans.keeps_out(client_id, name, address, now);
        let common_name = certificate.map(|shown| shown.common_name.as_str());
        by_name(connect.username) || common_name.is_some_and(|name| by_name(Some(name)))
    }

    /// Announces a ban. If the ban is of one client, the home of that client announces it. May be called from any
    /// thread.
    pub(crate) fn announce_ban(&self, ban: &Ban) {
        let event = event_of(ban);
        let home = self.home(event.client_id().unwrap_or_default());
        if let Some(shard) = self.shard(home) {
            shard.door.send(Sender::Listener, ToShard::Banned(Box::new(event)));
        }
    }

    /// Notes a change in the audit log.
    pub(crate) fn note_audit(&self, entry: AuditEntry) {
        let entries_max = self.limits_now().audit_entries_max as usize;
        self.audit.note(entry, entries_max, self.clock.now());
    }

    /// Hands over the entries of the audit log that were collected for long enough.
    pub(in crate::shard) fn hand_over_audit_if_due(&self, now: Timestamp) {
        self.audit.hand_over_if_due(self.limits_now().audit_entries_max as usize, now);
    }

    /// Returns some entries of the audit log.
    pub(crate) async fn list_audit(&self, question: &ListAudit) -> Vec<AuditEntry> {
        let entries_max = self.limits_now().audit_entries_max as usize;
        self.audit.list(question, entries_max, self.clock.now()).await
    }

    /// Hands over all entries of the audit log.
    pub(crate) fn hand_over_audit(&self) {
        self.audit.hand_over(self.limits_now().audit_entries_max as usize, self.clock.now());
    }
}

impl Shard {
    /// Gives the event its number and announces it.
    pub(in crate::shard) fn announce_banned(&mut self, mut event: ClientBanned, now: Timestamp) {
        self.announce_any(
            |_, numbers| {
                event.number = numbers.next();
                Some(Event::Banned(event))
            },
            json::CLIENT_BANNED,
            now,
        );
    }
}

/// Returns the event that a ban was set.
pub(in crate::shard) fn event_of(ban: &Ban) -> ClientBanned {
    ClientBanned {
        kind: ban.subject.kind(),
        value: ban.subject.value(),
        reason: ban.reason.clone(),
        by: ban.by.clone(),
        is_for_flapping: ban.is_for_flapping,
        expires_at: ban.expires_at_millis.map(Timestamp),
        at: Timestamp(ban.set_at_millis),
        number: 0,
    }
}
