//! The streams and buckets of the cluster: how each must be, made when it is missing, checked when it is
//! there.
//!
//! Knows the settings of JetStream; does not know what is in a stream. Called by the door and by
//! `records` at their start.

use std::time::Duration;

use async_nats::jetstream::{
    Error, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use tokio::time::{Instant, sleep, timeout};

use super::link::NatsLink;

/// How long the server remembers the identifiers of messages, to write each once.
const IDS_KEPT: Duration = Duration::from_secs(120);

/// Between two attempts, while JetStream chooses its leaders.
const PAUSE: Duration = Duration::from_millis(200);

/// How long one attempt waits for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The text of a server about a subject that the user may not publish to. The server sends no other answer.
const NOT_ALLOWED: &str = "Permissions Violation";

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsStreamError {
    /// It is there, with other settings.
    #[error("use the stream {name} of NATS: its {what} is {found}, not {expected}")]
    Differs {
        /// Its name.
        name: String,
        /// The setting, as `nats stream info` shows it.
        what: &'static str,
        /// The value that was found.
        found: String,
        /// The value that is needed.
        expected: String,
    },
    /// JetStream refuses it.
    #[error("use the stream {0} of NATS: {1}")]
    Refused(String, String),
    /// No answer in time.
    #[error("use the stream {0} of NATS: no answer within {secs} s{told}", secs = .1.as_secs(), told = told(.2))]
    NoAnswer(String, Duration, Option<String>),
}

fn told(error: &Option<String>) -> String {
    error.as_ref().map_or_else(String::new, |error| format!("; the server said: {error}"))
}

/// How a stream must be.
#[derive(Clone, Debug)]
pub(super) struct StreamShape {
    name: String,
    subjects: String,
    kind: StreamKind,
    message_bytes_max: i32,
    replicas: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamKind {
    /// The last message of each subject, as a bucket of the key-value store.
    Bucket,
    /// All messages, until they are cut off.
    Log,
    /// The last message of each subject, until its own time is over.
    LastOfEach,
}

impl StreamShape {
    /// A bucket; its keys are what follows [`bucket_subject`].
    pub(super) fn bucket(bucket: &str, message_bytes_max: i32, replicas: usize) -> Self {
        Self {
            name: bucket_stream(bucket),
            subjects: bucket_subject(bucket, ">"),
            kind: StreamKind::Bucket,
            message_bytes_max,
            replicas,
        }
    }

    /// A log of messages under `{subject}.…`.
    pub(super) fn log(name: &str, subject: &str, message_bytes_max: i32, replicas: usize) -> Self {
        Self {
            name: name.to_owned(),
            subjects: format!("{subject}.>"),
            kind: StreamKind::Log,
            message_bytes_max,
            replicas,
        }
    }

    /// The last message of each subject under `{subject}.…`; a message may name how long it is kept.
    pub(super) fn last_of_each(name: &str, subject: &str, replicas: usize) -> Self {
        let kind = StreamKind::LastOfEach;
        // Without a limit of its own: what NATS accepts.
        Self { kind, ..Self::log(name, subject, -1, replicas) }
    }

    /// Makes the stream if it is missing, otherwise compares it. Waits while JetStream has no leader.
    pub(super) async fn ensure(
        &self,
        link: &NatsLink,
        time_max: Duration,
    ) -> Result<(), NatsStreamError> {
        let began = Instant::now();
        loop {
            // JetStream may have no leader for some seconds after a start.
            if let Ok(Some(outcome)) = timeout(ANSWER_TIME_MAX, self.attempt(link)).await {
                return outcome;
            }
            let told = link.state().take_told();
            // A missing permission does not heal by waiting.
            if let Some(told) = told.as_ref().filter(|told| told.contains(NOT_ALLOWED)) {
                return Err(NatsStreamError::Refused(self.name.clone(), told.clone()));
            }
            if began.elapsed() >= time_max {
                return Err(NatsStreamError::NoAnswer(self.name.clone(), time_max, told));
            }
            // The attempt may fail immediately, so a pause keeps it from spinning.
            sleep(PAUSE).await;
        }
    }

    /// Returns `None` if another attempt may succeed.
    async fn attempt(&self, link: &NatsLink) -> Option<Result<(), NatsStreamError>> {
        let jetstream = link.jetstream();
        let refused = |error: &Error| {
            link.state().tell(error.to_string());
            let refused = || Err(NatsStreamError::Refused(self.name.clone(), error.to_string()));
            is_lasting(error).then(refused)
        };
        // An existing stream is compared and never changed: its settings are the operator's.
        let found = match jetstream.get_stream(&self.name).await {
            Ok(stream) => return Some(self.compare(&stream.cached_info().config)),
            Err(error) => error.kind(),
        };
        // Only "not found" allows making it; everything else is refused or tried again.
        match found {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::JetStream(error) => return refused(&error),
            GetStreamErrorKind::Request
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::InvalidStreamName => return None,
        }
        match jetstream.create_stream(self.config()).await {
            // Another node may have made it in between, with other settings.
            Ok(made) => Some(self.compare(&made.cached_info().config)),
            Err(error) => {
                let CreateStreamErrorKind::JetStream(error) = error.kind() else { return None };
                refused(&error)
            }
        }
    }

    fn config(&self) -> Config {
        let is_bucket = self.kind == StreamKind::Bucket;
        let keeps_last = self.kind != StreamKind::Log;
        Config {
            name: self.name.clone(),
            subjects: vec![self.subjects.clone()],
            max_messages: -1,
            max_bytes: -1,
            // A bucket keeps the last message of each key.
            max_messages_per_subject: if keeps_last { 1 } else { -1 },
            max_message_size: self.message_bytes_max,
            max_consumers: -1,
            retention: RetentionPolicy::Limits,
            // A full stream refuses writes; dropping old ones would lose records.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.replicas,
            duplicate_window: IDS_KEPT,
            allow_rollup: is_bucket,
            deny_delete: is_bucket,
            // A direct get is answered by any replica, from any past.
            allow_direct: false,
            allow_message_ttl: self.kind == StreamKind::LastOfEach,
            ..Config::default()
        }
    }

    /// Compares the settings that promises depend on. Others are the operator's.
    fn compare(&self, found: &Config) -> Result<(), NatsStreamError> {
        let wanted = self.config();
        // Values of different types are compared, and shown to the operator, as text.
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let settings: [(&'static str, String, String); 9] = [
            ("subjects", text(&found.subjects), text(&wanted.subjects)),
            (
                "messages per subject",
                text(&found.max_messages_per_subject),
                text(&wanted.max_messages_per_subject),
            ),
            ("maximum age", text(&found.max_age), text(&wanted.max_age)),
            (
                "time to live of a message",
                text(&found.allow_message_ttl),
                text(&wanted.allow_message_ttl),
            ),
            ("retention", text(&found.retention), text(&wanted.retention)),
            ("discard policy", text(&found.discard), text(&wanted.discard)),
            ("storage", text(&found.storage), text(&wanted.storage)),
            ("number of replicas", text(&found.num_replicas), text(&wanted.num_replicas)),
            (
                "mirror or source",
                text(&(found.mirror.is_some() || found.sources.as_ref().is_some())),
                text(&false),
            ),
        ];
        match settings.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((what, found, expected)) => {
                Err(NatsStreamError::Differs { name: self.name.clone(), what, found, expected })
            }
        }
    }
}

/// Returns whether an error stays: it is about the request, and not about the state of the servers. A
/// server that has just started knows no others, and says that there are too few of them.
fn is_lasting(error: &Error) -> bool {
    // If another node was faster, the next attempt compares.
    let passes = [ErrorCode::CLUSTER_NO_PEERS, ErrorCode::STREAM_NAME_EXIST];
    error.code() < 500 && !passes.contains(&error.error_code())
}

/// Returns the name of the stream of a bucket.
pub(super) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Returns the subject of a key of a bucket.
pub(super) fn bucket_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}
