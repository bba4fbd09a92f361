//! HearthMQ: an MQTT broker (3.1, 3.1.1 and 5.0) whose live sessions an application can control.
//!
//! It changes the Keep Alive of a connected client without disconnecting it, answers reliably
//! whether a client is online, and reports presence events in an unambiguous order.
//!
//! ```no_run
//! use hearthmq::{Broker, Error, auth::AllowAll, mqtt::QoS};
//!
//! #[actix::main]
//! async fn main() -> Result<(), Error> {
//!     let broker = Broker::builder()
//!         .tcp("127.0.0.1:1883")
//!         .authenticator(AllowAll)
//!         .authorizer(AllowAll)
//!         .start()
//!         .await?;
//!     broker.publish("hello/world", b"hi", QoS::AtLeastOnce, false).await?;
//!     if broker.online("car-17").await? {
//!         broker.set_keep_alive("car-17", 120).await?;
//!     }
//!     broker.shutdown(std::time::Duration::from_secs(10)).await;
//!     Ok(())
//! }
//! ```
//!
//! # Layout
//!
//! - [`broker`]: the [`Broker`] that an application holds, and how it is built. [`Error`] is any
//!   error of the library.
//! - [`control`], [`hooks`], [`metrics`]: its commands and queries, its events, its counters.
//! - [`http`]: the REST interface, as routes for an actix-web `App`.
//! - [`actors`]: the [`Registry`](actors::Registry) of each shard and the messages that it takes.
//! - [`auth`], [`store`]: traits for your own accounts, permissions and storage, and the built-in
//!   implementations.
//! - [`records`]: what operators and applications set, and a restart must not lose.
//! - [`mqtt`]: packets, and the nouns of the specification.
//! - [`net`], [`config`], [`limits`]: listeners and TLS, the program's configuration, the limits.
//! - [`told`]: which log lines about clients are written.
//! - `bridge`: connections to other brokers, with the feature of that name.
//! - `webhooks`: events of presence to HTTP endpoints, with the feature of that name.
//! - `otlp`: metrics and traces to an OpenTelemetry collector, with the feature of that name.
//!
//! - [`actix`], [`actix_web`], [`bytes`], [`rustls`] and [`tokio`] are crates whose types this API
//!   names, in the versions that it uses.
//!
//! # What stays
//!
//! The API in this documentation is a promise: a release that removes or changes a part of it has a new
//! second number (the first one from 1.0 on). Enums and structs that may grow are
//! `#[non_exhaustive]`. A struct of options may get more fields at any time: build it with
//! `..Default::default()`. What the documentation does not show, such as `internals`, may change in
//! every release.
//!
//! `docs/architecture.md` shows how they work together.

pub mod actors;
pub mod auth;
mod between;
#[cfg(feature = "bridge")]
pub mod bridge;
pub mod broker;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cli")]
pub mod config;
pub mod control;
mod durable;
mod feed;
mod flow;
mod history;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
mod journal;
pub(crate) mod labels;
pub mod limits;
pub mod metrics;
pub mod mqtt;
pub mod net;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "outbound")]
#[cfg_attr(
    not(any(feature = "http-auth", feature = "jwt", feature = "otlp", feature = "webhooks")),
    expect(dead_code, reason = "a database and a bridge need its TLS alone")
)]
mod outbound;
mod owners;
pub mod records;
mod router;
mod session;
mod shard;
mod spans;
pub mod store;
pub mod told;
mod traces;
mod transport;
#[cfg(feature = "webhooks")]
pub mod webhooks;

#[cfg(feature = "http")]
pub use actix_web;
pub use async_trait::async_trait;
pub use broker::{Broker, Error};
pub use futures_util::Stream;
#[cfg(any(feature = "bridge", feature = "tls", feature = "webhooks"))]
pub use rustls;
pub use {actix, bytes, tokio};

/// The parts that benchmarks, fuzzers and model tests of the project drive by themselves. No promise:
/// they may change in every release.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cluster")]
    pub mod cluster {
        pub use crate::cluster::*;
    }
    pub mod router {
        pub use crate::router::*;
    }
    pub mod session {
        pub use crate::session::*;
    }
}

/// The Rust of the documents, which is compiled with the documentation tests.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/embedding.md")]
struct Documents;
