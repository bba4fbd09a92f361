//! The reasons for which a broker does not start, from its configuration to its listeners.

use std::{io, net::SocketAddr};

use hearthmq::{
    auth::FileError,
    broker,
    config::{BridgeFileError, OtlpConfigError, WebhookFileError},
    net::tls::TlsError,
};

use super::{crl::NoList, sources::SourceError};

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("cannot listen on {address}: {source}; free it, or set another address in {key}")]
    Listen { address: SocketAddr, key: &'static str, source: io::Error },
    #[error(transparent)]
    Broker(#[from] broker::StartError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    NoList(#[from] NoList),
    #[error(transparent)]
    Bridge(#[from] BridgeFileError),
    #[error(transparent)]
    Webhook(#[from] WebhookFileError),
    #[error(transparent)]
    Otlp(#[from] OtlpConfigError),
    #[cfg(feature = "cluster")]
    #[error("[cluster] {0}")]
    Cluster(#[from] hearthmq::config::ClusterOptionError),
    #[error("cannot serve http: {0}; see the log")]
    Http(#[source] io::Error),
    #[error("cannot receive signals: {0}; see the limits of the process")]
    Signals(#[source] io::Error),
    #[error("cannot start the thread of the log: {0}; see the limits of the process")]
    Log(#[source] io::Error),
}
