//! A store with slow commits, which notes when it has each event.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::records::{Expected, Put, Record, RecordKey, Records, RecordsError, Revision, Watch};

/// A store that takes a while for each commit, and notes when it has each event.
pub(super) struct SlowStore {
    records: Arc<dyn Records>,
    commit: Duration,
    stored: Mutex<Vec<(u64, Instant)>>,
}

impl SlowStore {
    pub(super) fn new(records: Arc<dyn Records>, commit: Duration) -> Arc<Self> {
        Arc::new(Self { records, commit, stored: Mutex::default() })
    }

    /// Returns the numbers of the events that it has, and since when.
    pub(super) fn stored(&self) -> Vec<(u64, Instant)> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Records for SlowStore {
    async fn get(&self, name: &RecordKey) -> Result<Option<Record>, RecordsError> {
        self.records.get(name).await
    }

    async fn put(&self, put: Put) -> Result<Revision, RecordsError> {
        let body: Value = serde_json::from_slice(&put.value[1..]).expect("it is one record");
        sleep(self.commit).await;
        let revision = self.records.put(put).await?;
        let events = body["events"].as_array().expect("it has events").iter();
        let numbers = events.filter_map(|event| event["data"]["n"].as_u64());
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.extend(numbers.map(|number| (number, Instant::now())));
        Ok(revision)
    }

    async fn remove(&self, name: RecordKey, expected: Expected) -> Result<(), RecordsError> {
        self.records.remove(name, expected).await
    }

    async fn list(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, RecordsError> {
        self.records.list(namespace, after, limit).await
    }

    fn watch(&self, namespace: &str) -> Watch {
        self.records.watch(namespace)
    }
}
