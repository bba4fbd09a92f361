//! Bridges: durable sessions of this broker whose connections lead to other brokers.
//!
//! ```text
//! home shard ◀── stream in process ──▶ bridge ◀── TCP or TLS ──▶ other broker
//! ```
//!
//! A bridge plays the client towards the other broker: CONNECT, SUBSCRIBE, PINGREQ. Everything else
//! is the session's own: its messages leave with their own Packet Identifiers, and the other broker's
//! acknowledgements return to it. So the session in the store has the whole state of QoS 2, and what
//! waits is bounded as in any session. The bridge stores nothing. Knows neither shards nor the
//! configuration.

mod address;
mod begin;
mod connect;
mod credentials;
mod dial;
mod echoes;
mod error;
mod fault;
mod grants;
mod keeping_alive;
mod marks;
mod options;
mod oversized;
mod prime;
mod pump;
mod routes;
mod run;
mod side;
mod state;
mod tls;
mod topic;
mod translate;

pub use self::{
    address::BridgeAddress,
    error::BridgeError,
    options::{Bridge, BridgeOptions},
    tls::BridgeTls,
    topic::{BridgeTopic, Direction, RetainedOf},
};
pub(crate) use self::{
    dial::{Dial, InProcessDial, NetworkDial},
    error::BRIDGES_MAX,
    grants::{BRIDGE_METHOD, BridgeAuthorizer, BridgeMethod, Granted},
    run::{BridgeParts, BridgeTask, WantedOfBridge},
    side::{BridgeConnect, LocalLimits, LocalSide, OwnSubscription},
    state::BridgeState,
};
