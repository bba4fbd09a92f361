//! `/api/v1/certificates`: the certificates of connected clients, by expiry, and those that are revoked.
//! Every call needs `administer`.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Administration, Caller, CertificateName, Change, Fails, JsonBody, NotRevoked,
            Parameters, Revoking,
        },
        parameters::{Plus, decode},
    },
    body, cursor,
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    target::{Query, raw_segment},
};
use crate::{
    auth::Action,
    control::{
        CertificatePlace, CertificatesError, ConnectedCertificate, ListRevoked, RevokedCertificate,
    },
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a body: an issuer and a reason of 1,024 bytes each, with each byte escaped.
const BODY_BYTES_MAX: usize = 16 * 1024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let connected = resource("/certificates", "GET, HEAD")
        .route(web::get().to(list_certificates))
        .route(web::head().to(list_certificates));
    let revoked = resource("/certificates/revoked", "GET, HEAD, POST")
        .route(web::get().to(list_revoked))
        .route(web::head().to(list_revoked))
        .route(web::post().to(revoke));
    let one = resource("/certificates/revoked/{serial}", "DELETE").route(web::delete().to(restore));
    config.service(connected).service(revoked).service(one);
}

/// The certificate of a connected client.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectedCertificate)]
pub(super) struct ListedCertificate {
    /// The client.
    client_id: String,
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    username: Option<std::sync::Arc<str>>,
    /// The URL of the listener.
    #[schema(value_type = String)]
    listener: std::sync::Arc<str>,
    /// The subject.
    subject: String,
    /// The issuer.
    issuer: String,
    /// The serial number in lower-case hexadecimal.
    serial_number: String,
    /// When it expires, in milliseconds since the Unix epoch.
    expires_at: u64,
}

impl From<&ConnectedCertificate> for ListedCertificate {
    fn from(shown: &ConnectedCertificate) -> Self {
        Self {
            client_id: shown.client_id.clone(),
            username: shown.username.clone(),
            listener: shown.listener.clone(),
            subject: shown.subject.clone(),
            issuer: shown.issuer.clone(),
            serial_number: shown.serial_number.clone(),
            expires_at: shown.expires_at.millis(),
        }
    }
}

/// A certificate that was revoked here.
#[derive(Serialize, ToSchema)]
#[schema(as = RevokedCertificate)]
pub(super) struct ShownRevoked {
    /// The issuer.
    issuer: String,
    /// The serial number in lower-case hexadecimal.
    serial_number: String,
    /// Why it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The user name of the caller that has revoked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// When it was revoked, in milliseconds since the Unix epoch.
    revoked_at: u64,
}

impl From<RevokedCertificate> for ShownRevoked {
    fn from(found: RevokedCertificate) -> Self {
        Self {
            issuer: found.issuer,
            serial_number: found.serial_number,
            reason: found.reason,
            by: found.by,
            revoked_at: found.revoked_at.millis(),
        }
    }
}

/// The certificate to revoke.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevokeCertificate)]
struct RevokeBody {
    /// The issuer, as the list of certificates shows it.
    issuer: String,
    /// The serial number in hexadecimal, with or without colons.
    serial_number: String,
    /// Why, for people.
    reason: Option<String>,
}

/// Says that a certificate is revoked, or accepted again.
#[derive(Serialize, ToSchema)]
#[schema(as = CertificateChanged)]
pub(super) struct ChangedCertificate {
    /// Always `true`.
    success: bool,
    /// The number of connected clients that had the certificate, and are disconnected.
    sessions_touched: usize,
}

/// Admits a caller that may administer the broker.
async fn admit(
    api: &Api,
    request: &HttpRequest,
    effect: CallEffect,
) -> Result<HttpCaller, ApiError> {
    let caller = admission::admit(api, request, effect).await?;
    match caller.may(api, "", Action::Administer) {
        true => Ok(caller),
        false => Err(ApiError::forbidden_to_administer()),
    }
}

/// Lists the certificates of connected clients: first those that expire first.
#[utoipa::path(
    get, path = "/certificates", tag = "certificates", operation_id = "listCertificates",
    params(PageParameters),
    responses(
        (status = 200, description = "A page of certificates.", body = PageAnswer<ListedCertificate>,
         example = json!({"items": [{"client_id": "car-17", "username": "car-17",
            "listener": "mqtts://[::]:8883", "subject": "CN=car-17", "issuer": "CN=Example devices",
            "serial_number": "0a1b", "expires_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list_certificates(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admit(&api, &request, CallEffect::Looks).await?;
        let asked = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let after = asked.place(place_of)?;
        let mut text = asked.begin(&api, &caller)?;
        let page = api.0.control.connected_certificates(after.as_ref(), asked.limit);
        page.items.iter().try_for_each(|found| text.push(&ListedCertificate::from(&**found)))?;
        let next = page.next;
        Ok(text.end(
            next.map(|(at, client_id, number)| {
                cursor::after(&format!("{at}:{number}:{client_id}"))
            }),
        ))
    };
    answer(&api, &request, RestRoute::Certificates, pin!(call)).await
}

/// Returns the place of a key.
fn place_of(key: &str) -> Option<CertificatePlace> {
    let mut parts = key.splitn(3, ':');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (at, seat) = (number()?, number()?);
    Some((at, parts.next()?.to_owned(), seat))
}

/// Lists the certificates that were revoked here, by serial number.
#[utoipa::path(
    get, path = "/certificates/revoked", tag = "certificates",
    operation_id = "listRevokedCertificates", params(PageParameters),
    responses(
        (status = 200, description = "A page of revoked certificates.",
         body = PageAnswer<ShownRevoked>,
         example = json!({"items": [{"issuer": "CN=Example devices", "serial_number": "0a1b",
            "reason": "stolen", "by": "admin", "revoked_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Administration, Parameters, Revoking)>,
    ),
)]
pub(super) async fn list_revoked(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admit(&api, &request, CallEffect::Looks).await?;
        let mut page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        // One less, because one more is read to know whether another page follows.
        page.limit = page.limit.min(ListRevoked::LIMIT_MAX - 1);
        let text = page.begin(&api, &caller)?;
        let mut question = ListRevoked::new(page.limit + 1);
        question.after = page.after.as_deref().map(str::to_owned);
        let mut found = api.0.control.list_revoked(question).await?;
        let has_more = page.cut(&mut found);
        let key = |last: &RevokedCertificate| format!("{}:{}", last.serial_number, last.issuer);
        text.answer(found, has_more, key, |found| Ok(ShownRevoked::from(found)))
    };
    answer(&api, &request, RestRoute::RevokedCertificates, pin!(call)).await
}

/// Revokes a certificate by issuer and serial number.
///
/// Connections with it end, and handshakes with it fail, as for a certificate in a revocation list. The
/// certificate of an authority revokes all that it has issued, if clients send it in their chain.
#[utoipa::path(
    post, path = "/certificates/revoked", tag = "certificates", operation_id = "revokeCertificate",
    request_body(content = RevokeBody, description = "The certificate.",
        example = json!({"issuer": "CN=Example devices", "serial_number": "0a1b", "reason": "stolen"})),
    responses(
        (status = 200, description = "The certificate is revoked.", body = ChangedCertificate,
         example = json!({"success": true, "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, JsonBody, CertificateName, Revoking)>,
    ),
)]
pub(super) async fn revoke(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admit(&api, &request, CallEffect::Changes).await?;
        let body: RevokeBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let mut certificate = named(&body.issuer, &body.serial_number)?;
        let is_too_long = |text: &String| text.len() > RevokedCertificate::REASON_BYTES_MAX;
        if body.reason.as_ref().is_some_and(is_too_long) {
            return Err(ApiError::invalid_body("reason has at most 1024 bytes"));
        }
        certificate.reason = body.reason;
        certificate.by = caller.identity.username.as_deref().map(str::to_owned);
        let target = shown(&certificate);
        let changed = api.0.control.revoke(certificate).await?;
        let old = if changed.was_revoked { "revoked" } else { "accepted" };
        let (call, new) = ("certificates/revoked", Some("revoked"));
        caller.tell_changed(
            &api,
            Changed {
                call,
                target: Some(ChangedObject::Certificate(&target)),
                old: Some(old),
                new,
            },
        );
        let sessions_touched = changed.connections;
        Ok(Answer::json(&ChangedCertificate { success: true, sessions_touched }))
    };
    answer(&api, &request, RestRoute::RevokedCertificates, pin!(call)).await
}

/// Accepts a revoked certificate again.
#[utoipa::path(
    delete, path = "/certificates/revoked/{serial}", tag = "certificates",
    operation_id = "acceptCertificate",
    params(
        ("serial" = String, Path, description = "The serial number in hexadecimal.", example = "0a1b"),
        ("issuer" = String, Query, description = "The issuer.", example = "CN=Example devices"),
    ),
    responses(
        (status = 200, description = "The certificate is accepted again.", body = ChangedCertificate,
         example = json!({"success": true, "sessions_touched": 0})),
        Fails<(Caller, Change, Administration, Parameters, CertificateName, NotRevoked, Revoking)>,
    ),
)]
pub(super) async fn restore(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admit(&api, &request, CallEffect::Changes).await?;
        let query = Query::parse(request.query_string(), &["issuer"])?;
        let issuer = query.text("issuer")?.ok_or_else(|| ApiError::missing_parameter("issuer"))?;
        let serial = decode(raw_segment(&request, "{serial}"), Plus::IsPlus).ok();
        let serial = serial.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let certificate = named(&issuer, &serial)?;
        let target = shown(&certificate);
        let changed = api.0.control.restore_certificate(certificate).await?;
        // Answered after the call, which is harmless then, so that two callers get one success.
        if !changed.was_revoked {
            return Err(ApiError::certificate_not_revoked());
        }
        let (call, old, new) = ("certificates/revoked", Some("revoked"), Some("accepted"));
        caller.tell_changed(
            &api,
            Changed { call, target: Some(ChangedObject::Certificate(&target)), old, new },
        );
        Ok(Answer::json(&ChangedCertificate { success: true, sessions_touched: 0 }))
    };
    answer(&api, &request, RestRoute::RevokedCertificate, pin!(call)).await
}

fn named(issuer: &str, serial_number: &str) -> Result<RevokedCertificate, ApiError> {
    RevokedCertificate::new(issuer, serial_number).ok_or_else(ApiError::invalid_certificate_name)
}

/// Returns the text for the log.
fn shown(certificate: &RevokedCertificate) -> String {
    format!("{} of {}", certificate.serial_number, certificate.issuer)
}

impl From<CertificatesError> for ApiError {
    fn from(error: CertificatesError) -> Self {
        match error {
            CertificatesError::TooMany => Self::too_many_revoked(),
            CertificatesError::Unavailable => Self::unavailable(),
        }
    }
}
