//! `/api/v1/certificates/pins`: certificates that are pinned to client identifiers. Every call needs
//! `administer`.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::CallEffect,
        calls::{Answer, answer},
        failures::{Administration, Caller, Change, Fails, NotPinned, Parameters},
    },
    Done,
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::administrator,
    target::{ClientInPath, Query, client_id_of_call},
};
use crate::{
    control::{CertificatePin, ListPins},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/certificates/pins", "GET, HEAD")
        .route(web::get().to(list_pins))
        .route(web::head().to(list_pins));
    let one = resource("/certificates/pins/{id}", "GET, HEAD, DELETE")
        .route(web::get().to(show_pin))
        .route(web::head().to(show_pin))
        .route(web::delete().to(remove_pin));
    config.service(all).service(one);
}

/// The certificate that is pinned to a client identifier.
#[derive(Serialize, ToSchema)]
#[schema(as = CertificatePin)]
pub(super) struct ShownPin {
    /// The client.
    client_id: String,
    /// The Common Name of the certificate.
    #[schema(value_type = String)]
    username: std::sync::Arc<str>,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo in DER), in lower-case hexadecimal.
    public_key_sha256: String,
    /// The subject of the certificate that was pinned.
    subject: String,
    /// Its issuer.
    issuer: String,
    /// Its serial number in lower-case hexadecimal.
    serial_number: String,
    /// When it was pinned, in milliseconds since the Unix epoch.
    pinned_at: u64,
}

impl From<CertificatePin> for ShownPin {
    fn from(pin: CertificatePin) -> Self {
        let CertificatePin { client_id, username, public_key, subject, issuer, .. } = pin;
        let (serial_number, pinned_at) = (pin.serial_number, pin.pinned_at.millis());
        let public_key_sha256 = public_key;
        Self { client_id, username, public_key_sha256, subject, issuer, serial_number, pinned_at }
    }
}

/// Lists the certificates that are pinned to client identifiers, by client identifier.
#[utoipa::path(
    get, path = "/certificates/pins", tag = "certificates", operation_id = "listCertificatePins",
    params(PageParameters),
    responses(
        (status = 200, description = "A page of pinned certificates.", body = PageAnswer<ShownPin>,
         example = json!({"items": [{"client_id": "car-17", "username": "car-17",
            "public_key_sha256": "6f1d3f3a0e2b7c1f5a4d9e8b7c6a5f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4",
            "subject": "CN=car-17", "issuer": "CN=Example devices", "serial_number": "0a1b",
            "pinned_at": 1_764_321_000_000_u64}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list_pins(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let mut page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        page.limit = page.limit.min(ListPins::LIMIT_MAX - 1);
        let text = page.begin(&api, &caller)?;
        let mut question = ListPins::new(page.limit + 1);
        question.after = page.after.as_deref().map(str::to_owned);
        let mut found = api.0.control.list_pins(question).await?;
        let has_more = page.cut(&mut found);
        let key = |last: &CertificatePin| last.client_id.to_string();
        text.answer(found, has_more, key, |found| Ok(ShownPin::from(found)))
    };
    answer(&api, &request, RestRoute::CertificatePins, pin!(call)).await
}

/// Shows the certificate that is pinned to a client identifier.
#[utoipa::path(
    get, path = "/certificates/pins/{client_id}", tag = "certificates",
    operation_id = "showCertificatePin", params(ClientInPath),
    responses(
        (status = 200, description = "The pinned certificate.", body = ShownPin,
         example = json!({"client_id": "car-17", "username": "car-17",
            "public_key_sha256": "6f1d3f3a0e2b7c1f5a4d9e8b7c6a5f4e3d2c1b0a9f8e7d6c5b4a39281706f5e4",
            "subject": "CN=car-17", "issuer": "CN=Example devices", "serial_number": "0a1b",
            "pinned_at": 1_764_321_000_000_u64})),
        Fails<(Caller, Administration, Parameters, NotPinned)>,
    ),
)]
pub(super) async fn show_pin(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let found = api.0.control.find_pin(&client_id_of_call(&request)?).await?;
        let found = found.ok_or_else(ApiError::certificate_not_pinned)?;
        Ok(Answer::json(&ShownPin::from(found)))
    };
    answer(&api, &request, RestRoute::CertificatePin, pin!(call)).await
}

/// Removes the pin of a client identifier: the next certificate that the client shows is pinned.
///
/// A connection goes on.
#[utoipa::path(
    delete, path = "/certificates/pins/{client_id}", tag = "certificates",
    operation_id = "removeCertificatePin", params(ClientInPath),
    responses(
        (status = 200, description = "The pin is removed.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Administration, Parameters, NotPinned)>,
    ),
)]
pub(super) async fn remove_pin(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let client_id = client_id_of_call(&request)?;
        let removed = api.0.control.remove_pin(&client_id).await?;
        let removed = removed.ok_or_else(ApiError::certificate_not_pinned)?;
        let (call, target) = ("certificates/pins", Some(ChangedObject::Client(&client_id)));
        let (old, new) = (Some(&*removed.public_key), Some("none"));
        caller.tell_changed(&api, Changed { call, target, old, new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::CertificatePin, pin!(call)).await
}
