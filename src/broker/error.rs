//! The errors of the broker, and any error of the library as one type.

use std::{fmt, io};

#[cfg(feature = "accounts")]
use crate::auth::FileError;
#[cfg(feature = "bridge")]
use crate::bridge::BridgeError;
#[cfg(feature = "tls")]
use crate::net::tls::TlsError;
#[cfg(feature = "otlp")]
use crate::otlp::OtlpError;
#[cfg(feature = "webhooks")]
use crate::webhooks::WebhookError;
use crate::{
    auth::{AuthenticationError, NetworkError},
    control::{ClientPatternError, ControlError, KickReasonError, ServerReferenceError},
    mqtt::{PublicationError, TopicError},
    records::RecordsError,
    store::StoreError,
};

/// Any error of the library, for a function that only passes errors on, such as `main`.
///
/// Each error of the library becomes one by `?`. Its `Debug` is its text, because that is what the
/// end of `main` prints.
#[derive(thiserror::Error)]
#[error(transparent)]
#[non_exhaustive]
pub enum Error {
    /// The broker did not start.
    Start(#[from] StartError),
    /// A request about live clients failed.
    Control(#[from] ControlError),
    /// A message was not published.
    Publish(#[from] PublishError),
    /// A message is invalid.
    Publication(#[from] PublicationError),
    /// A Topic Name or Topic Filter is invalid.
    Topic(#[from] TopicError),
    /// The store failed.
    Store(#[from] StoreError),
    /// A record was not read or written.
    Records(#[from] RecordsError),
    /// Credentials were not accepted.
    Authentication(#[from] AuthenticationError),
    /// A text is not a network.
    Network(#[from] NetworkError),
    /// A text is not a pattern for client identifiers.
    ClientPattern(#[from] ClientPatternError),
    /// A reason cannot be sent in DISCONNECT.
    KickReason(#[from] KickReasonError),
    /// A text is not a Server Reference.
    ServerReference(#[from] ServerReferenceError),
    /// A file of accounts or rules cannot be used.
    #[cfg(feature = "accounts")]
    File(#[from] FileError),
    /// TLS cannot be set up.
    #[cfg(feature = "tls")]
    Tls(#[from] TlsError),
    /// A bridge cannot be used.
    #[cfg(feature = "bridge")]
    Bridge(#[from] BridgeError),
    /// A webhook is invalid.
    #[cfg(feature = "webhooks")]
    Webhook(#[from] WebhookError),
    /// Nothing can be exported.
    #[cfg(feature = "otlp")]
    Otlp(#[from] OtlpError),
    /// The operating system refused something.
    Io(#[from] io::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a broker did not start. No part of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address is malformed or cannot be resolved.
    #[error(
        "cannot find the address {address}: {source}; give it as IP:PORT, for example 127.0.0.1:1883"
    )]
    Address {
        /// The address as configured.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The broker cannot listen on an address, or on the path of a Unix socket.
    #[error("cannot listen on {address}: {source}; {}", remedy(source))]
    Listen {
        /// The address as configured.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The prefix cannot start a topic.
    #[error("response_topic_prefix is not usable: {0}; write one like \"responses/\"")]
    ResponseTopicPrefix(TopicError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes the store cannot be started.
    #[error("cannot start the thread of the store: {0}; see the limits of the process")]
    StoreThread(#[source] io::Error),
    /// The thread of the cluster cannot be started.
    #[cfg(feature = "cluster")]
    #[error("cannot start the thread of the cluster: {0}; see the limits of the process")]
    ClusterThread(#[source] io::Error),
    /// A bridge cannot be used.
    #[cfg(feature = "bridge")]
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// A webhook cannot be used.
    #[cfg(feature = "webhooks")]
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The export of metrics and traces cannot start.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// There is no actix `System` on this thread.
    #[error(
        "no actix System runs on this thread; start the broker inside #[actix_web::main] or System::block_on"
    )]
    NoSystem,
}

/// Returns advice for an address that the broker cannot listen on.
fn remedy(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "stop what uses it or choose another"
    } else if kind == io::ErrorKind::NotFound {
        "make its directory or choose another"
    } else if kind == io::ErrorKind::PermissionDenied {
        "choose another (a port above 1023, a directory that may be written) or allow it"
    } else {
        "choose another"
    }
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is invalid.
    #[error(transparent)]
    Publication(#[from] PublicationError),
    /// The topic is longer than `topic_bytes_max` or deeper than `topic_levels_max`.
    #[error("topic is longer or deeper than the broker's limits allow")]
    TopicOverLimits,
    /// The broker has been shut down.
    #[error("broker has been shut down")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> Result<(), Error> {
        Err(ControlError::NotOnline)?
    }

    #[test]
    fn main_prints_the_sentence_of_an_error() {
        let error = fails().unwrap_err();
        assert_eq!(format!("{error:?}"), "client is not connected");
        let cause = Error::from(StoreError::Full { path: "data".into() });
        assert!(format!("{cause:?}").starts_with("the disk with data is full"));
    }
}
