//! `GET /api/v1/clients/{id}` and `GET /api/v1/client?id=…`: everything about one client.
//!
//! Needs `observe` for the client.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
        parameters::check_client_id,
    },
    in_time, resource,
    target::{Query, client_id_in_path},
};
use crate::{
    auth::Action,
    control::{CertificateFacts, ClientSession},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let client = resource("/client", "GET, HEAD");
    config.service(client.route(web::get().to(by_query)).route(web::head().to(by_query)));
}

/// `GET /api/v1/clients/{id}`
pub(super) async fn show_client(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    show(&request, &api, RestRoute::Client, |request| {
        Query::parse(request.query_string(), &[])?;
        client_id_in_path(request)
    })
    .await
}

async fn by_query(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    show(&request, &api, RestRoute::ClientById, |request| {
        let client_id = Query::parse(request.query_string(), &["id"])?.text("id")?;
        let client_id = client_id.ok_or_else(|| ApiError::missing_parameter("id"))?;
        check_client_id(&client_id)?;
        Ok(client_id)
    })
    .await
}

async fn show(
    request: &HttpRequest,
    api: &Data<Api>,
    route: RestRoute,
    client_id: impl Fn(&HttpRequest) -> Result<String, ApiError>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(api, request, CallEffect::Looks).await?;
        let client_id = client_id(request)?;
        caller.permit(api, &client_id, &[Action::Observe])?;
        let found = in_time(api, api.0.control.client(&client_id)).await?;
        let found = found.ok_or_else(ApiError::client_not_found)?;
        Ok(Answer::json(&DetailedClient::of(&found)))
    };
    answer(api, request, route, call).await
}

/// A client in full. What is not known of it is left out.
#[derive(Serialize)]
struct DetailedClient<'a> {
    client_id: &'a str,
    online: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    node: &'a str,
    version: u64,
    connection: ConnectionPart<'a>,
    session: SessionPart,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_end: Option<EndPart<'a>>,
}

/// The present connection, or what is known of the last one.
#[derive(Serialize)]
struct ConnectionPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsPart<'a>>,
    connected_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_packet_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<KeepAlivePart<'a>>,
}

#[derive(Serialize)]
struct TlsPart<'a> {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificatePart<'a>>,
}

#[derive(Serialize)]
struct CertificatePart<'a> {
    subject: &'a str,
    issuer: &'a str,
    names: &'a [String],
    serial_number: &'a str,
    expires_at: u64,
}

#[derive(Serialize)]
struct KeepAlivePart<'a> {
    /// What the client has asked for, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<u16>,
    in_force: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<u64>,
}

#[derive(Serialize)]
struct SessionPart {
    expiry_interval: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    subscriptions: usize,
    queue: MessagesPart,
    in_flight: MessagesPart,
    #[serde(skip_serializing_if = "Option::is_none")]
    losing: Option<LossPart>,
}

/// A number of messages.
#[derive(Serialize)]
struct MessagesPart {
    messages: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_max: Option<u16>,
}

#[derive(Serialize)]
struct LossPart {
    messages: u64,
    since: u64,
}

#[derive(Serialize)]
struct EndPart<'a> {
    reason: &'static str,
    at: u64,
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
        let CertificateFacts { subject, issuer, names, serial_number, expires_at_millis } =
            certificate;
        Self { subject, issuer, names, serial_number, expires_at: *expires_at_millis }
    }
}

impl SessionPart {
    fn of(found: &ClientSession) -> Self {
        let (messages, bytes) = (found.queued, found.queued_bytes);
        let queue = MessagesPart { messages, bytes, messages_max: None };
        let (messages, bytes) = (found.in_flight, found.in_flight_bytes);
        let in_flight = MessagesPart { messages, bytes, messages_max: found.in_flight_max };
        Self {
            expiry_interval: found.session_expiry_secs,
            expires_at: found.expires_at_millis,
            subscriptions: found.subscriptions,
            queue,
            in_flight,
            losing: found
                .losing
                .map(|loss| LossPart { messages: loss.messages, since: loss.since_millis }),
        }
    }
}
