//! `GET /api/v1/clients/{id}`: everything about one client.
//!
//! Needs `observe` for the client.

use std::{collections::BTreeMap, pin::pin};

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        failures::{Caller, ClientId, Elsewhere, Fails, NoClient, Parameters, Permission},
    },
    in_time,
    settings::SettingsPart,
    target::{ClientInPath, Query, client_id_of_call},
};
use crate::{
    auth::Action,
    control::{CertificateFacts, ClientSession},
    metrics::RestRoute,
};

/// Shows everything about a client.
///
/// Members without a known value are left out.
#[utoipa::path(
    get, path = "/clients/{client_id}", tag = "clients", operation_id = "showClient",
    params(ClientInPath),
    responses(
        (status = 200, description = "The client.", body = DetailedClient<'static>,
         example = example),
        Fails<(Caller, Permission, Parameters, ClientId, NoClient, Elsewhere)>,
    ),
)]
pub(super) async fn show_client(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let client_id = client_id_of_call(&request)?;
        caller.permit(&api, &client_id, &[Action::Observe])?;
        let found = in_time(&api, api.0.control.client(&client_id)).await?;
        let found = found.ok_or_else(ApiError::client_not_found)?;
        Ok(Answer::json(&DetailedClient::of(&found)))
    };
    answer(&api, &request, RestRoute::Client, pin!(call)).await
}

/// Returns an answer for the document.
fn example() -> serde_json::Value {
    serde_json::json!({
        "client_id": "car-17",
        "online": true,
        "username": "ann",
        "node": "hearthmq",
        "version": 18,
        "connection": {
            "address": "192.0.2.7:51234",
            "listener": "mqtt://0.0.0.0:1883",
            "transport": "mqtt",
            "protocol": 5,
            "connected_at": 1_764_321_000_000_u64,
            "last_packet_at": 1_764_321_030_000_u64,
            "keep_alive": {
                "asked": 60,
                "in_force": 120,
                "changed_by": "admin",
                "changed_at": 1_764_321_020_000_u64,
                "deadline": 1_764_321_210_000_u64,
            },
        },
        "session": {
            "expiry_interval": 3600,
            "subscriptions": 2,
            "queue": { "messages": 0, "bytes": 0 },
            "in_flight": { "messages": 1, "bytes": 80, "messages_max": 1000 },
        },
        "last_end": { "reason": "tcp_closed", "at": 1_764_320_990_000_u64 },
    })
}

/// A client in full. Members without a known value are left out.
#[derive(Serialize, ToSchema)]
#[schema(as = Client)]
struct DetailedClient<'a> {
    /// Client Identifier.
    client_id: &'a str,
    /// Whether the client is connected.
    online: bool,
    /// The user name of the last connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    /// The node that has the session.
    node: &'a str,
    /// The number of connections of the Client Identifier so far.
    version: u64,
    /// The present connection, or the known values of the last one.
    connection: ConnectionPart<'a>,
    /// The part that stays when the connection ends.
    session: SessionPart,
    /// The last end of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_end: Option<EndPart<'a>>,
}

/// The present connection, or the known values of the last one.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientConnection)]
struct ConnectionPart<'a> {
    /// IP address and port of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The URL of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a str>,
    /// The scheme of the listener's URL, or `in-process`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    /// 3 (MQTT 3.1), 4 (3.1.1) or 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u8>,
    /// TLS of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsPart<'a>>,
    /// When the connection began, in milliseconds since the Unix epoch.
    connected_at: u64,
    /// When the last packet of any kind came, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_packet_at: Option<u64>,
    /// The Keep Alive of a connected client.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<KeepAlivePart<'a>>,
}

/// The TLS connection of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientTls)]
struct TlsPart<'a> {
    /// The version of TLS.
    version: &'static str,
    /// The certificate of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificatePart<'a>>,
}

/// The certificate of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientCertificate)]
struct CertificatePart<'a> {
    /// Its subject.
    subject: &'a str,
    /// Its issuer.
    issuer: &'a str,
    /// At most 100 of its names.
    names: &'a [String],
    /// Its serial number.
    serial_number: &'a str,
    /// When it expires, in milliseconds since the Unix epoch.
    expires_at: u64,
}

/// The Keep Alive of a connection.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientKeepAlive)]
struct KeepAlivePart<'a> {
    /// The value in CONNECT, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<u16>,
    /// The value in force, in seconds; 0: off.
    in_force: u16,
    /// The user name of the caller that changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<&'a str>,
    /// When it was changed, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<u64>,
    /// When a silent client is disconnected, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<u64>,
}

/// The session of a client.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientSession)]
struct SessionPart {
    /// Session Expiry Interval in seconds; 4294967295: never.
    expiry_interval: u32,
    /// When the session of an absent client ends, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// The number of Topic Filters.
    subscriptions: usize,
    /// The messages that wait.
    queue: MessagesPart,
    /// The messages that are sent and not acknowledged.
    in_flight: MessagesPart,
    /// Messages that did not reach the client, by reason, since the session or the broker began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    dropped: BTreeMap<&'static str, u64>,
    /// The full queue loses messages at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    losing: Option<LossPart>,
    /// The settings in force that callers have changed for the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<SettingsPart>,
    /// The sticky settings of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky_settings: Option<SettingsPart>,
    /// The sticky settings of its user, which hold where the client has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_settings: Option<SettingsPart>,
}

/// A number of messages.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientMessages)]
struct MessagesPart {
    /// The number of messages.
    messages: usize,
    /// Their size in bytes.
    bytes: usize,
    /// Maximum number of messages in flight on this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_max: Option<u16>,
    /// When the broker received the message that has waited for the longest time, in milliseconds
    /// since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_since: Option<u64>,
}

/// Messages that were lost because the queue was full.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientLosses)]
struct LossPart {
    /// The number of messages that were lost.
    messages: u64,
    /// Since when, in milliseconds since the Unix epoch.
    since: u64,
}

/// The end of a connection.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientEnd)]
struct EndPart<'a> {
    /// Why the connection ended, as in presence events.
    reason: &'static str,
    /// When it ended, in milliseconds since the Unix epoch.
    at: u64,
    /// The user name of the caller that has ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

impl<'a> DetailedClient<'a> {
    fn of(found: &'a ClientSession) -> Self {
        Self {
            client_id: &found.client_id,
            online: found.online,
            username: found.username.as_deref(),
            node: &found.node,
            version: found.version,
            connection: ConnectionPart::of(found),
            session: SessionPart::of(found),
            last_end: found.last_end.as_ref().map(|end| EndPart {
                reason: end.reason.name(),
                at: end.at_millis,
                by: end.by.as_deref(),
            }),
        }
    }
}

impl<'a> ConnectionPart<'a> {
    fn of(found: &'a ClientSession) -> Self {
        let listener = Some(&*found.listener).filter(|url| !url.is_empty());
        // A restored session, for example, has had no connection in this run.
        let is_peer_known = !found.peer.ip().is_unspecified();
        let keep_alive = found.asked_keep_alive_secs.map(|asked| KeepAlivePart {
            asked: Some(asked),
            in_force: found.keep_alive_secs,
            changed_by: found.keep_alive_changed_by.as_deref(),
            changed_at: found.keep_alive_changed_at_millis,
            deadline: found.deadline_millis,
        });
        Self {
            address: is_peer_known.then(|| found.peer.to_string()),
            listener,
            transport: listener.map(|url| url.split("://").next().unwrap_or(url)),
            protocol: found.protocol.map(|version| version.level()),
            tls: found.tls.as_ref().map(|tls| TlsPart {
                version: tls.version,
                certificate: tls.certificate.as_ref().map(CertificatePart::of),
            }),
            connected_at: found.connected_at_millis,
            last_packet_at: found.last_packet_at_millis,
            keep_alive,
        }
    }
}

impl<'a> CertificatePart<'a> {
    fn of(certificate: &'a CertificateFacts) -> Self {
        let CertificateFacts { subject, issuer, names, serial_number, expires_at_millis, .. } =
            certificate;
        Self { subject, issuer, names, serial_number, expires_at: *expires_at_millis }
    }
}

impl SessionPart {
    fn of(found: &ClientSession) -> Self {
        let (messages, bytes) = (found.queued, found.queued_bytes);
        let oldest_since = found.oldest_waiting_millis;
        let queue = MessagesPart { messages, bytes, messages_max: None, oldest_since };
        let (messages, bytes) = (found.in_flight, found.in_flight_bytes);
        let messages_max = found.in_flight_max;
        let in_flight = MessagesPart { messages, bytes, messages_max, oldest_since: None };
        let dropped = found.dropped.iter();
        let dropped = dropped.map(|it| (it.reason.name(), it.messages));
        Self {
            expiry_interval: found.session_expiry_secs,
            expires_at: found.expires_at_millis,
            subscriptions: found.subscriptions,
            queue,
            in_flight,
            dropped: dropped.collect(),
            losing: found
                .losing
                .map(|loss| LossPart { messages: loss.messages, since: loss.since_millis }),
            settings: SettingsPart::of_some(&found.settings),
            sticky_settings: SettingsPart::of_some(&found.sticky_settings),
            user_settings: SettingsPart::of_some(&found.user_settings),
        }
    }
}
