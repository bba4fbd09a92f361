//! Starts the listeners of a broker on its shards.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;

use super::{Broker, Running, StartError, settings::lock};
use crate::{
    net::{Bound, Listener, ListenerParts, ListenerSettings, accept_loop},
    router::ShardNumber,
};

impl Broker {
    /// Starts accepting the connections of all listeners.
    pub(super) fn accept_all(
        &self,
        bound: &[Bound],
        listeners: &[Listener],
    ) -> Result<(), StartError> {
        let urls = &self.running.listener_urls;
        for ((bound, listener), url) in bound.iter().zip(listeners).zip(urls) {
            self.accept(bound, listener, url)
                .map_err(|source| StartError::Listen { address: listener.to_string(), source })?;
        }
        Ok(())
    }

    /// Starts accepting connections; every shard accepts from a copy of the listener.
    fn accept(&self, bound: &Bound, listener: &Listener, url: &Arc<str>) -> io::Result<()> {
        // Once for all shards: their copies share the
        // queue of the kernel, and each accepts from it.
        bound.listen()?;
        let Running { core, admission, hosts, open, listeners, .. } = &*self.running;
        let settings =
            ListenerSettings { layers: listener.layers.clone(), logins: listener.logins };
        let of_shards: Vec<_> =
            hosts.iter().map(|_| Arc::new(ArcSwap::from_pointee(settings.clone()))).collect();
        for (shard, (host, settings)) in hosts.iter().zip(&of_shards).enumerate() {
            let parts = ListenerParts {
                core: core.clone(),
                shard: ShardNumber(shard as u16),
                metrics: core.metrics.shard(shard),
                admission: admission.clone(),
                kind: listener.kind(),
                listener: Arc::clone(url),
                settings: settings.clone(),
                open: open.clone(),
            };
            host.spawn(accept_loop(bound.try_clone()?, parts));
        }
        lock(listeners).push(of_shards);
        Ok(())
    }
}
