//! The body of a call that starts a trace, and the records of traces as programs see them.
//!
//! Records are only described here: `traces` writes them. A test compares both.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{ObjectBuilder, Type, schema::Schema},
};

use crate::{control::TraceKind, labels::Label as _};

/// A trace to start: one of `client_id`, `username` and `address` says whose packets it records.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTrace {
    /// The client with this identifier.
    #[schema(min_length = 1)]
    pub(super) client_id: Option<String>,
    /// The clients of this user.
    #[schema(min_length = 1)]
    pub(super) username: Option<String>,
    /// The clients at this IP address, or in a network like `10.0.0.0/8`.
    pub(super) address: Option<String>,
    /// Seconds after which it ends; default 60.
    #[schema(minimum = 1, maximum = 3_600)]
    pub(super) duration_seconds: Option<u32>,
    /// Whether it records contents of messages: up to 4,096 bytes of payloads, Correlation Data, and the
    /// values of User Properties.
    pub(super) payloads: Option<bool>,
    /// Only records of these kinds.
    #[schema(min_items = 1, max_items = 18)]
    pub(super) kinds: Option<Vec<String>>,
}

/// A trace that has begun.
#[derive(Serialize, ToSchema)]
pub(super) struct TraceStarted {
    /// Always `true`.
    pub(super) success: bool,
    /// Its identifier.
    #[schema(value_type = String)]
    pub(super) id: Arc<str>,
    /// When it ends, in milliseconds since the Unix epoch.
    pub(super) ends_at: u64,
}

/// The trace in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct TraceInPath {
    /// The identifier of the trace.
    #[param(example = "5b1e0c6f0a93d724")]
    id: String,
}

/// A record of a trace: a packet, or an event of a connection. A member that does not apply is absent.
#[derive(Serialize, ToSchema)]
#[schema(as = TraceRecord)]
pub(super) struct ShownRecord {
    /// Its number among those of the trace, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    /// The number of records that were dropped before this one because the caller did not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    /// When it was seen, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    /// The same in microseconds since the start of the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    micros: Option<u64>,
    /// Client Identifier, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// IP address and port of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// `in`: from the client, `out`: to it; absent for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(in|out)$")]
    direction: Option<String>,
    /// The packet, or the event. `trace_ended` is the last line, which has no other member.
    #[schema(schema_with = all_kinds)]
    kind: String,
    /// Bytes of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Packet Identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_id: Option<u16>,
    /// Topic Name; empty with a Topic Alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// QoS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 2)]
    qos: Option<u8>,
    /// RETAIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
    /// DUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    dup: Option<bool>,
    /// Bytes of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
    /// The first 4,096 bytes of the payload, of a trace with payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// 3 (MQTT 3.1), 4 (3.1.1) or 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u8>,
    /// User Name of CONNECT; of a token only that it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Whether CONNECT has a Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_password: Option<bool>,
    /// Clean Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    clean_start: Option<bool>,
    /// Keep Alive in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<u16>,
    /// Session Present.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_present: Option<bool>,
    /// Reason Code, before MQTT 5.0 its equivalent.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<u8>,
    /// The name of a Reason Code that is not 0, or why a connection was refused or has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The user name of the caller that has ended a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Properties, by their names in MQTT 5.0. The values of User Properties and Correlation Data are
    /// contents of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    properties: Option<()>,
    /// The Will of CONNECT.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    will: Option<WillMembers>,
    /// Topic Filters, at most 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    filters: Option<Vec<TracedFilter>>,
    /// Reason Codes of SUBACK or UNSUBACK, at most 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_codes: Option<Vec<u8>>,
    /// Whether the record has less than the packet, because the packet is too large or not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<bool>,
}

/// A Will.
#[derive(Serialize, ToSchema)]
struct WillMembers {
    /// Will Topic.
    topic: String,
    /// Will QoS.
    #[schema(maximum = 2)]
    qos: u8,
    /// Will Retain.
    retain: bool,
    /// Bytes of the Will Payload.
    payload_bytes: u64,
    /// The first 4,096 bytes of the Will Payload, of a trace with payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Will Properties.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    properties: Option<()>,
}

/// A Topic Filter of SUBSCRIBE or UNSUBSCRIBE.
#[derive(Serialize, ToSchema)]
struct TracedFilter {
    /// Topic Filter.
    filter: String,
    /// Maximum QoS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 2)]
    qos: Option<u8>,
}

fn name_among(names: impl Iterator<Item = &'static str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names.collect::<Vec<_>>()))
}

fn all_kinds() -> Schema {
    let names = TraceKind::ALL.iter().map(|kind| kind.name()).chain(["trace_ended"]);
    let description = "The packet, or the event. `trace_ended` is the last line, which has no other \
                       member.";
    Schema::Object(name_among(names).description(Some(description)).build())
}
