//! A refused CONNECT: its CONNACK, its metric and its log line.
//!
//! The handshake and the exchange of AUTH packets create it.

use std::fmt::Display;

use super::{refused::Refused, tls::ClientCertificateError};
use crate::{
    auth::AuthenticationError,
    metrics::ConnectRefusal,
    mqtt::{Connect, ProtocolVersion, ReasonCode, refusal_version},
    shard::{Core, RefusalAnswer},
    told::Subject,
};

/// A refused CONNECT.
pub(super) struct Refusal {
    /// The content of the CONNACK; `None` if none is sent.
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

    /// Adds a reason for the log.
    pub(super) fn told(mut self, why: &impl Display) -> Self {
        self.refused.why = Some(why.to_string());
        self
    }

    /// Adds a Reason String for the client.
    pub(super) const fn because(mut self, why: &'static str) -> Self {
        if let Some(answer) = &mut self.answer {
            answer.why = Some(why);
        }
        self
    }

    /// Refuses because the broker has reached its limit of connections.
    pub(super) const fn for_want_of_places(
        version: ProtocolVersion,
        counted_as: ConnectRefusal,
    ) -> Self {
        Self::with(version, ReasonCode::ServerBusy, counted_as)
            .because("the broker has reached its limit of connections")
    }

    /// Refuses because the broker is ending.
    pub(super) const fn for_the_end(version: ProtocolVersion) -> Self {
        Self::with(version, ReasonCode::ServerUnavailable, ConnectRefusal::ShuttingDown)
    }

    /// Refuses because the address sends CONNECTs too fast.
    pub(super) fn for_rate(connect: &[u8], counted_as: ConnectRefusal) -> Self {
        let version = refusal_version(connect).unwrap_or(ProtocolVersion::V3_1_1);
        Self::with(version, ReasonCode::ConnectionRateExceeded, counted_as)
            .because("this address sends CONNECTs too fast")
    }

    /// Refuses because the incomplete large packets of all clients have reached their memory limit.
    /// Only MQTT 5.0 has a Reason Code for this.
    pub(super) const fn for_want_of_room() -> Self {
        let counted_as = ConnectRefusal::IncompletePacketBytesMax;
        Self::with(ProtocolVersion::V5, ReasonCode::QuotaExceeded, counted_as)
            .because("too many large packets are incomplete")
    }

    /// Refuses because the client, its user or its address is banned.
    pub(super) const fn banned(version: ProtocolVersion) -> Self {
        Self::with(version, ReasonCode::Banned, ConnectRefusal::Banned)
    }

    /// Refuses because the credentials are wrong or cannot be checked.
    pub(super) fn of_credentials(version: ProtocolVersion, error: &AuthenticationError) -> Self {
        // An unknown user (`NotMine` at the end of the chain) gets the code of a wrong password.
        let code = match error {
            AuthenticationError::BadCredentials
            | AuthenticationError::NotMine
            | AuthenticationError::OtherThanCertificate => ReasonCode::BadUserNameOrPassword,
            AuthenticationError::TooManyAttempts { .. } => ReasonCode::ConnectionRateExceeded,
            AuthenticationError::NotAllowed | AuthenticationError::NoAccount => {
                ReasonCode::NotAuthorized
            }
            AuthenticationError::Unavailable | AuthenticationError::Failed(_) => {
                ReasonCode::ServerUnavailable
            }
        };
        // The error itself goes to the log alone. Clients
        // learn only reasons that reveal no account.
        let refusal = Self::with(version, code, ConnectRefusal::BadCredentials).told(error);
        match error {
            AuthenticationError::TooManyAttempts { .. } => refusal.locked_out().because(
                "too many failed attempts from this address, of this user or in total; try again \
                 later",
            ),
            AuthenticationError::OtherThanCertificate => {
                refusal.because("the user name is not the Common Name of the certificate")
            }
            AuthenticationError::NoAccount => {
                refusal.because("the Common Name of the certificate has no account")
            }
            AuthenticationError::BadCredentials
            | AuthenticationError::NotMine
            | AuthenticationError::NotAllowed
            | AuthenticationError::Unavailable
            | AuthenticationError::Failed(_) => refusal,
        }
    }

    /// Limits the answer to the client's Maximum Packet Size.
    pub(super) const fn keep_within(&mut self, packet_bytes_max: Option<u32>) {
        if let (Some(answer), Some(maximum)) = (&mut self.answer, packet_bytes_max) {
            answer.packet_bytes_max = maximum;
        }
    }

    pub(super) const fn locked_out(mut self) -> Self {
        self.refused.is_locked_out = true;
        self
    }

    /// Refuses a client whose certificate is trusted but has no usable Common Name, which is needed
    /// to identify the client.
    pub(super) fn of_certificate(connect: &Connect<'_>, error: &ClientCertificateError) -> Self {
        Self::with(connect.version, ReasonCode::NotAuthorized, ConnectRefusal::BadCredentials)
            .because(error.why())
            .told(error)
    }

    /// Writes the refusal to the log.
    pub(super) fn tell(&self, core: &Core, subject: &Subject<'_>) {
        let why = self.answer.as_ref().and_then(|answer| answer.why);
        self.refused.tell(core, subject, why);
    }
}

#[cfg(test)]
mod tests {
    //! Refusals of credentials.

    use super::Refusal;
    use crate::{
        auth::{AuthenticationError, AuthenticationFault},
        mqtt::ProtocolVersion,
    };

    #[test]
    fn the_log_names_the_cause_of_a_login_that_could_not_be_checked_and_the_client_does_not_see_it()
    {
        let error = AuthenticationError::from(AuthenticationFault::new("the database has gone"));
        let refusal = Refusal::of_credentials(ProtocolVersion::V5, &error);
        let why = "credentials cannot be checked now: the database has gone";
        assert_eq!(refusal.refused.why.as_deref(), Some(why));
        assert!(refusal.answer.is_some_and(|answer| answer.why.is_none()));
    }
}
