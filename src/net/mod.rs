//! Listeners, and the path of a connection from accept to its home shard.
//!
//! Any shard may accept a connection. It reads CONNECT, has the credentials checked, and sends the
//! connection to the home shard of its client identifier. Most refusals are decided here.

mod accept;
mod admission;
mod exchange;
mod follow;
mod handshake;
mod linger;
mod listener;
mod newcomer;
mod packet_line;
mod proxy;
mod refusal;
mod refused;
mod room;
mod secured;
mod shortage;
mod tcp;
pub mod tls;
mod unix;
mod websocket;

pub(crate) use self::{
    accept::{ListenerParts, ListenerSettings, accept_loop, canonical},
    admission::{Admission, Seat, Whose, in_turn, network_of},
    handshake::{Arrival, handshake},
    listener::{BindError, Bound, IN_PROCESS, accept_who_has_spoken, bind},
    newcomer::Shown,
    shortage::{is_of_files, is_somebody_waiting},
    websocket::{Accepted, Pages, Refusal, Request, WebSocket, hosted, is_own_origin},
};
pub use self::{
    listener::Listener,
    proxy::ProxyProtocol,
    tcp::{TCP_KEEP_ALIVE_SECS_DEFAULT, give_up_the_dead},
    websocket::WebSocketOptions,
};
