//! The request that ends a client's connection, and its options.
//!
//! Checks what can be sent to the client. Does not know the connection.

use std::sync::Arc;

use crate::mqtt::ReasonCode;

/// Ends a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kick {
    /// The client whose connection ends.
    pub client_id: String,
    /// How it ends.
    pub options: KickOptions,
    /// The user name of the caller, for the history of the client.
    pub by: Option<Arc<str>>,
}

impl Kick {
    /// Returns the request to end the connection of this client, by nobody in particular.
    pub fn new(client_id: impl Into<String>, options: KickOptions) -> Self {
        Self { client_id: client_id.into(), options, by: None }
    }

    /// Returns the request with the user name of the caller, which the history of the client names.
    #[must_use]
    pub fn by(mut self, username: impl Into<Arc<str>>) -> Self {
        self.by = Some(username.into());
        self
    }
}

/// How [`Kick`] ends a connection: by default the session stays, the Will is published, and an MQTT
/// 5.0 client receives DISCONNECT with Administrative action (0x98).
///
/// ```
/// use hearthmq::{control::{KickOptions, WillRequest}, mqtt::ReasonCode};
///
/// # fn main() -> Result<(), hearthmq::Error> {
/// let options = KickOptions::new()
///     .end_session()
///     .will(WillRequest::Discard)
///     .reason_code(ReasonCode::ServerBusy)?
///     .reason_string("come back after the maintenance")?;
/// # let _ = options;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "options do nothing before they are used"]
pub struct KickOptions {
    pub(crate) ends_session: bool,
    pub(crate) will: WillRequest,
    pub(crate) reason_code: ReasonCode,
    pub(crate) reason_string: Option<Arc<str>>,
}

impl Default for KickOptions {
    fn default() -> Self {
        Self {
            ends_session: false,
            will: WillRequest::Publish,
            reason_code: ReasonCode::AdministrativeAction,
            reason_string: None,
        }
    }
}

impl KickOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the session as well, whatever its Session Expiry Interval.
    pub const fn end_session(mut self) -> Self {
        self.ends_session = true;
        self
    }

    /// Returns whether the session ends as well.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        self.ends_session
    }

    /// Returns what the broker does with the client's Will.
    #[must_use]
    pub const fn will_request(&self) -> WillRequest {
        self.will
    }

    /// Returns the Reason String of DISCONNECT.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason_string.as_deref()
    }

    /// Sets what the broker does with the client's Will.
    pub const fn will(mut self, will: WillRequest) -> Self {
        self.will = will;
        self
    }

    /// Sets the Reason Code of DISCONNECT.
    ///
    /// # Errors
    /// A server cannot send this code in DISCONNECT.
    pub fn reason_code(mut self, code: ReasonCode) -> Result<Self, KickReasonError> {
        if !code.is_of_server_disconnect() {
            return Err(KickReasonError::Code(code));
        }
        self.reason_code = code;
        Ok(self)
    }

    /// Sets the Reason String of DISCONNECT: a text for people, not for programs. A client that does
    /// not want it, or whose Maximum Packet Size it exceeds, receives the Reason Code alone.
    ///
    /// # Errors
    /// The text has more than 65,535 bytes or contains U+0000.
    pub fn reason_string(mut self, text: &str) -> Result<Self, KickReasonError> {
        if text.len() > usize::from(u16::MAX) || text.contains('\0') {
            return Err(KickReasonError::String);
        }
        self.reason_string = Some(text.into());
        Ok(self)
    }
}

/// The reason for the end of a connection cannot be sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KickReasonError {
    /// A server may not send the Reason Code in DISCONNECT. [MQTT-3.14.2-1]
    #[error("reason code 0x{:02x} is not allowed in a server's DISCONNECT", .0.number())]
    Code(ReasonCode),
    /// The Reason String is not an MQTT string.
    #[error("a reason string has at most 65535 bytes of UTF-8 and no null character")]
    String,
}

/// How the broker treats a Will when it ends the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WillRequest {
    /// Publishes the Will, as after any end that the client did not ask for.
    #[default]
    Publish,
    /// Drops the Will.
    Discard,
}

/// The end of a connection that the client had, or of the session of an absent client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kicked {
    /// The node that had the connection, or the session of an absent client.
    pub node: Arc<str>,
    /// Whether the client was connected.
    pub was_online: bool,
    /// Whether the session has ended.
    pub session_ended: bool,
    /// The outcome for the Will.
    pub will: WillOutcome,
}

impl Kicked {
    /// Returns the end of a connection of this node, without a Will. The session stays.
    pub fn new(node: impl Into<Arc<str>>) -> Self {
        let will = WillOutcome::Absent;
        Self { node: node.into(), was_online: true, session_ended: false, will }
    }
}

/// The outcome for the Will of a client whose connection or session a caller has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WillOutcome {
    /// The client had no Will.
    Absent,
    /// The broker has published it.
    Published,
    /// The client may not publish it any more, so the broker has dropped it.
    Denied,
    /// It waits for its Will Delay Interval.
    Waits,
    /// The broker has dropped it, because the caller asked for that.
    Discarded,
}
