//! A batch of events: the body of one message, and how it is divided into records of the store.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{control::FeedItem, mqtt::Timestamp, records::VALUE_BYTES_MAX};

/// Bytes of JSON from which a batch is complete.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// The first byte of a record that is continued by the next one.
const CONTINUED: u8 = b'+';
/// The first byte of the last record of a batch.
const LAST: u8 = b'.';

/// Events that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventBatch {
    /// The identifier of the message, the same at each attempt.
    pub(super) message_id: String,
    pub(super) events: u64,
    /// When the batch was begun.
    pub(super) at: Timestamp,
    pub(super) body: Bytes,
}

#[derive(Serialize)]
struct BodyJson<'b> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'b str,
    timestamp: u64,
    node: &'b str,
    events: Vec<EventJson<'b>>,
}

#[derive(Serialize)]
struct EventJson<'b> {
    id: String,
    event: &'static str,
    data: &'b RawValue,
}

/// The part of a stored batch that a start reads.
#[derive(Deserialize)]
struct StoredBody {
    id: String,
    timestamp: u64,
    events: Vec<serde::de::IgnoredAny>,
}

impl EventBatch {
    /// Makes the message of these items; its number counts the messages of a webhook.
    pub(super) fn new(
        (epoch, number): (u64, u64),
        node: &str,
        items: &[FeedItem],
        at: Timestamp,
    ) -> Self {
        // Unique over restarts, because receivers drop messages with an identifier that they know.
        let message_id = format!("msg_{epoch:016x}_{number}");
        let events = items.iter().filter_map(|item| {
            let data = serde_json::from_slice(&item.json).ok()?;
            Some(EventJson { id: item.id.to_string(), event: item.kind.name(), data })
        });
        let body = BodyJson {
            kind: "presence",
            id: &message_id,
            timestamp: at.millis(),
            node,
            events: events.collect(),
        };
        let body = serde_json::to_vec(&body).expect("texts, numbers and JSON are JSON");
        Self { events: items.len() as u64, at, body: body.into(), message_id }
    }

    /// Reads a stored batch again; returns `None` if the bytes are not a batch.
    pub(super) fn of_body(body: Bytes) -> Option<Self> {
        let StoredBody { id, timestamp, events } = serde_json::from_slice(&body).ok()?;
        Some(Self { message_id: id, events: events.len() as u64, at: Timestamp(timestamp), body })
    }

    /// Divides the body into values of records, at least one.
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = Bytes> {
        let parts = self.body.chunks(VALUE_BYTES_MAX - 1);
        let last = parts.len() - 1;
        parts.enumerate().map(move |(number, part)| {
            let first = if number == last { LAST } else { CONTINUED };
            [&[first], part].concat().into()
        })
    }
}

/// Puts the values of records together again.
#[derive(Default)]
pub(super) struct Assembly(Vec<u8>);

impl Assembly {
    /// Adds the next value; returns the body if it is complete.
    pub(super) fn add(&mut self, value: &[u8]) -> Option<Bytes> {
        let (first, part) = value.split_first()?;
        self.0.extend_from_slice(part);
        (*first == LAST).then(|| std::mem::take(&mut self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{EventId, FeedKind};

    fn item(number: u64, text: &str) -> FeedItem {
        let json = serde_json::json!({ "clientid": text }).to_string();
        FeedItem::new(EventId { epoch: 1, number }, FeedKind::ClientConnected, json.into())
    }

    #[test]
    fn a_batch_is_one_json_object() {
        let batch = EventBatch::new((1, 7), "n", &[item(3, "a"), item(4, "b")], Timestamp(5));
        let expected = r#"{"type":"presence","id":"msg_0000000000000001_7","timestamp":5,"node":"n","events":[{"id":"0000000000000001.3","event":"client_connected","data":{"clientid":"a"}},{"id":"0000000000000001.4","event":"client_connected","data":{"clientid":"b"}}]}"#;
        assert_eq!(batch.body, expected);
        assert_eq!(EventBatch::of_body(batch.body.clone()), Some(batch));
    }

    #[test]
    fn a_batch_of_any_length_comes_back_from_its_records() {
        for length in [1, VALUE_BYTES_MAX - 300, VALUE_BYTES_MAX, 5 * VALUE_BYTES_MAX] {
            let batch = EventBatch::new((1, 1), "n", &[item(1, &"x".repeat(length))], Timestamp(5));
            let mut assembly = Assembly::default();
            let values: Vec<_> = batch.values().collect();
            assert!(values.iter().all(|value| value.len() <= VALUE_BYTES_MAX));
            let bodies: Vec<_> = values.iter().filter_map(|value| assembly.add(value)).collect();
            assert_eq!((bodies.len(), &bodies[0]), (1, &batch.body), "{length}");
        }
    }
}
