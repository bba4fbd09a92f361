//! Certificates that are pinned to client identifiers: records that a CONNECT looks up in memory.
//!
//! The first certificate that a client identifier shows is pinned: its public key is stored, and only
//! certificates with this key are accepted for the client identifier from then on. If two connections show the first
//! certificate at the same time, the store accepts one pin; the other connection waits for it and is compared with it.
//! Knows neither TLS nor connections. Called by the handshake, and by the calls that list and remove pins.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    control::{CertificateFacts, CertificatePin},
    durable::{NoRoom, RecordAmount, RecordBounds, RecordTally, StoredRecords},
    limits::Limits,
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _, RecordsError},
};

/// The namespace of the records; their keys are Client Identifiers.
const NAMESPACE: &str = "certificate-pins";
/// Maximum bytes of a subject or an issuer in a record; the rest is cut off.
const NAME_BYTES_MAX: usize = 1_024;
/// Bytes that a pin may take on average. Their sum is bounded, so long identifiers leave room for fewer.
const BYTES_PER_PIN: u64 = 1_024;

/// The pins of a broker.
pub(crate) struct PinTable {
    records: Arc<StoredRecords>,
    tally: Arc<RecordTally>,
}

/// Why a client is refused because of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinRefusal {
    /// Another certificate is pinned.
    Other,
    /// A certificate is pinned, and the client has shown none.
    Missing,
    /// The client identifier is longer than the key of a record.
    TooLong,
    /// The number of pins has reached its limit.
    Full,
    /// The pins of the user have reached its share.
    ShareFull,
    /// Pins cannot be stored now.
    Unavailable,
}

/// The result of comparing a certificate with its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinOutcome {
    /// It was pinned before.
    Known,
    /// It is pinned from now on.
    First,
}

/// The content of a record, in JSON.
#[derive(Deserialize, Serialize)]
struct PinContent {
    key: Box<str>,
    user: Arc<str>,
    subject: Box<str>,
    issuer: Box<str>,
    serial_number: Box<str>,
    at: u64,
}

impl PinTable {
    pub(crate) fn new(records: Arc<StoredRecords>) -> Self {
        let tally = records.tally(NAMESPACE, user_of);
        Self { records, tally }
    }

    /// Returns the pin of a client identifier, as it was last stored.
    pub(crate) fn find(&self, client_id: &str) -> Option<CertificatePin> {
        if self.tally.is_empty() {
            return None;
        }
        let name = RecordKey::new(NAMESPACE, client_id)?;
        parse(&name, &self.records.committed(&name)?)
    }

    /// Compares a certificate with the pin of its client identifier, and pins it if there is none.
    ///
    /// # Errors
    /// Another certificate is pinned, or this one cannot be pinned.
    pub(crate) async fn compare(
        &self,
        client_id: &str,
        (username, facts): (&str, &CertificateFacts),
        bounds: RecordBounds,
        now: Timestamp,
    ) -> Result<PinOutcome, PinRefusal> {
        let mut watch = None;
        loop {
            // The copy in memory follows the store, so this is the normal path and costs no wait.
            if let Some(pin) = self.find(client_id) {
                let is_same = pin.public_key == facts.public_key;
                return is_same.then_some(PinOutcome::Known).ok_or(PinRefusal::Other);
            }
            let name = RecordKey::new(NAMESPACE, client_id).ok_or(PinRefusal::TooLong)?;
            // Made only if there is no pin; the loop then looks into the table again.
            let Some(watching) = &mut watch else {
                // Before the record is looked up again, so that no change is missed.
                watch = Some(self.records.watch(NAMESPACE));
                continue;
            };
            match self.pin(name, (username, facts), bounds, now).await {
                Ok(()) => return Ok(PinOutcome::First),
                // Another connection pins at this moment: its record is on the way to the store.
                Err(None) => drop(watching.next().await),
                Err(Some(refusal)) => return Err(refusal),
            }
        }
    }

    /// Stores a pin; fails with `None` if another pin is stored, or on its way to the store.
    async fn pin(
        &self,
        name: RecordKey,
        (username, facts): (&str, &CertificateFacts),
        bounds: RecordBounds,
        now: Timestamp,
    ) -> Result<(), Option<PinRefusal>> {
        let content = PinContent {
            key: facts.public_key.as_str().into(),
            user: username.into(),
            subject: cut(&facts.subject).into(),
            issuer: cut(&facts.issuer).into(),
            serial_number: facts.serial_number.as_str().into(),
            at: now.millis(),
        };
        let value = serde_json::to_vec(&content).map_err(|_| PinRefusal::Unavailable)?;
        // Reserved before the write and released with this guard, so simultaneous first pins cannot
        // exceed a share.
        let _room =
            self.tally.reserve(&name, None, &value, bounds).map_err(|no_room| match no_room {
                NoRoom::Full => PinRefusal::Full,
                NoRoom::ShareFull => PinRefusal::ShareFull,
            })?;
        // The store decides which of two simultaneous first certificates is pinned.
        let put = Put::new(name, value).expecting(Expected::Absent);
        match self.records.put(put).await {
            Ok(_) => Ok(()),
            Err(RecordsError::Conflict(_)) => Err(None),
            Err(RecordsError::TooLong | RecordsError::Unavailable) => {
                Err(Some(PinRefusal::Unavailable))
            }
        }
    }

    /// Returns some pins in the order of their client identifiers, those behind `after`.
    pub(crate) fn list(&self, after: Option<&str>, limit: usize) -> Vec<CertificatePin> {
        let found = self.records.page(NAMESPACE, after, limit);
        found.iter().filter_map(|(name, record)| parse(name, record)).collect()
    }

    /// Removes the pin of a client identifier; returns the pin, if there was one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn remove(
        &self,
        client_id: &str,
    ) -> Result<Option<CertificatePin>, RecordsError> {
        let Some(former) = self.find(client_id) else { return Ok(None) };
        if let Some(name) = RecordKey::new(NAMESPACE, client_id) {
            self.records.remove(name, Expected::Any).await?;
        }
        Ok(Some(former))
    }
}

/// Returns how many pins there may be, in all and of one user.
pub(crate) fn pin_bounds(limits: &Limits) -> RecordBounds {
    let amount = |pins: u64| RecordAmount { records: pins, bytes: pins * BYTES_PER_PIN };
    let all = u64::from(limits.certificate_pins_max);
    let share = match limits.certificate_pins_per_user_max {
        0 => all.div_ceil(4),
        own => own.into(),
    };
    RecordBounds { all: amount(all), share: Some(amount(share)) }
}

fn user_of(value: &[u8]) -> Option<Arc<str>> {
    serde_json::from_slice::<PinContent>(value).ok().map(|content| content.user)
}

fn parse(name: &RecordKey, record: &Record) -> Option<CertificatePin> {
    let content: PinContent = serde_json::from_slice(&record.value).ok()?;
    let mut pin = CertificatePin::new(name.key(), &content.key);
    pin.username = content.user;
    (pin.subject, pin.issuer) = (content.subject.into(), content.issuer.into());
    pin.serial_number = content.serial_number.into();
    pin.pinned_at = Timestamp(content.at);
    Some(pin)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}
