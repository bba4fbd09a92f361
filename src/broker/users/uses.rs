//! Stores when credentials of accounts were last used, some of it at a time, and the rest at a shutdown.
//!
//! A login only notes its use in memory. Each credential is written at most about once an hour.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::super::{Broker, Running};
use crate::{
    auth::USE_BUCKETS,
    records::{Put, RecordKey},
};

/// The namespace of the records; a key is the number of a bucket.
const NAMESPACE: &str = "credential-uses";
/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Buckets that are looked at in one look: all of them in 62 minutes.
const BUCKETS_AT_A_TIME: usize = 11;

impl Broker {
    /// Takes over the uses of former runs, and stores further ones until the broker ends. Called once,
    /// before a client may connect.
    pub(in crate::broker) fn begin_uses(&self) {
        let Some(users) = &self.running.users else { return };
        for (_, record) in self.running.core.records.page(NAMESPACE, None, USE_BUCKETS) {
            users.source.restore_uses(&record.value);
        }
        // A strong one would keep the broker alive for the sake of its own timer.
        let running: Weak<Running> = Arc::downgrade(&self.running);
        let ending = self.running.core.ending.clone();
        let storing = async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = ending.cancelled() => return,
                }
                let Some(running) = running.upgrade() else { return };
                // Some buckets at a time, so that the writes of an hour are spread evenly.
                running.store_uses(BUCKETS_AT_A_TIME);
            }
        };
        if let Some(host) = self.running.hosts.first() {
            host.spawn(storing);
        }
    }
}

impl Running {
    /// Stores all uses that are not stored yet. Called when no further client logs in.
    pub(in crate::broker) fn end_uses(&self) {
        self.store_uses(USE_BUCKETS);
    }

    fn store_uses(&self, buckets: usize) {
        let Some(users) = &self.users else { return };
        let records = &self.core.records;
        for (bucket, record) in users.source.take_changed_uses(buckets) {
            let Some(name) = RecordKey::new(NAMESPACE, &format!("{bucket:03x}")) else { continue };
            if record.is_empty() {
                records.remove_behind(name);
            } else if records.put_behind(Put::new(name, record)).is_none() {
                users.source.keep_changed_uses(bucket); // until the store can be written again
            }
        }
    }
}
