//! Who a client or caller is once its credentials were accepted.
//!
//! Plain data. Made by authenticators, kept with sessions, read by authorizers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The subject of a client certificate that was verified by the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's Common Name.
    pub common_name: String,
    /// The serial number, in lower-case hexadecimal without separators.
    pub serial_number: String,
}

/// The result of a successful login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None` for a client that was admitted without a user name.
    pub username: Option<Arc<str>>,
    /// The certificate that the client presented, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// How the identity was proven.
    pub login: Login,
    /// For a certificate: whether the identity ends when the account of its Common Name is removed.
    pub needs_account: bool,
    /// The source of a [`Chain`](super::Chain) that has accepted the credentials; set by the chain.
    pub source: Option<Arc<str>>,
}

/// How an identity was proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Login {
    /// A user name and its password, over MQTT or by HTTP Basic.
    Password,
    /// A client certificate.
    Certificate,
    /// The method SCRAM-SHA-256.
    Scram,
    /// No proof: the client was admitted without credentials.
    Anonymous,
    /// A method of the embedding application.
    #[default]
    Other,
    /// Of a session that an earlier version of the broker has stored without it. A condition on it is
    /// neither kept nor broken. In no rule, no login and no event.
    #[serde(skip)]
    Unknown,
}
