//! How a shard reaches the connections of its clients, and is reached by those that come.
//!
//! A shard holds doors and does not know what stands behind them: an actor in the broker, a queue in a
//! test. A message through a door is taken up later, in the order in which it was sent.

use std::{convert::Infallible, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    control::{ControlError, KeepAliveChanged, Redirection},
    shard::{
        Departure,
        connect::{Attach, Kicked, TakeStep},
    },
};

/// Passed on, by being dropped, when a connection gives way to those that wait for it.
pub(crate) type Baton = Infallible;

/// Where the answer of a connection goes. Dropped without one if the client is not connected.
type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// To the connection of a client.
pub(crate) enum ToConnection {
    /// Change the Keep Alive, and answer what it was.
    SetKeepAlive {
        /// In seconds.
        interval_secs: u16,
        /// The caller, for the event.
        by: Option<Arc<str>>,
        /// Where the answer goes.
        reply: Reply<KeepAliveChanged>,
    },
    /// End like this.
    Kick {
        /// How.
        departure: Departure,
        /// Where the answer goes.
        reply: Reply<Kicked>,
    },
    /// Send the client to another server.
    Redirect {
        /// The server.
        to: Arc<Redirection>,
        /// Told once that is done.
        reply: mpsc::UnboundedSender<()>,
    },
    /// Give way to a connection of the same client, once what the client sent before it has been read.
    GiveWay(oneshot::Sender<Baton>),
    /// The deadline has passed: see whether the client has said something since.
    KeepAliveExpired,
    /// See whether the client's certificate is still trusted.
    VerifyCertificate,
    /// Have an exchange take its next step.
    TakeStep(TakeStep),
    /// The session has left: write these bytes and close.
    Finish(Vec<u8>),
    /// Write what waits for the client, then end with Server shutting down.
    Farewell,
}

/// Leads to the connection of a client, on the shard's own thread.
pub(crate) trait ConnectionDoor {
    fn send(&self, message: ToConnection);
}

/// Leads to a shard, from any thread, for a client that comes.
pub(crate) trait ArrivalDoor: Send + Sync {
    /// Brings a connection whose CONNECT was accepted.
    fn bring(&self, arrival: Attach);
}
