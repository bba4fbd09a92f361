//! Writes to streams and buckets, and their outcomes. A write is sent once; only a compare-and-set
//! by revision decides anything.
//!
//! Knows subjects, headers and error codes of JetStream; does not know what is written. Called by the
//! door and by `records`.

use std::time::Duration;

use async_nats::{
    HeaderMap, HeaderValue,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID, NATS_MESSAGE_TTL},
    jetstream::{
        ErrorCode,
        stream::{PurgeErrorKind, RawMessageErrorKind},
    },
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::link::{AskFault, NatsLink};
use crate::journal::Revision;

/// The header by which a bucket marks a removal.
const OPERATION: &str = "KV-Operation";

/// Bytes of a subject; NATS refuses a line of 4,096 by default.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// The outcome of a write that was not made, or is not known to be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WriteFault {
    /// The subject has another revision: this one, 0 if there is none; `None` if the server did not say.
    #[error("it was changed by another writer")]
    Conflict(Option<Revision>),
    /// There is no connection: certainly not written.
    #[error("there is no connection to NATS")]
    NotConnected,
    /// The stream has no leader, or JetStream no quorum: certainly not written.
    #[error("the stream has no leader")]
    NoLeader,
    /// Written now, later or never.
    #[error("NATS did not answer in time")]
    Unknown,
    /// The server refused it: certainly not written.
    #[error("NATS refused it: {0}")]
    Refused(String),
}

/// The kind of one message of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredMessage {
    pub(super) sequence: u64,
    /// `None` if it marks a removal.
    pub(super) payload: Option<Bytes>,
}

/// The answer to a write, as JetStream sends it.
#[derive(Deserialize)]
struct WriteAnswer {
    #[serde(default)]
    seq: u64,
    error: Option<WriteError>,
}

#[derive(Deserialize)]
struct WriteError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteTerms<'a> {
    /// The sequence of the last message of the subject; 0: there must be none; `None`: anything.
    pub(super) expected: Option<Revision>,
    /// Whether it marks a removal.
    pub(super) is_removal: bool,
    /// Within two minutes, the same identifier is written once.
    pub(super) id: Option<&'a str>,
    /// The time after which the stream drops it; `None`: never.
    pub(super) kept_secs: Option<u64>,
}

/// Writes a message to the stream that has its subject.
pub(super) async fn write(
    link: &NatsLink,
    subject: String,
    payload: Bytes,
    terms: WriteTerms<'_>,
    time_max: Duration,
) -> Result<Revision, WriteFault> {
    if subject.len() > SUBJECT_BYTES_MAX {
        return Err(WriteFault::Refused("the key is too long".to_owned()));
    }
    let mut headers = HeaderMap::new();
    // The compare-and-set: the server compares it with the last message of this subject.
    if let Some(Revision(expected)) = terms.expected {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
    }
    if terms.is_removal {
        headers.insert(OPERATION, "DEL");
    }
    // A repeated write with this identifier counts once.
    if let Some(id) = terms.id {
        headers.insert(NATS_MESSAGE_ID, id);
    }
    if let Some(secs) = terms.kept_secs {
        headers.insert(NATS_MESSAGE_TTL, HeaderValue::from(secs));
    }
    let headers = (!headers.is_empty()).then_some(headers);
    match link.ask(subject, headers, payload, time_max).await {
        Ok(answer) => outcome(&answer.payload),
        Err(AskFault::NotConnected) => Err(WriteFault::NotConnected),
        Err(AskFault::NoResponders) => Err(WriteFault::NoLeader),
        Err(AskFault::NoAnswer) => Err(WriteFault::Unknown),
        Err(AskFault::Unfit(why)) => Err(WriteFault::Refused(why)),
    }
}

/// Reads the answer to a write. An unreadable answer leaves the outcome unknown.
fn outcome(answer: &[u8]) -> Result<Revision, WriteFault> {
    let Ok(answer) = serde_json::from_slice::<WriteAnswer>(answer) else {
        return Err(WriteFault::Unknown);
    };
    // No error and no sequence is an answer of something else.
    let Some(error) = answer.error else {
        return if answer.seq == 0 { Err(WriteFault::Unknown) } else { Ok(Revision(answer.seq)) };
    };
    Err(match ErrorCode(error.err_code) {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE => {
            // "wrong last sequence: 17", of the subject.
            let found =
                error.description.rsplit(": ").next().and_then(|number| number.parse().ok());
            WriteFault::Conflict(found.map(Revision))
        }
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
        | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY => WriteFault::Conflict(None),
        ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => WriteFault::NoLeader,
        // The first attempt is not decided yet.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => WriteFault::Unknown,
        // A server that fails while it stores may have stored.
        _ if error.code >= 500 => WriteFault::Unknown,
        _ => WriteFault::Refused(error.description),
    })
}

/// Returns the last message of a subject as the server that believes to lead the stream has it.
pub(super) async fn last(
    link: &NatsLink,
    stream: &str,
    subject: &str,
    time_max: Duration,
) -> Result<Option<StoredMessage>, AskFault> {
    message(link, stream, WantedMessage::Last(subject), time_max).await
}

/// Returns the message of a sequence; `None` if it is not there any more. What a sequence has never
/// changes.
pub(super) async fn at(
    link: &NatsLink,
    stream: &str,
    sequence: u64,
    time_max: Duration,
) -> Result<Option<StoredMessage>, AskFault> {
    message(link, stream, WantedMessage::At(sequence), time_max).await
}

enum WantedMessage<'a> {
    Last(&'a str),
    At(u64),
}

async fn message(
    link: &NatsLink,
    stream: &str,
    wanted: WantedMessage<'_>,
    time_max: Duration,
) -> Result<Option<StoredMessage>, AskFault> {
    // The client would wait for a connection.
    if !link.is_connected() {
        return Err(AskFault::NotConnected);
    }
    let ask = async {
        // Asking for the information of the stream would cost one more round trip.
        let stream = link.jetstream().get_stream_no_info(stream).await;
        let stream = stream.map_err(|error| AskFault::Unfit(error.to_string()))?;
        let builder = stream.raw_message_builder();
        let builder = match wanted {
            WantedMessage::Last(subject) => builder.last_by_subject(subject),
            WantedMessage::At(sequence) => builder.sequence(sequence),
        };
        match builder.send().await {
            Ok(message) => {
                let is_removal = is_removal(&message.headers);
                let payload = (!is_removal).then_some(message.payload);
                Ok(Some(StoredMessage { sequence: message.sequence, payload }))
            }
            // Absent is an answer, not a fault.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) if error.kind() == RawMessageErrorKind::InvalidSubject => {
                Err(AskFault::Unfit(error.to_string()))
            }
            Err(_) => Err(AskFault::NoAnswer),
        }
    };
    // A late answer cannot change anything, because reads decide nothing.
    timeout(time_max, ask).await.unwrap_or(Err(AskFault::NoAnswer))
}

/// Takes the messages of a subject before a sequence off their stream.
pub(super) async fn purge(
    link: &NatsLink,
    stream: &str,
    subject: &str,
    before: u64,
    time_max: Duration,
) -> Result<(), WriteFault> {
    if !link.is_connected() {
        return Err(WriteFault::NotConnected);
    }
    let ask = async {
        let stream = link.jetstream().get_stream_no_info(stream).await;
        let stream = stream.map_err(|error| WriteFault::Refused(error.to_string()))?;
        match stream.purge().filter(subject).sequence(before).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.kind() {
                // Below 500 the request is at fault, from 500 on the server.
                PurgeErrorKind::JetStream(error) if error.code() < 500 => {
                    WriteFault::Refused(error.to_string())
                }
                PurgeErrorKind::JetStream(_) => WriteFault::NoLeader,
                PurgeErrorKind::Request | PurgeErrorKind::TimedOut => WriteFault::Unknown,
            }),
        }
    };
    timeout(time_max, ask).await.unwrap_or(Err(WriteFault::Unknown))
}

/// Returns whether a message of a bucket marks a removal, by a writer or by the server.
pub(super) fn is_removal(headers: &HeaderMap) -> bool {
    let operation = headers.get(OPERATION).map(|value| value.as_str());
    matches!(operation, Some("DEL" | "PURGE")) || headers.get("Nats-Marker-Reason").is_some()
}

#[cfg(test)]
mod tests {
    //! Answers of nats-server 2.12.8, and unreadable answers.

    use super::*;

    #[test]
    fn an_answer_says_what_became_of_the_write() {
        let wrong = |description: &str| {
            format!(r#"{{"error":{{"code":400,"err_code":10071,"description":"{description}"}}}}"#)
        };
        let cases = [
            (r#"{"stream":"KV_a","seq":7}"#.to_owned(), Ok(Revision(7))),
            (r#"{"stream":"S","seq":7,"duplicate":true}"#.to_owned(), Ok(Revision(7))),
            (wrong("wrong last sequence: 17"), Err(WriteFault::Conflict(Some(Revision(17))))),
            (wrong("wrong last sequence: 0"), Err(WriteFault::Conflict(Some(Revision(0))))),
            (wrong("wrong last sequence"), Err(WriteFault::Conflict(None))),
            (
                r#"{"error":{"code":503,"err_code":10008,"description":"temporarily"}}"#.to_owned(),
                Err(WriteFault::NoLeader),
            ),
            (
                r#"{"error":{"code":503,"err_code":10077,"description":"failed"}}"#.to_owned(),
                Err(WriteFault::Unknown),
            ),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"too long"}}"#.to_owned(),
                Err(WriteFault::Refused("too long".to_owned())),
            ),
            ("{}".to_owned(), Err(WriteFault::Unknown)),
            (String::new(), Err(WriteFault::Unknown)),
            ("7".to_owned(), Err(WriteFault::Unknown)),
        ];
        for (answer, expected) in cases {
            assert_eq!(outcome(answer.as_bytes()), expected, "{answer}");
        }
    }
}
