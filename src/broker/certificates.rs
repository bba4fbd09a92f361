//! The certificates of clients: lists those of connections, and keeps those that an operator has
//! revoked.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Broker;
use crate::{
    auth::RevokedCertificates,
    control::{
        CertificatePage, CertificatePin, CertificatePlace, CertificatesChanged, CertificatesError,
        ClientCertificates, ListPins, ListRevoked, RevokedCertificate,
    },
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError},
};

/// The namespace of the records; a key is a serial number, a colon and the issuer.
const NAMESPACE: &str = "revoked-certificates";
/// Maximum number of revoked certificates. Each takes about 1 KiB of memory at most.
const REVOKED_MAX: usize = 100_000;

/// The content of a record, in JSON.
#[derive(Deserialize, Serialize)]
struct RevokedContent {
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Broker {
    /// Returns the certificates that an operator has revoked. The listeners of the broker refuse them; give
    /// the set to a [`TlsSource`](crate::net::tls::TlsSource) of other servers.
    #[must_use]
    pub fn revoked_certificates(&self) -> &RevokedCertificates {
        &self.running.core.certificates.revoked
    }

    /// Lets listeners refuse certificates that callers have revoked.
    #[cfg(feature = "tls")]
    pub(super) fn refuse_revoked(&self, listeners: &[crate::net::Listener]) {
        listeners.iter().for_each(|one| one.refuse_revoked(self.revoked_certificates()));
    }

    /// Reads the revoked certificates, before any client can connect.
    pub(super) async fn restore_revoked(&self) {
        let core = &self.running.core;
        let mut after: Option<String> = None;
        loop {
            let found =
                core.records.list(NAMESPACE, after.as_deref(), ListRevoked::LIMIT_MAX).await;
            let found = found.unwrap_or_default();
            for (name, _) in &found {
                if let Some((serial_number, issuer)) = name.key().split_once(':') {
                    core.certificates.revoked.insert(issuer, serial_number);
                }
            }
            // A full page means that there may be another one behind it.
            match found.last() {
                Some((name, _)) if found.len() == ListRevoked::LIMIT_MAX => {
                    after = Some(name.key().to_owned());
                }
                _ => return,
            }
        }
    }
}

fn name_of(certificate: &RevokedCertificate) -> Result<RecordKey, CertificatesError> {
    let RevokedCertificate { serial_number, issuer, .. } = certificate;
    let name = RecordKey::new(NAMESPACE, &format!("{serial_number}:{issuer}"));
    name.ok_or(CertificatesError::Unavailable)
}

fn parse((name, record): &(RecordKey, Record)) -> Option<RevokedCertificate> {
    let (serial_number, issuer) = name.key().split_once(':')?;
    let RevokedContent { at, by, reason } = serde_json::from_slice(&record.value).ok()?;
    let mut found = RevokedCertificate::new(issuer, serial_number)?;
    (found.revoked_at, found.by, found.reason) = (Timestamp(at), by, reason);
    Some(found)
}

const fn failure(_: RecordsError) -> CertificatesError {
    CertificatesError::Unavailable
}

#[async_trait]
impl ClientCertificates for Broker {
    fn connected_certificates(
        &self,
        after: Option<&CertificatePlace>,
        limit: usize,
    ) -> CertificatePage {
        self.running.core.certificates.connected.list(after, limit)
    }

    async fn list_revoked(
        &self,
        request: ListRevoked,
    ) -> Result<Vec<RevokedCertificate>, CertificatesError> {
        let limit = request.limit.min(ListRevoked::LIMIT_MAX);
        let records = &self.running.core.records;
        let found = records.list(NAMESPACE, request.after.as_deref(), limit).await;
        Ok(found.map_err(failure)?.iter().filter_map(parse).collect())
    }

    async fn revoke(
        &self,
        certificate: RevokedCertificate,
    ) -> Result<CertificatesChanged, CertificatesError> {
        let core = &self.running.core;
        let name = name_of(&certificate)?;
        let RevokedCertificate { issuer, serial_number, reason, by, .. } = &certificate;
        // A repeated call only replaces the reason, so it needs no room.
        let was_revoked = core.records.committed(&name).is_some();
        if !was_revoked && core.certificates.revoked.len() >= REVOKED_MAX {
            return Err(CertificatesError::TooMany);
        }
        let at = core.clock.now().millis();
        let content = RevokedContent { at, by: by.clone(), reason: reason.clone() };
        let value = serde_json::to_vec(&content).map_err(|_| CertificatesError::Unavailable)?;
        core.records.put(Put::new(name, value)).await.map_err(failure)?;
        // Before the connections are counted, so that handshakes with it fail from now on.
        core.certificates.revoked.insert(issuer, serial_number);
        let is_it = |shown: &crate::control::ConnectedCertificate| {
            shown.serial_number == *serial_number && shown.issuer == *issuer
        };
        let connections = core.certificates.connected.count(is_it);
        // Also without such a connection: a certificate of an authority may be revoked.
        self.recheck().await;
        Ok(CertificatesChanged::new(was_revoked, connections))
    }

    async fn list_pins(&self, request: ListPins) -> Result<Vec<CertificatePin>, CertificatesError> {
        let limit = request.limit.min(ListPins::LIMIT_MAX);
        Ok(self.running.core.pins.list(request.after.as_deref(), limit))
    }

    async fn find_pin(&self, client_id: &str) -> Result<Option<CertificatePin>, CertificatesError> {
        Ok(self.running.core.pins.find(client_id))
    }

    async fn remove_pin(
        &self,
        client_id: &str,
    ) -> Result<Option<CertificatePin>, CertificatesError> {
        self.running.core.pins.remove(client_id).await.map_err(failure)
    }

    async fn restore_certificate(
        &self,
        certificate: RevokedCertificate,
    ) -> Result<CertificatesChanged, CertificatesError> {
        let core = &self.running.core;
        let name = name_of(&certificate)?;
        let was_revoked = core.records.committed(&name).is_some();
        core.records.remove(name, Expected::Any).await.map_err(failure)?;
        core.certificates.revoked.remove(&certificate.issuer, &certificate.serial_number);
        Ok(CertificatesChanged::new(was_revoked, 0))
    }
}
