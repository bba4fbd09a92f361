//! The interfaces through which a shard reaches the connections of its clients, and arriving connections reach a
//! shard.
//!
//! A shard has doors and does not know what is behind them: an actor in the broker, a queue in a
//! test. A message through a door is handled later, in the order in which it was sent.

use std::{convert::Infallible, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    control::{
        ControlError, KeepAliveChanged, KickOptions, Kicked, Redirection, SetKeepAlive,
        SettingsChange, SubscriptionChange,
    },
    mqtt::ReasonCode,
    shard::{
        connect::{TakeClient, TakeStep},
        sticky::SettingsStep,
    },
    traces::Trace,
    transport::TlsFacts,
};

/// Dropped when a connection gives way, which tells the waiting connections to continue.
pub(crate) type Baton = Infallible;

/// Where the connection sends its answer. Dropped without one if the client is not connected.
type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// The number of subscriptions that one message changes at most, so that no turn is long.
pub(crate) const CHANGES_AT_A_TIME: usize = 32;

/// The Reason Codes of changes, and a channel that reports when the changes are stored.
pub(crate) type ChangedSubscriptions = (Vec<ReasonCode>, oneshot::Receiver<()>);

/// A message to the connection of a client.
pub(crate) enum ToConnection {
    /// Change the Keep Alive, and answer its former value.
    SetKeepAlive {
        /// The new Keep Alive, and its end.
        request: SetKeepAlive,
        /// Where the answer goes.
        reply: Reply<KeepAliveChanged>,
    },
    /// Follow the override of the client, as it is stored now, or follow it no longer.
    FollowOverride {
        /// The caller, for the event.
        by: Option<Arc<str>>,
        /// Where the answer goes.
        reply: Reply<KeepAliveChanged>,
    },
    /// Change settings, and answer those that the connection had, and has then.
    ChangeSettings {
        /// Which settings, and to what.
        change: SettingsChange,
        /// Where the answer goes.
        reply: Reply<SettingsStep>,
    },
    /// Answer the facts of TLS about the client.
    DescribeTls(oneshot::Sender<Option<TlsFacts>>),
    /// Change subscriptions, and answer a Reason Code for each.
    ChangeSubscriptions {
        /// At most [`CHANGES_AT_A_TIME`].
        changes: Vec<SubscriptionChange>,
        /// Where the answer goes.
        reply: Reply<ChangedSubscriptions>,
    },
    /// End the connection.
    Kick {
        /// How it ends.
        options: KickOptions,
        /// The user name of the caller.
        by: Option<Arc<str>>,
        /// Where the answer goes.
        reply: Reply<Kicked>,
    },
    /// Send the client to another server.
    Redirect {
        /// The server.
        to: Arc<Redirection>,
        /// The user name of the caller.
        by: Option<Arc<str>>,
        /// Notified after the redirect.
        reply: mpsc::UnboundedSender<()>,
    },
    /// Give way to a connection of the same client, after reading what the client sent before it.
    GiveWay(oneshot::Sender<Baton>),
    /// The deadline has passed: check whether the client has sent something since.
    KeepAliveExpired,
    /// The credentials of the client have expired: end the connection, unless the client has
    /// authenticated again since.
    IdentityExpired,
    /// Ask the source of the client's identity again.
    RenewIdentity,
    /// Check whether the client's certificate is still trusted.
    VerifyCertificate,
    /// Let a trace observe the stream.
    Trace(Arc<Trace>),
    /// Perform the next step of an exchange.
    TakeStep(TakeStep),
    /// The connection has left its session: write these bytes and close.
    Finish(Vec<u8>),
    /// Write the pending output, then end with Server shutting down.
    Farewell,
}

/// Leads to the connection of a client, on the shard's own thread.
pub(crate) trait ConnectionDoor {
    fn send(&self, message: ToConnection);
}

/// Leads to a shard, from any thread, for an arriving client.
pub(crate) trait ArrivalDoor: Send + Sync {
    /// Delivers a connection whose CONNECT was accepted.
    fn bring(&self, arrival: TakeClient);
}
