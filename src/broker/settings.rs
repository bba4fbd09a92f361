//! What can be changed about a broker that runs, and its REST interface with options.

use std::sync::Arc;

use super::Broker;
use crate::{
    http::{Api, ApiOptions},
    limits::Limits,
    told::ClientLines,
};

impl Broker {
    /// Changes those limits that can change while the broker runs, for the connections, sessions and
    /// subscriptions that come from then on: on sessions, their expiry, Keep Alive, the time for
    /// CONNECT and authentication, subscriptions, messages in flight to a client, Topic Aliases, Receive
    /// Maximum, and client identifiers of MQTT 3.1. The others stay as they were at the start.
    pub fn set_limits(&self, limits: Limits) {
        self.running.core.set_limits(limits);
    }

    /// Changes which events of `tracing` there are about clients.
    pub fn set_client_lines(&self, lines: ClientLines) {
        self.running.core.told.set_lines(lines);
    }

    /// The REST interface with options of one's own.
    #[must_use]
    pub fn api(&self, options: &ApiOptions) -> Api {
        let control = Arc::new(self.clone());
        let told = Arc::clone(&self.running.core.told);
        let (authenticator, authorizer) = (self.authenticator(), self.authorizer());
        Api::telling(told, control, authenticator, authorizer, self.metrics(), options)
    }
}
