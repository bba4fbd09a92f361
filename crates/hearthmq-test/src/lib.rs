//! What tests, fuzzers and benchmarks share: a broker on virtual time, clients that send any packet
//! and check every packet that comes, stores that fail or lose writes, certificates, and the post
//! between simulated shards.
//!
//! Compiled once for all test programs. It uses the library from outside; so unit tests of the
//! library cannot use it: to them, its types would belong to another library.

mod client;
pub mod disk;
mod free;
pub mod http;
mod in_process;
pub mod line;
pub mod mqtt;
pub mod packets;
pub mod post;
pub mod receiver;
pub mod records_contract;
pub mod riddle;
mod rules;
pub mod session_model;
pub mod skipped;
pub mod store;
pub mod torn_store;
pub mod vocabulary;
pub mod wire;

pub mod beats;
#[cfg(feature = "transports")]
pub mod cluster;
#[cfg(feature = "transports")]
pub mod nats;
#[cfg(feature = "transports")]
pub mod pki;
#[cfg(feature = "transports")]
pub mod scram;
#[cfg(feature = "transports")]
pub mod websocket_client;

pub use client::Client;
pub use free::free_address;
pub use in_process::*;
pub use rules::refusing;
