//! Listeners, and the way of a connection from accept to its home shard.
//!
//! Any shard may accept: it reads CONNECT, has the client's credentials checked, and sends the
//! connection to the shard where the client identifier lives. What is refused is refused here.

mod admission;
mod handshake;
mod listener;
pub mod tls;

pub(crate) use admission::Admission;
pub(crate) use handshake::{Arrival, handshake};
pub(crate) use listener::{ListenerParts, accept_loop, bind};
