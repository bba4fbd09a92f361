//! A CONNECT that is not accepted: what the client is told, how it is counted and told of.
//!
//! Made by the handshake and by the exchange of AUTH packets, from what they have found.

use std::fmt::Display;

use super::{refused::Refused, tls::ClientCertificateError};
use crate::{
    actors::{Core, RefusalAnswer},
    auth::AuthenticationError,
    metrics::ConnectRefusal,
    mqtt::{Connect, ProtocolVersion, ReasonCode, refusal_version},
    told::Subject,
};

/// A CONNECT that is not accepted.
pub(super) struct Refusal {
    /// For the CONNACK; `None` where none is to be sent.
    pub(super) answer: Option<RefusalAnswer>,
    pub(super) refused: Refused,
}

impl Refusal {
    pub(super) const fn silent(counted_as: ConnectRefusal) -> Self {
        Self { answer: None, refused: Refused::new(counted_as) }
    }

    pub(super) const fn with(
        version: ProtocolVersion,
        code: ReasonCode,
        counted_as: ConnectRefusal,
    ) -> Self {
        let answer = Some(RefusalAnswer::new(version, code));
        Self { answer, refused: Refused::new(counted_as) }
    }

    /// The same with more for the log.
    pub(super) fn told(mut self, why: &impl Display) -> Self {
        self.refused.why = Some(why.to_string());
        self
    }

    /// The same with a Reason String.
    pub(super) const fn because(mut self, why: &'static str) -> Self {
        if let Some(answer) = &mut self.answer {
            answer.why = Some(why);
        }
        self
    }

    /// The broker has as many connections as it may have.
    pub(super) const fn for_want_of_places(
        version: ProtocolVersion,
        counted_as: ConnectRefusal,
    ) -> Self {
        Self::with(version, ReasonCode::ServerBusy, counted_as)
            .because("the broker has as many connections as it may have")
    }

    /// CONNECTs of the address come too fast.
    pub(super) fn for_rate(connect: &[u8], counted_as: ConnectRefusal) -> Self {
        let version = refusal_version(connect).unwrap_or(ProtocolVersion::V3_1_1);
        Self::with(version, ReasonCode::ConnectionRateExceeded, counted_as)
            .because("CONNECTs of this address come too fast")
    }

    /// Large packets of all clients that are not whole take as much as they may. MQTT 5.0 alone
    /// has a word for it.
    pub(super) const fn for_want_of_room() -> Self {
        let counted_as = ConnectRefusal::IncompletePacketBytesMax;
        Self::with(ProtocolVersion::V5, ReasonCode::QuotaExceeded, counted_as)
            .because("too many large packets are incomplete")
    }

    /// The client is not who it says, or it cannot be found out.
    pub(super) fn of_credentials(version: ProtocolVersion, error: AuthenticationError) -> Self {
        let code = match error {
            AuthenticationError::BadCredentials | AuthenticationError::OtherThanCertificate => {
                ReasonCode::BadUserNameOrPassword
            }
            AuthenticationError::TooManyAttempts { .. } => ReasonCode::ConnectionRateExceeded,
            AuthenticationError::NotAllowed | AuthenticationError::NoAccount => {
                ReasonCode::NotAuthorized
            }
            AuthenticationError::Unavailable => ReasonCode::ServerUnavailable,
        };
        let refusal = Self::with(version, code, ConnectRefusal::BadCredentials).told(&error);
        match error {
            AuthenticationError::TooManyAttempts { .. } => refusal.locked_out().because(
                "too many failed attempts of this user from this address, or from there at all; \
                 try again later",
            ),
            AuthenticationError::OtherThanCertificate => {
                refusal.because("the user name is not the Common Name of the certificate")
            }
            AuthenticationError::NoAccount => {
                refusal.because("the Common Name of the certificate has no account")
            }
            AuthenticationError::BadCredentials
            | AuthenticationError::NotAllowed
            | AuthenticationError::Unavailable => refusal,
        }
    }

    /// Keeps the answer within the client's Maximum Packet Size.
    pub(super) const fn keep_within(&mut self, packet_bytes_max: Option<u32>) {
        if let (Some(answer), Some(maximum)) = (&mut self.answer, packet_bytes_max) {
            answer.packet_bytes_max = maximum;
        }
    }

    pub(super) const fn locked_out(mut self) -> Self {
        self.refused.is_locked_out = true;
        self
    }

    /// The client has shown a certificate that is trusted and does not say who it is. Another client
    /// would have to be told by the name in it.
    pub(super) fn of_certificate(connect: &Connect<'_>, error: &ClientCertificateError) -> Self {
        Self::with(connect.version, ReasonCode::NotAuthorized, ConnectRefusal::BadCredentials)
            .because(error.why())
            .told(error)
    }

    /// Puts it into the log.
    pub(super) fn tell(&self, core: &Core, subject: &Subject<'_>) {
        let why = self.answer.as_ref().and_then(|answer| answer.why);
        self.refused.tell(core, subject, why);
    }
}
