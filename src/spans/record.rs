//! A span that has ended. Knows no protocol by which it is exported.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::told;

/// A span that has ended.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only the exporter reads them"))]
pub(crate) struct SpanRecord {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) parent_id: [u8; 8],
    /// Whether the parent is a span of another process.
    pub(crate) has_remote_parent: bool,
    pub(crate) kind: SpanKind,
    pub(crate) name: Cow<'static, str>,
    /// Beginning and end, in nanoseconds since the Unix epoch.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) attributes: Vec<(&'static str, SpanValue)>,
    pub(crate) events: Vec<(&'static str, u64)>,
    /// The reason of a failure, if the operation failed.
    pub(crate) failed: Option<&'static str>,
}

/// The relation of a span to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// It is a part of the same work.
    Internal,
    /// It answers a call.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "calls come by HTTP"))]
    Server,
    /// It sends a message.
    Producer,
    /// It receives a message.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpanValue {
    Text(Cow<'static, str>),
    Number(i64),
    Flag(bool),
}

impl SpanValue {
    /// Returns text from a stranger, shortened and escaped as in the log.
    pub(crate) fn of_stranger(text: &str) -> Self {
        Self::Text(Cow::Owned(told::cut(text).into_owned()))
    }

    /// Returns a count.
    pub(crate) fn count(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&'static str> for SpanValue {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// Returns the nanoseconds since the Unix epoch.
pub(crate) fn nanos_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
