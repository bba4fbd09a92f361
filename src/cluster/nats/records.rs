//! The records of a cluster: one bucket of JetStream that all nodes write, and a copy of it in the memory
//! of each node.
//!
//! A change is a compare-and-set by the revision of the bucket, and counts when a quorum of NATS servers
//! has it; then this node waits until its own copy has it too. So a caller reads its own changes. A node
//! that has lost NATS goes on to read its copy, and changes nothing. Reads decide nothing: only
//! `Expected` does.
//!
//! Each node removes what has expired, by the revision of the record, so it does not matter which one is
//! first. The time is in the record: JetStream's own expiry is not used, because `update` cannot keep it.
//!
//! Does not know what a record is about. Called as `Records` by the broker.

mod copy;
mod form;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, warn};

use self::{
    copy::RecordsCopy,
    form::{decoded, encoded, subject_key},
};
use super::{
    START_TIME_MAX,
    follow::{FollowedEvent, StreamFollower},
    link::NatsLink,
    streams::{NatsStreamError, StreamShape, bucket_stream, bucket_subject},
    write::{self, WriteFault, WriteTerms, write},
};
use crate::{
    clock::Clock,
    mqtt::Timestamp,
    records::{
        Expected, Put, Record, RecordKey, Records, RecordsError, Revision, VALUE_BYTES_MAX, Watch,
    },
};

/// How long a change waits for NATS, and then for the copy of this node.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(2);

/// How often a change is tried while others change the same record, or marks of removals are in the way.
const ATTEMPTS_MAX: usize = 8;

/// The pause between two attempts when the server does not name the obstacle.
const PAUSE: Duration = Duration::from_millis(20);

/// The interval at which a node looks for expired records.
const TIDYING_INTERVAL: Duration = Duration::from_secs(1);

/// Expired records, and marks of removals, that a node removes at a time.
const REMOVED_AT_A_TIME: usize = 64;

/// The age at which the mark of a removal is taken away. A follower without a gap has long seen it: NATS
/// gives up a connection that does not read after minutes. All nodes have the same age.
pub(super) const MARK_AGE: Duration = Duration::from_secs(3_600);

/// The key of the note that says up to which revision marks were taken away. No record has it: the key of
/// a record has two parts.
const SWEPT_KEY: &str = "=swept";

/// Maximum bytes of a message: a value, its longest names, and headers.
const MESSAGE_BYTES_MAX: i32 = 80 * 1024;

/// The records of a cluster.
pub struct NatsRecords {
    shared: Arc<SharedRecords>,
    /// The sequence up to which the copy has all changes.
    applied: watch::Receiver<u64>,
}

/// The state that the calls and the two tasks share.
struct SharedRecords {
    link: Arc<NatsLink>,
    bucket: Box<str>,
    clock: Clock,
    mark_age: Duration,
    copy: Mutex<RecordsCopy>,
}

impl std::fmt::Debug for NatsRecords {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("NatsRecords").field("bucket", &self.shared.bucket).finish_non_exhaustive()
    }
}

impl NatsRecords {
    /// Makes or checks the bucket, and reads it.
    pub(super) async fn open(
        link: Arc<NatsLink>,
        bucket: &str,
        replicas: usize,
        mark_age: Duration,
    ) -> Result<Self, NatsStreamError> {
        // Made before it is followed, because a consumer needs its stream.
        let shape = StreamShape::bucket(bucket, MESSAGE_BYTES_MAX, replicas);
        shape.ensure(&link, START_TIME_MAX).await?;
        let stream = bucket_stream(bucket);
        let follower = StreamFollower::new(&link, &stream, 0)
            .with_swept(bucket_subject(bucket, SWEPT_KEY), mark_age);
        let shared = Arc::new(SharedRecords {
            link: Arc::clone(&link),
            bucket: bucket.into(),
            clock: Clock::start_after(Timestamp(0)),
            mark_age,
            copy: Mutex::new(RecordsCopy::default()),
        });
        // Callers wait here until the copy has their own change.
        let (tell, mut applied) = watch::channel(0);
        link.spawn(follow(Arc::clone(&shared), follower, tell));
        let is_current = |_: &u64| shared.lock().is_current();
        // The broker reads records at its start, so they must be complete.
        if timeout(START_TIME_MAX, applied.wait_for(is_current)).await.is_err() {
            let told = link.state().take_told();
            return Err(NatsStreamError::NoAnswer(stream, START_TIME_MAX, told));
        }
        // Weak, so that the end of the broker ends this task.
        link.spawn(tidy(Arc::downgrade(&shared)));
        Ok(Self { shared, applied })
    }

    /// Waits until the copy of this node has the change of this revision.
    async fn apply_up_to(&self, Revision(revision): Revision) -> Result<(), RecordsError> {
        let mut applied = self.applied.clone();
        match timeout(CHANGE_TIME_MAX, applied.wait_for(|at| *at >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(RecordsError::Unavailable),
        }
    }

    /// Writes a record, or the mark of its removal.
    async fn change(
        &self,
        name: &RecordKey,
        payload: Option<Bytes>,
        expected: Expected,
    ) -> Result<Revision, RecordsError> {
        let subject = self.shared.subject(name);
        let is_removal = payload.is_none();
        let payload = payload.unwrap_or_default();
        // Compared with the own copy first, which saves most conflicts a message.
        let mut last = self.shared.revision_to_expect(name, expected)?;
        // Each attempt needs another revision, so their number is bounded.
        for _ in 0..ATTEMPTS_MAX {
            let terms = WriteTerms { expected: last, is_removal, ..WriteTerms::default() };
            let link = &self.shared.link;
            match write(link, subject.clone(), payload.clone(), terms, CHANGE_TIME_MAX).await {
                Ok(revision) => {
                    // The caller reads its own change when this returns.
                    self.apply_up_to(revision).await?;
                    return Ok(revision);
                }
                Err(WriteFault::Conflict(found)) => {
                    last = self.after_conflict(name, expected, found).await?;
                }
                Err(fault) => {
                    debug!(namespace = name.namespace(), reason = %fault, "record not stored");
                    return Err(RecordsError::Unavailable);
                }
            }
        }
        Err(RecordsError::Unavailable)
    }

    /// Returns the revision for the next attempt, if the present record is as the caller expects.
    async fn after_conflict(
        &self,
        name: &RecordKey,
        expected: Expected,
        found: Option<Revision>,
    ) -> Result<Option<Revision>, RecordsError> {
        let Some(found) = found else {
            // Another change of the same record is under way.
            sleep(PAUSE).await;
            return self.shared.revision_to_expect(name, expected);
        };
        // The last message may be the mark of a removal, or an expired record.
        let is_absent = found == Revision(0) || !self.is_record(found).await?;
        match (expected, is_absent) {
            (Expected::Absent, true) => Ok(Some(found)),
            (Expected::At(_), true) => Err(RecordsError::Conflict(None)),
            (_, true) | (Expected::Any, false) => Ok(None),
            (Expected::Absent | Expected::At(_), false) => {
                // So the caller finds this one when it reads. It may be replaced meanwhile.
                let _ = self.apply_up_to(found).await;
                Err(RecordsError::Conflict(Some(found)))
            }
        }
    }

    /// Returns whether a revision of the bucket is a record that has not expired, and not the mark of a
    /// removal.
    async fn is_record(&self, Revision(revision): Revision) -> Result<bool, RecordsError> {
        let shared = &self.shared;
        let stream = bucket_stream(&shared.bucket);
        match write::at(&shared.link, &stream, revision, CHANGE_TIME_MAX).await {
            Ok(Some(message)) => {
                let content = message.payload.and_then(decoded);
                Ok(content.is_some_and(|content| !content.has_expired(shared.clock.now())))
            }
            // It is replaced, so there is a later one.
            Ok(None) => Ok(true),
            Err(_) => Err(RecordsError::Unavailable),
        }
    }
}

impl SharedRecords {
    fn lock(&self) -> MutexGuard<'_, RecordsCopy> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subject(&self, name: &RecordKey) -> String {
        bucket_subject(&self.bucket, &subject_key(name))
    }

    /// Returns what a write must expect of the last message of the record; `None`: anything. Fails if this
    /// node knows already that the record is not the expected one.
    fn revision_to_expect(
        &self,
        name: &RecordKey,
        expected: Expected,
    ) -> Result<Option<Revision>, RecordsError> {
        let now = self.clock.now();
        // The copy is behind the bucket at times; the compare-and-set decides.
        let copy = self.lock();
        let known = copy.record(name);
        let found = known.filter(|record| !record.has_expired(now)).map(|record| record.revision);
        match expected {
            Expected::Any => Ok(None),
            Expected::Absent => match (found, known) {
                (Some(_), _) => Err(RecordsError::Conflict(found)),
                // An expired record is overwritten by its revision, and counts as absent.
                (None, Some(expired)) => Ok(Some(expired.revision)),
                (None, None) => Ok(Some(copy.mark_of(name).unwrap_or(Revision(0)))),
            },
            // A revision that this node has not applied yet is for JetStream to judge.
            Expected::At(revision) if found == Some(revision) || revision.0 > copy.applied() => {
                Ok(Some(revision))
            }
            Expected::At(_) => Err(RecordsError::Conflict(found)),
        }
    }

    /// Removes records that have expired. Another node may be faster.
    async fn remove_expired(&self) {
        let expired = self.lock().expired(self.clock.now(), REMOVED_AT_A_TIME);
        for (name, revision) in expired {
            let expected = Some(revision);
            let terms = WriteTerms { expected, is_removal: true, ..WriteTerms::default() };
            let subject = self.subject(&name);
            let written = write(&self.link, subject, Bytes::new(), terms, CHANGE_TIME_MAX).await;
            match written {
                Ok(_) | Err(WriteFault::Conflict(_)) => {}
                Err(_) => return, // until NATS can be written again
            }
        }
    }

    /// Takes marks of removals away that are old. First a note says so: a follower with a gap before the
    /// note reads everything once more, because it may have missed removals.
    async fn sweep(&self) {
        // Only marks that every follower had time to see.
        let marks = self.lock().old_marks(self.mark_age, REMOVED_AT_A_TIME);
        // One note for all marks of this round.
        let Some(highest) = marks.iter().map(|(_, revision)| revision.0).max() else { return };
        let note = Bytes::from(highest.to_string());
        let subject = bucket_subject(&self.bucket, SWEPT_KEY);
        let terms = WriteTerms::default();
        if write(&self.link, subject, note, terms, CHANGE_TIME_MAX).await.is_err() {
            return;
        }
        let stream = bucket_stream(&self.bucket);
        for (key, Revision(revision)) in marks {
            // Only up to the mark: what was written after it stays.
            let subject = bucket_subject(&self.bucket, &key);
            let before = revision + 1;
            if write::purge(&self.link, &stream, &subject, before, CHANGE_TIME_MAX).await.is_err() {
                return;
            }
            self.lock().forget_mark(&key, Revision(revision));
        }
    }
}

/// Follows the bucket, until the link ends.
async fn follow(
    shared: Arc<SharedRecords>,
    mut follower: StreamFollower,
    applied: watch::Sender<u64>,
) {
    // The link belongs to `shared`, and must end although this task waits.
    let prefix = bucket_subject(&shared.bucket, "");
    let weak = Arc::downgrade(&shared);
    // Held only while an event is applied.
    drop(shared);
    while let Some(event) = follower.next().await {
        let Some(shared) = weak.upgrade() else { return };
        match event {
            FollowedEvent::Message(message) => {
                let key = message.subject.strip_prefix(&prefix).unwrap_or_default();
                shared.lock().apply(key, Revision(message.sequence), message.payload);
                applied.send_replace(message.sequence);
            }
            FollowedEvent::Current(sequence) => {
                shared.lock().complete(Revision(sequence));
                applied.send_replace(sequence);
            }
            FollowedEvent::Restarted => {
                warn!(bucket = &*shared.bucket, "records are read once more after a gap");
                shared.lock().restart();
            }
        }
    }
}

/// Removes expired records and sweeps old marks, until the records or the link end.
async fn tidy(records: std::sync::Weak<SharedRecords>) {
    let mut ticks = interval(TIDYING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = records.upgrade() else { return };
        if shared.link.is_connected() {
            shared.remove_expired().await;
            shared.sweep().await;
        }
    }
}

#[async_trait]
impl Records for NatsRecords {
    async fn get(&self, name: &RecordKey) -> Result<Option<Record>, RecordsError> {
        let now = self.shared.clock.now();
        let copy = self.shared.lock();
        Ok(copy.record(name).filter(|record| !record.has_expired(now)).cloned())
    }

    async fn put(&self, put: Put) -> Result<Revision, RecordsError> {
        let Put { name, value, expected, expires_at } = put;
        if value.len() > VALUE_BYTES_MAX {
            return Err(RecordsError::TooLong);
        }
        let payload = encoded(&name, &value, expires_at);
        self.change(&name, Some(payload), expected).await
    }

    async fn remove(&self, name: RecordKey, expected: Expected) -> Result<(), RecordsError> {
        if expected == Expected::Any && self.shared.lock().record(&name).is_none() {
            // Nothing is written where nothing is: a mark would stay for an hour.
            let shared = &self.shared;
            let (stream, subject) = (bucket_stream(&shared.bucket), shared.subject(&name));
            match write::last(&shared.link, &stream, &subject, CHANGE_TIME_MAX).await {
                Ok(Some(message)) if message.payload.is_some() => {}
                Ok(_) => return Ok(()),
                Err(_) => return Err(RecordsError::Unavailable),
            }
        }
        if expected == Expected::Absent {
            return self.shared.revision_to_expect(&name, expected).map(drop);
        }
        self.change(&name, None, expected).await.map(drop)
    }

    async fn list(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, RecordsError> {
        Ok(self.shared.lock().page(namespace, after, limit, self.shared.clock.now()))
    }

    fn watch(&self, namespace: &str) -> Watch {
        self.shared.lock().watch(namespace)
    }
}
