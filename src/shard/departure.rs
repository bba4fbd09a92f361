//! How a connection ends.

use crate::{hooks::DisconnectReason, mqtt::ReasonCode};

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) reason: DisconnectReason,
    /// For the DISCONNECT that the client is sent, if it is sent one.
    pub(crate) code: Option<ReasonCode>,
    /// Why, in words, for a client that wants to hear it.
    pub(crate) why: Option<&'static str>,
    /// Whether the Will is due. [MQTT-3.1.2-8] [MQTT-3.1.2-10]
    pub(crate) publishes_will: bool,
    /// Whether the session ends now, whatever its Session Expiry Interval.
    pub(crate) ends_session: bool,
    /// Whether another connection goes on with the session at once: a delayed Will is not sent.
    pub(crate) is_resumed: bool,
}

impl Departure {
    /// The broker ends.
    pub(crate) const SERVER_SHUTDOWN: Self =
        Self::by_server(DisconnectReason::ServerShutdown, ReasonCode::ServerShuttingDown);

    /// An end that the client did not announce.
    pub(crate) const fn unannounced(reason: DisconnectReason) -> Self {
        Self {
            reason,
            code: None,
            why: None,
            publishes_will: true,
            ends_session: false,
            is_resumed: false,
        }
    }

    /// The broker ends the connection and says why.
    pub(crate) const fn by_server(reason: DisconnectReason, code: ReasonCode) -> Self {
        let mut departure = Self::unannounced(reason);
        departure.code = Some(code);
        departure
    }

    /// Whether the client has taken its leave, or is gone.
    pub(crate) const fn is_by_client(&self) -> bool {
        self.code.is_none()
            && matches!(self.reason, DisconnectReason::Normal | DisconnectReason::TcpClosed)
    }

    /// The same departure with the clause that was broken.
    pub(crate) const fn because(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }
}
