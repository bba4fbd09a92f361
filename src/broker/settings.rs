//! Settings of a running broker.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Broker;
use crate::{
    auth::ListenerLogins,
    limits::Limits,
    mqtt::{TopicError, validate_topic},
    net::Listener,
    told::ClientLines,
};

impl Broker {
    /// Changes the limits. Connections, sessions and retained messages beyond a lower limit stay,
    /// but get no more; a queue that is too long is cut when it takes its next message. Limits that
    /// a client was told when it connected apply until its connection ends: Maximum Packet Size,
    /// Receive Maximum, Topic Aliases, Keep Alive, session expiry. The same holds for whether
    /// publishers are held for the client.
    pub fn set_limits(&self, limits: Limits) {
        self.running.admission.set_limits(&limits);
        self.running.core.set_limits(limits);
    }

    /// Changes the listeners, given in the order in which the builder got them: login rules, PROXY
    /// header, and origins of web pages. Addresses, TLS sources and paths stay as they are. The
    /// changes apply to new connections; connected clients are checked when [`Broker::recheck`] is
    /// called.
    pub fn set_listeners(&self, listeners: &[Listener]) {
        for (of_shards, wanted) in lock(&self.running.listeners).iter().zip(listeners) {
            // Each shard has a copy, so that accepting does
            // not share a reference count between threads.
            for settings in of_shards {
                let mut changed = (**settings.load()).clone();
                changed.logins = wanted.logins;
                changed.layers.proxy.clone_from(&wanted.layers.proxy);
                if let (Some(own), Some(wanted)) =
                    (&mut changed.layers.websocket, &wanted.layers.websocket)
                {
                    own.set_origins(wanted);
                }
                settings.store(Arc::new(changed));
            }
        }
        self.set_listener_logins(listeners.iter().map(|listener| listener.logins));
    }

    pub(super) fn set_listener_logins(&self, logins: impl Iterator<Item = ListenerLogins>) {
        let urls = self.running.listener_urls.iter().cloned();
        self.running.core.set_listener_logins(urls.zip(logins).collect());
    }

    /// Changes which `tracing` events about clients are emitted.
    pub fn set_client_lines(&self, lines: ClientLines) {
        self.running.core.told.set_lines(lines);
    }

    /// Changes how often `$SYS/broker/…` is updated; zero means never.
    pub fn set_sys_interval(&self, interval: Duration) {
        self.running.core.system.set_interval(interval);
    }

    /// Changes the prefix of Response Topics, for clients that connect from then on.
    ///
    /// # Errors
    /// The prefix is not the beginning of a topic.
    pub fn set_response_topic_prefix(&self, prefix: &str) -> Result<(), TopicError> {
        if !prefix.is_empty() {
            validate_topic(prefix)?;
        }
        self.running.core.set_response_topic_prefix(prefix);
        Ok(())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
