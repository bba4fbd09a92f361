//! Describes events for programs: what the feed and webhooks send.
//!
//! Only described here: `hooks::json` and the feed write the events. A test compares both.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type, schema::Schema},
};

use crate::{control::FeedKind, hooks::DisconnectReason, labels::Label, metrics::ConnectRefusal};

/// An event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(in crate::http::v1) struct ShownEvent {
    /// `<epoch>.<number>`; `last_event_id` and `after` continue behind it.
    id: String,
    /// Its kind.
    #[schema(schema_with = kinds)]
    event: String,
    /// The members of an event of this kind.
    data: EventData,
}

/// The members of an event, by its kind. `snapshot` has the same as `client_connected`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described here")]
enum EventData {
    ClientConnected(ClientConnectedEvent),
    ClientDisconnected(ClientDisconnectedEvent),
    ClientKeepaliveChanged(ClientKeepaliveChangedEvent),
    SessionChanged(SessionChangedEvent),
    ClientRefused(ClientRefusedEvent),
    ClientBanned(ClientBannedEvent),
    BrokerStarted(BrokerStartedEvent),
    SnapshotEnd(SnapshotEndEvent),
    Reset(ResetEvent),
}

/// A client has connected, or is online in a snapshot.
#[derive(Serialize, ToSchema)]
struct ClientConnectedEvent {
    /// Client Identifier.
    clientid: String,
    /// User name; `null` for a client without one.
    #[schema(required = true)]
    username: Option<String>,
    /// `client.connected`.
    #[schema(schema_with = client_connected)]
    event: String,
    /// Clean Start; before MQTT 5.0 Clean Session.
    clean_start: bool,
    /// When the connection began, in milliseconds since the Unix epoch.
    connected_at: u64,
    /// Keep Alive in force, in seconds.
    keepalive: u16,
    /// The node that has the connection.
    node: String,
    /// 3 (MQTT 3.1), 4 (3.1.1) or 5.
    #[schema(minimum = 3, maximum = 5)]
    proto_ver: u8,
    /// IP address and port of the client.
    peername: String,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The number of the connection among those of the Client Identifier.
    version: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// A connection has ended.
#[derive(Serialize, ToSchema)]
struct ClientDisconnectedEvent {
    /// Client Identifier.
    clientid: String,
    /// User name; `null` for a client without one.
    #[schema(required = true)]
    username: Option<String>,
    /// `client.disconnected`.
    #[schema(schema_with = client_disconnected)]
    event: String,
    /// Why it ended.
    #[schema(schema_with = disconnect_reasons)]
    reason: String,
    /// The node that had the connection.
    node: String,
    /// IP address and port of the client.
    peername: String,
    /// When the connection began, in milliseconds since the Unix epoch.
    connected_at: u64,
    /// When it ended, in milliseconds since the Unix epoch.
    disconnected_at: u64,
    /// The same.
    timestamp: u64,
    /// The version of the `client_connected` of the same connection.
    version: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// The Keep Alive of a live connection was changed.
#[derive(Serialize, ToSchema)]
struct ClientKeepaliveChangedEvent {
    /// Client Identifier.
    clientid: String,
    /// User name; `null` for a client without one.
    #[schema(required = true)]
    username: Option<String>,
    /// `client.keepalive_changed`.
    #[schema(schema_with = client_keepalive_changed)]
    event: String,
    /// Keep Alive before the change, in seconds.
    old: u16,
    /// Keep Alive after it, in seconds.
    new: u16,
    /// User name of the caller; `null` for an embedding application.
    #[schema(required = true)]
    by: Option<String>,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The version of the connection.
    version: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// A Topic Filter was subscribed to, or unsubscribed from.
#[derive(Serialize, ToSchema)]
struct SessionChangedEvent {
    /// Client Identifier.
    clientid: String,
    /// User name; `null` for a client without one.
    #[schema(required = true)]
    username: Option<String>,
    /// `session.subscribed` or `session.unsubscribed`.
    #[schema(schema_with = session_changed)]
    event: String,
    /// Topic Filter, with `$share/…` if it is shared.
    topic: String,
    /// QoS of the subscription.
    #[schema(maximum = 2)]
    qos: u8,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The version of the connection.
    version: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// A connection was refused before CONNACK with success.
#[derive(Serialize, ToSchema)]
struct ClientRefusedEvent {
    /// Client Identifier that the client claims; `null` if it has not sent one.
    #[schema(required = true)]
    clientid: Option<String>,
    /// User name that the client claims; `null` if it has not sent one.
    #[schema(required = true)]
    username: Option<String>,
    /// `client.refused`.
    #[schema(schema_with = client_refused)]
    event: String,
    /// Why it was refused.
    #[schema(schema_with = refusals)]
    reason: String,
    /// IP address and port of the client.
    peername: String,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// A client, user or network was banned.
#[derive(Serialize, ToSchema)]
struct ClientBannedEvent {
    /// The banned Client Identifier; `null` if the ban is of others, or of a pattern.
    #[schema(required = true)]
    clientid: Option<String>,
    /// The banned user name; `null` if the ban is of others, or of a pattern.
    #[schema(required = true)]
    username: Option<String>,
    /// `client.banned`.
    #[schema(schema_with = client_banned)]
    event: String,
    /// The kind of the banned value: `client_id`, `user` or `address`.
    kind: String,
    /// The Client Identifier, the user name, their pattern, or the network.
    value: String,
    /// Why, for people.
    #[schema(required = true)]
    reason: Option<String>,
    /// User name of the caller; `null` for the broker and for an embedding application.
    #[schema(required = true)]
    by: Option<String>,
    /// Whether the broker has set it, because the client connected too often.
    flapping: bool,
    /// When it ends by itself, in milliseconds since the Unix epoch; `null` if never.
    #[schema(required = true)]
    expires_at: Option<u64>,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// The broker has started: every client is offline unless a later event says otherwise.
#[derive(Serialize, ToSchema)]
struct BrokerStartedEvent {
    /// `broker.started`.
    #[schema(schema_with = broker_started)]
    event: String,
    /// The node that has started.
    node: String,
    /// The first part of the ids of its events.
    epoch: String,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The place among all events of the broker since it started.
    number: u64,
}

/// The snapshot is complete: a client that it did not name is offline.
#[derive(Serialize, ToSchema)]
struct SnapshotEndEvent {
    /// `snapshot.end`.
    #[schema(schema_with = snapshot_end)]
    event: String,
    /// The node that has made the snapshot.
    node: String,
    /// When it was complete, in milliseconds since the Unix epoch.
    timestamp: u64,
}

/// Changes were missed: every client is offline unless a later event says otherwise.
#[derive(Serialize, ToSchema)]
struct ResetEvent {
    /// `reset`.
    #[schema(schema_with = reset)]
    event: String,
    /// The node that says so.
    node: String,
    /// The first part of the ids of the events that follow.
    epoch: String,
    /// When it happened, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// At least the version of each connection of earlier runs.
    version: u64,
}

/// Returns the schema of a text that is one of these; utoipa leaves out the doc comment of its member.
fn one_of(description: &str, names: impl IntoIterator<Item = &'static str>) -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    text.enum_values(Some(names)).build().into()
}

/// Returns the schema of the kind of one event, or two.
fn named(names: impl IntoIterator<Item = &'static str>) -> Schema {
    one_of("The kind of the event, as on `$events/…`.", names)
}

fn kinds() -> Schema {
    one_of("Its kind.", FeedKind::ALL.iter().map(|kind| kind.name()))
}

fn disconnect_reasons() -> Schema {
    // Only histories have that one.
    let all = DisconnectReason::ALL.iter().filter(|it| **it != DisconnectReason::BrokerEnded);
    one_of("Why the connection ended.", all.map(|reason| reason.name()))
}

fn refusals() -> Schema {
    one_of("Why it was refused.", ConnectRefusal::ALL.iter().map(|refusal| refusal.name()))
}

fn client_connected() -> Schema {
    named(["client.connected"])
}

fn client_disconnected() -> Schema {
    named(["client.disconnected"])
}

fn client_keepalive_changed() -> Schema {
    named(["client.keepalive_changed"])
}

fn session_changed() -> Schema {
    named(["session.subscribed", "session.unsubscribed"])
}

fn client_refused() -> Schema {
    named(["client.refused"])
}

fn client_banned() -> Schema {
    named(["client.banned"])
}

fn broker_started() -> Schema {
    named(["broker.started"])
}

fn snapshot_end() -> Schema {
    named(["snapshot.end"])
}

fn reset() -> Schema {
    named(["reset"])
}

/// A batch of events, as it is posted to the endpoint of a webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookMessage)]
pub(in crate::http::v1) struct ShownBatch {
    /// `presence`.
    #[serde(rename = "type")]
    #[schema(schema_with = presence)]
    kind: String,
    /// Identifies the message, the same at each attempt.
    id: String,
    /// When the batch was begun, in milliseconds since the Unix epoch.
    timestamp: u64,
    /// The node that sends it.
    node: String,
    /// The events, in their order.
    events: Vec<ShownEvent>,
}

fn presence() -> Schema {
    one_of("The subject of the message.", ["presence"])
}

/// Returns the webhooks of the document, which utoipa cannot describe.
pub(in crate::http::v1) fn webhooks() -> Value {
    let header = |name: &str, description: &str| {
        json!({ "name": name, "in": "header", "required": true, "description": description,
                "schema": { "type": "string" } })
    };
    let answer = |description: &str| json!({ "description": description });
    json!({ "presence": { "post": {
        "tags": ["events"],
        "operationId": "presenceWebhook",
        "summary": "Receives events of presence.",
        "description": "The broker posts batches of events to the endpoints of its configuration, signed as \
            Standard Webhooks are. Events of one client are in order. A message is sent until the endpoint \
            has taken it, so it may come twice. The first one after each start begins with `reset`.",
        "security": [],
        "parameters": [
            header("webhook-id", "Identifies the message, the same at each attempt."),
            header("webhook-timestamp", "The time of the attempt, in seconds since the Unix epoch."),
            header("webhook-signature", "`v1,` and the base64 of HMAC-SHA256 of \
                `{webhook-id}.{webhook-timestamp}.{body}`; with two secrets, two of them with a space between."),
        ],
        "requestBody": {
            "required": true,
            "description": "A batch of events.",
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/WebhookMessage" },
                "example": {
                    "type": "presence", "id": "msg_5b1e0c6f0a93d724_1",
                    "timestamp": 1_764_320_000_200_u64, "node": "hearthmq", "events": [{
                        "id": "5b1e0c6f0a93d724.0", "event": "reset", "data": {
                            "event": "reset", "node": "hearthmq", "epoch": "5b1e0c6f0a93d724",
                            "timestamp": 1_764_320_000_000_u64, "version": 1_048_576 } }] },
            } },
        },
        "responses": {
            "2XX": answer("The message is taken."),
            "4XX": answer("The message is sent again later; `Retry-After` says when at the earliest."),
            "5XX": answer("The message is sent again later; `Retry-After` says when at the earliest."),
        },
    } } })
}
