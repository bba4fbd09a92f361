//! The door between the agreement of the cluster and a real NATS: core for mail and questions, JetStream
//! for the records of the cluster.
//!
//! A node has two connections, each on a thread of its own: one for its leases, one for all else. So
//! neither mail nor records delay a lease. Writes are sent once, and only a compare-and-set decides.
//!
//! | file | what it does |
//! |---|---|
//! | `settings`, `login` | servers, prefix, TLS, and the credentials of the node |
//! | `link` | one connection, and questions with a deadline |
//! | `streams` | makes streams and buckets, or checks them |
//! | `write` | one write, and its outcome |
//! | `follow` | follows a stream without a gap |
//! | `leaders` | spreads the leaders of streams |
//! | `records` | the records of the broker in a bucket |
//! | `retained` | the stream of retained messages |
//!
//! Knows async-nats; does not know what the cluster agrees on. Called by the driver of the cluster.

mod follow;
mod leaders;
mod link;
mod login;
mod records;
mod retained;
mod settings;
mod streams;
mod write;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::{Subscriber, client::Client};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{join_all, try_join_all},
    stream::{self, BoxStream},
};
use tokio::time::{Instant, timeout};

use self::{
    follow::{FollowedEvent, StreamFollower},
    link::AskFault,
    retained::RETAINED,
    streams::{StreamShape, bucket_stream, bucket_subject},
    write::{WriteFault, WriteTerms, write},
};
pub use self::{
    link::{NatsLink, NatsLinkError},
    login::NatsLoginError,
    records::NatsRecords,
    settings::{ClusterPrefix, NatsLogin, NatsSettings, NatsTls},
    streams::NatsStreamError,
};
use super::{
    door::{
        Address, AskedQuestion, BucketEntry, BucketEvent, LogEntry, Nats, NatsAskError,
        NatsWriteError,
    },
    names::{Bucket, LEASE_BUCKETS, Log, NodeId, OWNER_BUCKETS, Sequence},
};
use crate::journal::Revision;

/// How long a start waits until JetStream has the streams.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// How long mail waits for room in the queue of the connection.
const ROOM_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the cutting of a log may take.
const CUT_TIME_MAX: Duration = Duration::from_secs(2);

/// The number of renewals in a row without an answer after which the connection is closed: one round of a node.
const UNANSWERED_MAX: u32 = LEASE_BUCKETS as u32;

/// Maximum bytes of a lease; of the record of a node; of an owner record, which has a Client Identifier.
const LEASE_BYTES_MAX: i32 = 4 * 1024;
const MEMBER_BYTES_MAX: i32 = 64 * 1024;
const OWNER_BYTES_MAX: i32 = 128 * 1024;

/// Without a limit of its own: what NATS accepts.
const ANY_BYTES: i32 = -1;

/// Why the cluster cannot use NATS.
#[derive(Debug, thiserror::Error)]
pub enum NatsDoorError {
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] NatsLinkError),
    /// A stream cannot be used.
    #[error(transparent)]
    Stream(#[from] NatsStreamError),
}

/// The door to NATS. It closes with the value.
#[derive(Debug)]
pub struct NatsDoor {
    leases: NatsLink,
    rest: Arc<NatsLink>,
    prefix: ClusterPrefix,
    replicas: usize,
    /// Renewals in a row that had no answer.
    unanswered: AtomicU32,
}

impl NatsDoor {
    /// Connects, and makes or checks all streams and buckets.
    ///
    /// # Errors
    /// If no server can be used, or a stream is there with other settings.
    pub async fn open(settings: &NatsSettings) -> Result<Self, NatsDoorError> {
        // The link of the leases first: without it no life can begin.
        let leases = NatsLink::connect(settings, "leases").await?;
        let rest = Arc::new(NatsLink::connect(settings, "cluster").await?);
        let prefix = settings.prefix.clone();
        let replicas = settings.replicas;
        let door = Self { leases, rest, prefix, replicas, unanswered: AtomicU32::new(0) };
        let routes = door.log_name(Log::Routes);
        let subject = format!("{}.{}", door.prefix, Log::Routes);
        let retained = format!("{}_{RETAINED}", door.prefix);
        let of_topics = format!("{}.{RETAINED}", door.prefix);
        let mut shapes = vec![
            StreamShape::log(&routes, &subject, ANY_BYTES, replicas),
            StreamShape::last_of_each(&retained, &of_topics, replicas),
        ];
        shapes.extend(door.buckets().map(|(bucket, bytes_max)| {
            StreamShape::bucket(&door.bucket_name(bucket), bytes_max, replicas)
        }));
        // All at once, because each may wait for the election of a leader.
        try_join_all(shapes.iter().map(|shape| shape.ensure(&door.rest, START_TIME_MAX))).await?;
        Ok(door)
    }

    /// Opens the records of the cluster.
    ///
    /// # Errors
    /// If their bucket cannot be used, or not be read within 30 seconds.
    pub async fn records(&self) -> Result<NatsRecords, NatsDoorError> {
        self.records_with(records::MARK_AGE).await
    }

    /// Does the same with another age at which the marks of removals are taken away.
    ///
    /// # Errors
    /// As [`NatsDoor::records`].
    pub async fn records_with(&self, mark_age: Duration) -> Result<NatsRecords, NatsDoorError> {
        let bucket = format!("{}_records", self.prefix);
        let link = Arc::clone(&self.rest);
        Ok(NatsRecords::open(link, &bucket, self.replicas, mark_age).await?)
    }

    /// Moves leaders of the lease buckets to different servers, and of the owner buckets evenly.
    /// Returns how many it has asked to move.
    pub async fn spread_leaders(&self) -> usize {
        // Leases and owners are spread separately: the three lease buckets need three servers.
        let leases = (0..LEASE_BUCKETS as u8).map(Bucket::Lease);
        let owners = (0..OWNER_BUCKETS).map(Bucket::Owners);
        let mut asked = 0;
        for buckets in [leases.collect::<Vec<_>>(), owners.collect()] {
            let streams: Vec<_> = buckets.into_iter().map(|one| self.stream_of(one)).collect();
            let found = streams.iter().map(|stream| leaders::leader(&self.rest, stream));
            let found: Vec<_> = join_all(found).await.into_iter().flatten().collect();
            // One after the other, so that few streams are without a leader at a time.
            for wish in leaders::moves(&found) {
                leaders::step_down(&self.rest, &wish).await;
                asked += 1;
            }
        }
        asked
    }

    /// Returns whether both connections are there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.leases.is_connected() && self.rest.is_connected()
    }

    fn buckets(&self) -> impl Iterator<Item = (Bucket, i32)> {
        let leases = (0..LEASE_BUCKETS as u8).map(|one| (Bucket::Lease(one), LEASE_BYTES_MAX));
        let owners = (0..OWNER_BUCKETS).map(|one| (Bucket::Owners(one), OWNER_BYTES_MAX));
        leases.chain([(Bucket::Members, MEMBER_BYTES_MAX)]).chain(owners)
    }

    fn bucket_name(&self, bucket: Bucket) -> String {
        format!("{}_{bucket}", self.prefix)
    }

    fn stream_of(&self, bucket: Bucket) -> String {
        bucket_stream(&self.bucket_name(bucket))
    }

    fn log_name(&self, log: Log) -> String {
        format!("{}_{log}", self.prefix)
    }

    fn log_subject(&self, log: Log, node: &NodeId) -> String {
        format!("{}.{log}.{node}", self.prefix)
    }

    fn subject(&self, address: &Address, incarnation: u64) -> String {
        match address {
            Address::Mail(node) => format!("{}.node.{node}.{incarnation}.mail", self.prefix),
            Address::Ask(node) => format!("{}.node.{node}.{incarnation}.ask", self.prefix),
            Address::Clients(node) => format!("{}.node.{node}.{incarnation}.clients", self.prefix),
            Address::All => format!("{}.all", self.prefix),
        }
    }

    fn link_of(&self, bucket: Bucket) -> &NatsLink {
        match bucket {
            Bucket::Lease(_) => &self.leases,
            Bucket::Members | Bucket::Owners(_) => &self.rest,
        }
    }

    /// Writes to a bucket once, or a second time over the mark of a removal if the key must be absent.
    async fn change(
        &self,
        bucket: Bucket,
        key: &str,
        value: Option<Bytes>,
        expected: Revision,
        time_max: Duration,
    ) -> Result<Revision, WriteFault> {
        let until = Instant::now() + time_max;
        let link = self.link_of(bucket);
        let subject = bucket_subject(&self.bucket_name(bucket), key);
        let is_removal = value.is_none();
        let payload = value.unwrap_or_default();
        let terms = WriteTerms { expected: Some(expected), is_removal, ..WriteTerms::default() };
        let first = write(link, subject.clone(), payload.clone(), terms, time_max).await;
        // Only a conflict with another message can be the mark of a removal.
        let Err(WriteFault::Conflict(Some(found))) = first else { return first };
        if expected != Revision(0) || found == expected {
            return first;
        }
        // The second write has the rest of the time.
        let left = || until.saturating_duration_since(Instant::now());
        // What this sequence has does not change: if it marks a removal, the key is absent, or has a
        // later revision and the second write conflicts too.
        match write::at(link, &self.stream_of(bucket), found.0, left()).await {
            Ok(Some(message)) if message.payload.is_none() => {
                let terms = WriteTerms { expected: Some(found), ..terms };
                write(link, subject, payload, terms, left()).await
            }
            Ok(_) | Err(_) => first,
        }
    }

    /// Gives the connection of the leases up after a round without an answer: its server may be frozen,
    /// and the leases must be renewed by another one before they end.
    async fn count_answers(&self, bucket: Bucket, outcome: &Result<Revision, WriteFault>) {
        if !matches!(bucket, Bucket::Lease(_)) {
            return;
        }
        if !matches!(outcome, Err(WriteFault::Unknown)) {
            self.unanswered.store(0, Ordering::Relaxed);
        } else if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX {
            self.unanswered.store(0, Ordering::Relaxed);
            self.leases.reconnect().await;
        }
    }

    async fn send(&self, subject: String, payload: Bytes) -> Result<(), NatsAskError> {
        if !self.rest.is_connected() {
            return Err(NatsAskError::Unreachable);
        }
        match timeout(ROOM_TIME_MAX, self.rest.client().publish(subject, payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NatsAskError::Unreachable),
        }
    }
}

#[async_trait]
impl Nats for NatsDoor {
    async fn update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        expected: Revision,
        timeout: Duration,
    ) -> Result<Revision, NatsWriteError> {
        let outcome = self.change(bucket, key, Some(value), expected, timeout).await;
        self.count_answers(bucket, &outcome).await;
        Ok(outcome?)
    }

    async fn remove(
        &self,
        bucket: Bucket,
        key: &str,
        expected: Revision,
        timeout: Duration,
    ) -> Result<Revision, NatsWriteError> {
        let removed = self.change(bucket, key, None, expected, timeout).await?;
        if let Bucket::Owners(_) = bucket {
            // Nobody follows these buckets, and there may be a mark for each client that was ever there. A later
            // record of the key has a higher sequence, and stays.
            let (stream, subject) =
                (self.stream_of(bucket), bucket_subject(&self.bucket_name(bucket), key));
            let _ = write::purge(&self.rest, &stream, &subject, removed.0 + 1, timeout).await;
        }
        Ok(removed)
    }

    async fn read(
        &self,
        bucket: Bucket,
        key: &str,
        timeout: Duration,
    ) -> Result<Option<BucketEntry>, NatsAskError> {
        let subject = bucket_subject(&self.bucket_name(bucket), key);
        let link = self.link_of(bucket);
        let found = write::last(link, &self.stream_of(bucket), &subject, timeout).await?;
        Ok(found.map(|message| BucketEntry {
            key: key.to_owned(),
            revision: Revision(message.sequence),
            value: message.payload,
        }))
    }

    fn watch(&self, bucket: Bucket) -> BoxStream<'static, BucketEvent> {
        let prefix = bucket_subject(&self.bucket_name(bucket), "");
        let follower = StreamFollower::new(self.link_of(bucket), &self.stream_of(bucket), 0);
        // The state goes with the stream, which has no other place for it.
        let next = |(mut follower, prefix, mut was_current): (StreamFollower, String, bool)| async move {
            loop {
                let event = match follower.next().await? {
                    FollowedEvent::Message(message) => {
                        let Some(key) = message.subject.strip_prefix(&prefix) else { continue };
                        let (key, revision) = (key.to_owned(), Revision(message.sequence));
                        BucketEvent::Entry(BucketEntry { key, revision, value: message.payload })
                    }
                    // Told once; the followers of a bucket know the rest from its entries.
                    FollowedEvent::Current(_) if !was_current => {
                        was_current = true;
                        BucketEvent::Current
                    }
                    FollowedEvent::Current(_) | FollowedEvent::Restarted => continue,
                };
                return Some((event, (follower, prefix, was_current)));
            }
        };
        stream::unfold((follower, prefix, false), next).boxed()
    }

    async fn append(
        &self,
        log: Log,
        node: &NodeId,
        id: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Sequence, NatsWriteError> {
        // The stream compares identifiers of all nodes.
        let id = format!("{node}.{id}");
        let terms = WriteTerms { id: Some(&id), ..WriteTerms::default() };
        let subject = self.log_subject(log, node);
        let Revision(sequence) = write(&self.rest, subject, payload, terms, timeout).await?;
        Ok(Sequence(sequence))
    }

    fn follow(&self, log: Log, after: Sequence) -> BoxStream<'static, LogEntry> {
        let prefix = format!("{}.{log}.", self.prefix);
        let follower = StreamFollower::new(&self.rest, &self.log_name(log), after.0);
        let next = |(mut follower, prefix): (StreamFollower, String)| async move {
            loop {
                let FollowedEvent::Message(message) = follower.next().await? else { continue };
                let node = message.subject.strip_prefix(&prefix).and_then(NodeId::new);
                let (Some(node), Some(payload)) = (node, message.payload) else { continue };
                let entry = LogEntry { node, sequence: Sequence(message.sequence), payload };
                return Some((entry, (follower, prefix)));
            }
        };
        stream::unfold((follower, prefix), next).boxed()
    }

    async fn cut(&self, log: Log, node: &NodeId, before: Sequence) -> Result<(), NatsWriteError> {
        let subject = self.log_subject(log, node);
        let name = self.log_name(log);
        Ok(write::purge(&self.rest, &name, &subject, before.0, CUT_TIME_MAX).await?)
    }

    async fn publish(
        &self,
        to: &Address,
        incarnation: u64,
        payload: Bytes,
    ) -> Result<(), NatsAskError> {
        self.send(self.subject(to, incarnation), payload).await
    }

    fn subscribe(&self, at: &Address, incarnation: u64) -> BoxStream<'static, Bytes> {
        let messages = subscribed(self.rest.client(), self.subject(at, incarnation));
        messages.map(|message| message.payload).boxed()
    }

    async fn ask(
        &self,
        to: &NodeId,
        incarnation: u64,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NatsAskError> {
        let subject = self.subject(&Address::Ask(to.clone()), incarnation);
        Ok(self.rest.ask(subject, None, payload, timeout).await?.payload)
    }

    fn questions(&self, node: &NodeId, incarnation: u64) -> BoxStream<'static, AskedQuestion> {
        asked_at(self.rest.client(), self.subject(&Address::Ask(node.clone()), incarnation))
    }

    async fn call(
        &self,
        to: &NodeId,
        incarnation: u64,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NatsAskError> {
        let subject = self.subject(&Address::Clients(to.clone()), incarnation);
        Ok(self.rest.ask(subject, None, payload, timeout).await?.payload)
    }

    fn calls(&self, node: &NodeId, incarnation: u64) -> BoxStream<'static, AskedQuestion> {
        asked_at(self.rest.client(), self.subject(&Address::Clients(node.clone()), incarnation))
    }

    async fn answer(&self, question: &AskedQuestion, payload: Bytes) -> Result<(), NatsAskError> {
        self.send(question.reply_to.clone(), payload).await
    }

    fn payload_bytes_max(&self) -> usize {
        self.rest.client().max_payload()
    }
}

/// Returns the questions that arrive at a subject.
fn asked_at(client: &Client, subject: String) -> BoxStream<'static, AskedQuestion> {
    let questions = subscribed(client, subject).filter_map(|message| async move {
        let reply_to = message.reply?.as_str().to_owned();
        Some(AskedQuestion { payload: message.payload, reply_to })
    });
    questions.boxed()
}

/// Subscribes now if the queue of the connection has room, otherwise when the stream is first read.
fn subscribed(client: &Client, subject: String) -> BoxStream<'static, async_nats::Message> {
    let subscribe = |client: Client, subject: String| async move {
        client.subscribe(subject).await.ok() // It fails after the end of the link.
    };
    let now: Option<Option<Subscriber>> = subscribe(client.clone(), subject.clone()).now_or_never();
    match now {
        Some(subscriber) => stream::iter(subscriber).flatten().boxed(),
        None => stream::once(subscribe(client.clone(), subject))
            .flat_map(stream::iter)
            .flatten()
            .boxed(),
    }
}

impl From<WriteFault> for NatsWriteError {
    fn from(fault: WriteFault) -> Self {
        match fault {
            WriteFault::Conflict(found) => Self::Conflict(found),
            WriteFault::NotConnected | WriteFault::NoLeader | WriteFault::Unknown => Self::Unknown,
            WriteFault::Refused(why) => Self::Refused(why),
        }
    }
}

impl From<AskFault> for NatsAskError {
    fn from(fault: AskFault) -> Self {
        match fault {
            AskFault::NotConnected | AskFault::NoResponders | AskFault::Unfit(_) => {
                Self::Unreachable
            }
            AskFault::NoAnswer => Self::Timeout,
        }
    }
}
