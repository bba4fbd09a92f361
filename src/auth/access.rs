//! The action that an identity requests, and the decision about it.
//!
//! Plain data. Knows neither rules nor the callers.

use std::net::SocketAddr;

use super::Identity;
use crate::mqtt::QoS;

/// An action that an identity wants to take. There may be more kinds of actions in later versions: an
/// [`Authorizer`](super::Authorizer) denies those that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Connect as the client. Over REST it permits two calls for one client identifier: to change
    /// its Keep Alive and to query its status.
    Connect,
    /// Read the client's status and state over REST.
    Observe,
    /// Change the client's live session over REST: its Keep Alive, its connection.
    Control,
    /// Run the broker over REST: users, rules, bans, payloads of others.
    Administer,
    /// Publish, or have a Will published.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// Quality of Service.
        qos: QoS,
        /// The RETAIN flag.
        retain: bool,
    },
    /// Subscribe.
    Subscribe {
        /// Topic Filter, without the `$share/{name}/` of a shared subscription.
        filter: &'a str,
        /// Maximum QoS asked for.
        qos: QoS,
    },
}

/// The question that an [`Authorizer`](super::Authorizer) answers.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The identity that asks.
    pub identity: &'a Identity,
    /// The client identifier concerned: the caller's own over MQTT, the target's over REST.
    pub client_id: &'a str,
    /// Address from which the connection comes.
    pub peer: SocketAddr,
    /// URL of the listener that accepted it (`mqtts://[::]:8883`); empty if unknown.
    pub listener: &'a str,
    /// The action in question.
    pub action: Action<'a>,
}

/// The answer of an [`Authorizer`](super::Authorizer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allow,
    /// Do not.
    Deny,
}
