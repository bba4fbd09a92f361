//! Follows a stream: what it has, then what comes, in its order and without a gap, also over lost
//! connections and dead servers.
//!
//! ```text
//!            ┌─ consumer made ─┐      ┌── a message with none pending, or none at all
//!  Absent ──▶│     Reading     │──────▶ Current (told once) ──▶ reading on
//!     ▲      └─────────────────┘
//!     └── its heartbeat is missed, the stream of messages ends, or it is quiet while there is more
//! ```
//!
//! The consumer is an ordered one of async-nats, which numbers its messages, and replaces itself when a
//! number is missing or the connection is back. It then tries one name until that succeeds, and was seen to
//! give nothing more until a dead server was back (0.51; probably JetStream had placed this name there). So
//! a quiet follower compares itself with the stream, and makes another consumer behind its last message.
//! Does not know what a message says. Called by the door and by `records`.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        consumer::{
            DeliverPolicy,
            push::{Ordered, OrderedConfig},
        },
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{
    link::{LinkState, NatsLink},
    write::is_removal,
};

/// The pause between two attempts to make a consumer.
const PAUSE: Duration = Duration::from_millis(250);

/// How long the making of a consumer may take. JetStream may choose a dead server for it; the next one
/// has another name, and so perhaps another server.
const MAKING_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a follower is quiet before it compares itself with the stream.
const QUIET_TIME_MAX: Duration = Duration::from_secs(2);

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FollowedMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// `None` if it marks a removal in a bucket.
    pub(super) payload: Option<Bytes>,
}

/// An event that a follower of a stream receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FollowedEvent {
    Message(FollowedMessage),
    /// The end of what the stream had at the beginning; it has nothing up to this sequence that was not
    /// told.
    Current(u64),
    /// Removals may have been missed. Everything that is there follows once more, then `Current`.
    Restarted,
}

/// Follows one stream. It ends when its link does.
pub(super) struct StreamFollower {
    jetstream: Context,
    link: Arc<LinkState>,
    stream: String,
    consumer: Option<Ordered>,
    /// The sequence of the last message that was given out, or to begin behind.
    last: u64,
    /// The last sequence of the stream when the consumer was made, by its leader.
    until: u64,
    /// Whether the last consumer delivered nothing, although the stream has more. If the next one delivers
    /// nothing either, the missing messages were cut off.
    is_quiet: bool,
    /// The log was cut off up to here.
    nothing_up_to: u64,
    is_current: bool,
    /// The subject whose messages say up to which sequence marks of removals were taken away, and how old
    /// these are at least.
    swept: Option<(String, Duration)>,
    /// The last sequence before a gap, and when the follower went on.
    gap: Option<(u64, Instant)>,
    waiting: Option<FollowedEvent>,
}

impl StreamFollower {
    /// Follows a stream from the message behind a sequence on.
    pub(super) fn new(link: &NatsLink, stream: &str, after: u64) -> Self {
        Self {
            jetstream: link.jetstream().clone(),
            link: Arc::clone(link.state()),
            stream: stream.to_owned(),
            consumer: None,
            last: after,
            until: 0,
            is_quiet: false,
            nothing_up_to: 0,
            is_current: false,
            swept: None,
            gap: None,
            waiting: None,
        }
    }

    /// Follows a stream from which marks of removals are taken away that have this age, as a message of
    /// the subject says before: its text is the highest sequence.
    pub(super) fn with_swept(mut self, subject: String, mark_age: Duration) -> Self {
        self.swept = Some((subject, mark_age));
        self
    }

    /// Waits for the next event; `None` after the end of the link.
    pub(super) async fn next(&mut self) -> Option<FollowedEvent> {
        loop {
            if let Some(event) = self.waiting.take() {
                return Some(event);
            }
            // Without a consumer there is nothing to wait for; making one may take several attempts.
            let Some(consumer) = self.consumer.as_mut() else {
                if self.link.is_closed() {
                    return None;
                }
                if !self.make().await {
                    sleep(PAUSE).await;
                }
                continue;
            };
            // A consumer can be quiet for good without an error, so silence is examined.
            match timeout(QUIET_TIME_MAX, consumer.next()).await {
                Ok(Some(Ok(message))) => {
                    let Ok(info) = message.info() else { continue };
                    let (sequence, pending) = (info.stream_sequence, info.pending);
                    // The first message shows where the consumer begins.
                    let is_first = info.consumer_sequence == 1;
                    let none = HeaderMap::new();
                    let removed = is_removal(message.headers.as_ref().unwrap_or(&none));
                    let payload = (!removed).then(|| message.payload.clone());
                    let subject = message.subject.as_str().to_owned();
                    let message = FollowedMessage { subject, sequence, payload };
                    if let Some(event) = self.take(message, pending, is_first) {
                        return Some(event);
                    }
                }
                // The next round makes another consumer behind the last message.
                Ok(Some(Err(error))) => {
                    debug!(stream = %self.stream, reason = %error, "consumer of NATS lost");
                    self.consumer = None;
                }
                Ok(None) => self.consumer = None,
                Err(_) => {
                    // Nothing is missing if the stream has no message behind the last one that was seen.
                    let seen = self.last.max(self.nothing_up_to);
                    let until = last_sequence(&self.jetstream, &self.stream);
                    if !self.is_current || until.await.is_some_and(|until| until > seen) {
                        (self.consumer, self.is_quiet) = (None, true);
                    }
                }
            }
        }
    }

    /// Makes a consumer that begins behind the last message.
    async fn make(&mut self) -> bool {
        let making = async {
            let stream = self.jetstream.get_stream(&self.stream).await.ok()?;
            let info = stream.cached_info().state.clone();
            // A start sequence of 0 is not allowed, so everything is asked for in another way.
            let deliver_policy = match self.last {
                0 => DeliverPolicy::All,
                last => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
            };
            let config = OrderedConfig {
                deliver_subject: self.jetstream.client().new_inbox(),
                deliver_policy,
                ..OrderedConfig::default()
            };
            let consumer = stream.create_consumer(config).await.ok()?;
            let pending = consumer.cached_info().num_pending;
            Some((consumer.messages().await.ok()?, info, pending))
        };
        // Each step may wait for a server that is gone, so all of them have one limit.
        let Ok(Some((consumer, state, pending))) = timeout(MAKING_TIME_MAX, making).await else {
            return false;
        };
        let until = state.last_sequence;
        if until < self.last {
            // Another stream has taken the place of the one that was followed.
            self.restart();
            self.waiting = Some(FollowedEvent::Restarted);
            return true;
        }
        self.consumer = Some(consumer);
        // Without messages, the follower is at the end already.
        self.until = if state.messages == 0 { 0 } else { until };
        if pending == 0 {
            // The consumer was asked while the stream was quiet, so there is nothing up to this sequence.
            if self.is_quiet {
                self.nothing_up_to = until;
            }
            self.come_to_the_end();
        }
        true
    }

    /// Handles a message; returns the event to report first.
    fn take(
        &mut self,
        message: FollowedMessage,
        pending: u64,
        is_first: bool,
    ) -> Option<FollowedEvent> {
        // A new consumer may have left out messages that were removed in between.
        if is_first && self.last > 0 {
            let earlier = self.gap.map_or(self.last, |(last, _)| last.min(self.last));
            self.gap = Some((earlier, Instant::now()));
        }
        // Removals that nobody told would leave records that do not exist any more.
        if self.may_have_missed_removals(&message) {
            self.restart();
            return Some(FollowedEvent::Restarted);
        }
        if message.sequence <= self.last {
            // The consumer has replaced itself before its first message, and begins too early.
            if pending == 0 {
                self.come_to_the_end();
            }
            return None;
        }
        self.last = message.sequence;
        self.is_quiet = false;
        if pending == 0 {
            self.come_to_the_end();
        }
        Some(FollowedEvent::Message(message))
    }

    /// Returns whether a message says that marks were taken away which the follower has not seen: they were
    /// behind the last sequence before a gap, and older than the follower since then. What was marked
    /// later, the follower has seen.
    fn may_have_missed_removals(&self, message: &FollowedMessage) -> bool {
        let Some((subject, mark_age)) = &self.swept else { return false };
        if *subject != message.subject {
            return false;
        }
        let text = message.payload.as_deref().unwrap_or_default();
        let swept = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let swept: u64 = swept.unwrap_or(u64::MAX);
        let is_in_gap = |(last, since): (u64, Instant)| swept > last && since.elapsed() < *mark_age;
        self.gap.is_some_and(is_in_gap)
    }

    /// Notes the end of the messages that the server of the consumer has. This server may be behind the
    /// leader of the stream; the missing messages then come soon.
    fn come_to_the_end(&mut self) {
        if self.last < self.until && !self.is_quiet {
            return;
        }
        if !self.is_current {
            self.is_current = true;
            self.waiting = Some(FollowedEvent::Current(self.until.max(self.last)));
        }
    }

    /// Begins with everything once more.
    fn restart(&mut self) {
        self.consumer = None;
        self.last = 0;
        self.gap = None;
        self.is_quiet = false;
        self.nothing_up_to = 0;
        self.is_current = false;
        self.waiting = None;
    }
}

/// Returns the last sequence of a stream, by its leader; `None` without an answer.
async fn last_sequence(jetstream: &Context, stream: &str) -> Option<u64> {
    let asked = timeout(MAKING_TIME_MAX, jetstream.get_stream(stream)).await;
    Some(asked.ok()?.ok()?.cached_info().state.last_sequence)
}
