//! Compares the certificate of a client with the one that is pinned to its client identifier.
//!
//! Called by the handshake after the client may connect, so that a stranger neither learns of pins nor
//! makes any.

use super::{newcomer::Newcomer, refusal::Refusal};
use crate::{
    metrics::ConnectRefusal,
    mqtt::{ProtocolVersion, ReasonCode},
    shard::pins::{PinOutcome, PinRefusal, pin_bounds},
    told::Subject,
};

impl Newcomer<'_> {
    /// Pins the certificate of a client to its identifier, or refuses the client if another one is
    /// pinned. An identifier that the broker has assigned has no pin.
    pub(super) async fn check_pin(
        &mut self,
        client_id: &str,
        version: ProtocolVersion,
        is_assigned: bool,
    ) -> Result<(), Refusal> {
        if !self.logins.pin_certificates || is_assigned {
            return Ok(());
        }
        let (core, refused) = (self.core, |refusal| refusal_of(version, refusal));
        let facts = self.transport.tls().and_then(|tls| tls.certificate);
        let (Some(certificate), Some(facts)) = (self.certificate, facts) else {
            // Without a certificate, only identifiers without a pin are free.
            let is_pinned = core.pins.find(client_id).is_some();
            return if is_pinned { Err(refused(PinRefusal::Missing)) } else { Ok(()) };
        };
        let (name, bounds) = (certificate.common_name.as_str(), pin_bounds(&core.limits_now()));
        let compared = core.pins.compare(client_id, (name, &facts), bounds, core.clock.now());
        // A first pin is stored before the client is accepted, and the store may be slow.
        let compared = tokio::time::timeout_at(self.connect_by, self.admitted.ask(compared)).await;
        let outcome = compared.unwrap_or(Err(PinRefusal::Unavailable)).map_err(|refusal| {
            let shown = &facts.serial_number;
            match refusal {
                // The serial number is for the log alone: it
                // tells the operator which certificate was tried.
                PinRefusal::Other => refused(refusal)
                    .told(&format_args!("{OTHER}; the one shown has the serial number {shown}")),
                PinRefusal::Missing
                | PinRefusal::TooLong
                | PinRefusal::Full
                | PinRefusal::ShareFull
                | PinRefusal::Unavailable => refused(refusal),
            }
        })?;
        if outcome == PinOutcome::First {
            let subject =
                Subject { client_id: Some(client_id), user: Some(name), ..self.stranger() };
            core.told.certificate_pinned(&subject, &facts.serial_number);
        }
        Ok(())
    }

    fn stranger(&self) -> Subject<'_> {
        Subject::stranger(self.peer, self.listener)
    }
}

const OTHER: &str = "another certificate is pinned to this client identifier";

fn refusal_of(version: ProtocolVersion, refusal: PinRefusal) -> Refusal {
    use ConnectRefusal::{CertificatePinsMax, ClientIdentifier, NotAuthorized, Store};
    let (code, counted_as, why) = match refusal {
        PinRefusal::Other => (ReasonCode::NotAuthorized, NotAuthorized, OTHER),
        PinRefusal::Missing => (
            ReasonCode::NotAuthorized,
            NotAuthorized,
            "a certificate is pinned to this client identifier, and the client has shown none",
        ),
        PinRefusal::TooLong => (
            ReasonCode::ClientIdentifierNotValid,
            ClientIdentifier,
            "the client identifier is too long for a certificate to be pinned to it",
        ),
        PinRefusal::Full => (
            ReasonCode::QuotaExceeded,
            CertificatePinsMax,
            "the broker has as many pinned certificates as it may have",
        ),
        PinRefusal::ShareFull => (
            ReasonCode::QuotaExceeded,
            CertificatePinsMax,
            "the user has as many pinned certificates as it may have",
        ),
        PinRefusal::Unavailable => {
            (ReasonCode::ServerUnavailable, Store, "the certificate cannot be pinned now")
        }
    };
    Refusal::with(version, code, counted_as).because(why)
}
