//! Listeners, and the path of a connection from accept to its home shard.
//!
//! Any shard may accept a connection. It reads CONNECT, has the credentials checked, and sends the
//! connection to the home shard of its client identifier. Most refusals are decided here.

mod absent;
mod accept;
mod admission;
mod exchange;
mod follow;
mod handshake;
mod linger;
mod listener;
mod newcomer;
#[cfg(any(feature = "http", feature = "websocket"))]
mod origin;
mod owning;
mod packet_line;
mod pinning;
mod proxy;
mod refusal;
mod refused;
mod room;
mod shortage;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod unix;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(not(feature = "tls"))]
use self::absent::tls;
#[cfg(not(feature = "websocket"))]
use self::absent::websocket;
#[cfg(feature = "http")]
pub(crate) use self::admission::Seat;
#[cfg(feature = "http")]
pub(crate) use self::origin::is_own_origin;
#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketOptions;
/// The settings that a WebSocket in the server of an application needs.
#[cfg(all(feature = "http", feature = "websocket"))]
pub(crate) use self::websocket::{
    Accepted, Pages, UpgradeRefusal, UpgradeRequest, WebSocket, hosted,
};
pub(crate) use self::{
    accept::{ListenerParts, ListenerSettings, accept_loop, canonical},
    admission::{ListenerLimits, Whose},
    handshake::{Arrival, handshake},
    listener::{BindError, Bound, IN_PROCESS, bind},
};
/// The settings of a listener that the HTTP server needs.
#[cfg(all(feature = "http", feature = "tls"))]
pub(crate) use self::{
    admission::{in_turn, network_of},
    listener::accept_who_has_spoken,
    shortage::{is_of_files, is_somebody_waiting},
};
pub use self::{
    listener::Listener,
    proxy::ProxyProtocol,
    tcp::{TCP_KEEP_ALIVE_SECS_DEFAULT, give_up_the_dead},
};
