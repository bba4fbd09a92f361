//! The end of a connection: its reason and its consequences.

use std::sync::Arc;

use crate::{
    control::{KickOptions, LastEnd, WillRequest},
    hooks::DisconnectReason,
    mqtt::{ReasonCode, Timestamp},
};

/// How a connection ends.
#[derive(Clone, Debug)]
pub(crate) struct Departure {
    pub(crate) reason: DisconnectReason,
    /// The Reason Code of the DISCONNECT to the client; `None` for no DISCONNECT.
    pub(crate) code: Option<ReasonCode>,
    /// The Reason String, for a client that wants it.
    pub(crate) why: Option<&'static str>,
    /// Whether the Will is due. [MQTT-3.1.2-8] [MQTT-3.1.2-10]
    pub(crate) publishes_will: bool,
    /// Whether the session ends now, whatever its Session Expiry Interval.
    pub(crate) ends_session: bool,
    /// Whether another connection continues the session immediately, so that a delayed Will is not sent.
    pub(crate) is_resumed: bool,
    /// The user name of the caller that requested it.
    pub(crate) by: Option<Arc<str>>,
    /// Whether the network has dropped the connection.
    pub(crate) is_cut: bool,
}

impl Departure {
    /// The broker shuts down.
    pub(crate) const SERVER_SHUTDOWN: Self =
        Self::by_server(DisconnectReason::ServerShutdown, ReasonCode::ServerShuttingDown);

    /// The broker has lost its leases in the cluster: this life of the server has ended. CONNACK alone has Server
    /// unavailable (section 3.14.2.1).
    pub(crate) const FENCED: Self =
        Self::by_server(DisconnectReason::Fenced, ReasonCode::ServerShuttingDown);

    /// Returns a departure that the client did not announce.
    pub(crate) const fn unannounced(reason: DisconnectReason) -> Self {
        Self {
            reason,
            code: None,
            why: None,
            publishes_will: true,
            ends_session: false,
            is_resumed: false,
            by: None,
            is_cut: false,
        }
    }

    /// Returns a departure by which the broker ends the connection and says why.
    pub(crate) const fn by_server(reason: DisconnectReason, code: ReasonCode) -> Self {
        let mut departure = Self::unannounced(reason);
        departure.code = Some(code);
        departure
    }

    /// Returns the end of a connection that a caller has asked for; its DISCONNECT is written.
    pub(crate) fn kicked(options: &KickOptions, by: Option<Arc<str>>) -> Self {
        Self {
            by,
            publishes_will: options.will == WillRequest::Publish,
            ends_session: options.ends_session,
            ..Self::unannounced(DisconnectReason::Kicked)
        }
    }

    /// Returns the end of a connection whose client a caller sends to another server; its DISCONNECT
    /// is written.
    pub(crate) fn redirected(by: Option<Arc<str>>) -> Self {
        Self { by, ..Self::unannounced(DisconnectReason::Redirected) }
    }

    /// Returns whether the client has disconnected or is gone.
    pub(crate) const fn is_by_client(&self) -> bool {
        self.code.is_none()
            && matches!(self.reason, DisconnectReason::Normal | DisconnectReason::TcpClosed)
    }

    /// Returns the end as callers see it.
    pub(crate) fn as_last_end(&self, now: Timestamp) -> LastEnd {
        let mut end = LastEnd::new(self.reason, now.millis());
        end.by.clone_from(&self.by);
        end
    }

    /// Returns the same departure with the clause that the client broke.
    pub(crate) const fn because(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }
}
