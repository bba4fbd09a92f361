//! The stream of retained messages, as the driver of retained messages needs it.
//!
//! Does not know what a message says.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::timeout as within;

use super::{
    NatsDoor,
    follow::{FollowedEvent, StreamFollower},
    write::{WriteFault, WriteTerms, write},
};
use crate::{
    cluster::{
        door::NatsAskError,
        names::Sequence,
        retaining::{
            door::{RetainedEvent, RetainedLog},
            writes::{StreamWrite, WriteEnd},
        },
    },
    journal::Revision,
};

/// Bytes of the subject and the headers of a message, which count against the maximum of NATS.
const HEAD_BYTES: usize = 1_024;

/// The purpose of the stream, in its name and its subjects.
pub(super) const RETAINED: &str = "retained";

impl NatsDoor {
    fn retained_name(&self) -> String {
        format!("{}_{RETAINED}", self.prefix)
    }
}

#[async_trait]
impl RetainedLog for NatsDoor {
    async fn retained_identity(&self, timeout: Duration) -> Result<u64, NatsAskError> {
        if !self.rest.is_connected() {
            return Err(NatsAskError::Unreachable);
        }
        let asked = within(timeout, self.rest.jetstream().get_stream(self.retained_name())).await;
        let stream = asked.map_err(|_| NatsAskError::Timeout)?;
        let created = stream.map_err(|_| NatsAskError::Unreachable)?.cached_info().created;
        Ok(created.unix_timestamp_nanos() as u64) // It fits until the year 2554.
    }

    fn follow_retained(&self, after: Sequence) -> BoxStream<'static, RetainedEvent> {
        let follower = StreamFollower::new(&self.rest, &self.retained_name(), after.0);
        let next = |mut follower: StreamFollower| async move {
            loop {
                let event = match follower.next().await? {
                    FollowedEvent::Message(message) => {
                        let sequence = Sequence(message.sequence);
                        match message.payload {
                            Some(payload) => RetainedEvent::Entry { sequence, payload },
                            None => continue, // A mark of the server, which this stream does not ask for.
                        }
                    }
                    FollowedEvent::Current(sequence) => RetainedEvent::Current(Sequence(sequence)),
                    FollowedEvent::Restarted => RetainedEvent::Restarted,
                };
                return Some((event, follower));
            }
        };
        stream::unfold(follower, next).boxed()
    }

    async fn write_retained(&self, of: StreamWrite, id: String, timeout: Duration) -> WriteEnd {
        let subject = format!("{}.{RETAINED}.{}", self.prefix, of.key);
        let terms = WriteTerms {
            expected: of.is_first_join.then_some(Revision(0)),
            id: Some(&id),
            kept_secs: of.kept_secs,
            ..WriteTerms::default()
        };
        match write(&self.rest, subject, of.payload, terms, timeout).await {
            Ok(Revision(sequence)) => WriteEnd::Written(Sequence(sequence)),
            Err(WriteFault::Conflict(_)) => WriteEnd::Present,
            Err(WriteFault::Refused(why)) => {
                tracing::warn!(reason = why, "NATS refuses a retained message");
                WriteEnd::Refused
            }
            Err(WriteFault::NotConnected | WriteFault::NoLeader | WriteFault::Unknown) => {
                WriteEnd::Unknown
            }
        }
    }

    fn retained_bytes_max(&self) -> usize {
        self.rest.client().max_payload().saturating_sub(HEAD_BYTES)
    }
}
