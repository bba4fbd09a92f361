//! Settings of a running broker, and its REST interface with options.

use std::sync::Arc;

use super::Broker;
use crate::{
    http::{Api, ApiOptions},
    limits::Limits,
    told::ClientLines,
};

impl Broker {
    /// Changes the limits that can change while the broker runs: sessions, their expiry, Keep
    /// Alive, the time for CONNECT and authentication, subscriptions, messages in flight to a
    /// client, Topic Aliases, Receive Maximum, and client identifiers of MQTT 3.1. They apply to
    /// connections, sessions and subscriptions from then on. All other limits stay as they were at
    /// the start.
    pub fn set_limits(&self, limits: Limits) {
        self.running.core.set_limits(limits);
    }

    /// Changes which `tracing` events about clients are emitted.
    pub fn set_client_lines(&self, lines: ClientLines) {
        self.running.core.told.set_lines(lines);
    }

    /// Returns the REST interface with these options.
    #[must_use]
    pub fn api(&self, options: &ApiOptions) -> Api {
        let control = Arc::new(self.clone());
        let told = Arc::clone(&self.running.core.told);
        let (authenticator, authorizer) = (self.authenticator(), self.authorizer());
        Api::telling(told, control, authenticator, authorizer, self.metrics(), options)
    }
}
