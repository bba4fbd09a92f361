//! What the broker asks and notes about access: whether a client is banned, and who has changed what.

use std::net::IpAddr;

use super::Core;
use crate::{auth::ClientCertificate, control::AuditEntry, mqtt::Connect};

impl Core {
    /// Returns whether a client is kept out by what it says of itself, which is not proven yet.
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

    /// Notes a change in the audit log.
    pub(crate) fn note_audit(&self, entry: AuditEntry) {
        let entries_max = self.limits_now().audit_entries_max as usize;
        self.audit.note(entry, entries_max, self.clock.now());
    }
}
