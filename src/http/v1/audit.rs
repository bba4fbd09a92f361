//! `GET /api/v1/audit`: who has changed what. Needs `administer`.

use std::{net::SocketAddr, pin::pin, sync::Arc};

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
        calls::answer,
        failures::{Administration, Caller, Fails, Parameters},
    },
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::administrator,
    target::Query,
};
use crate::{
    control::{AuditEntry, ListAudit},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/audit", "GET, HEAD");
    config.service(all.route(web::get().to(list)).route(web::head().to(list)));
}

/// A change, and who has made it.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct AuditAnswer {
    /// Its number: a later one is higher.
    number: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    at: u64,
    /// The name of the call, `reload`, or a topic under `$SETOPTS`.
    #[schema(value_type = String)]
    action: Arc<str>,
    /// The user name of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    user: Option<Arc<str>>,
    /// Address and port of the caller; absent for a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    address: Option<SocketAddr>,
    /// URL of the listener that accepted the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    listener: Option<Arc<str>>,
    /// The thing that was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    target: Option<Arc<str>>,
    /// The kind of the target: `client_id`, `client_ids` (the first ones of a list), `clients` (a pattern),
    /// `username`, `rule`, `ban`, `token`, `topic`, `certificate` or `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    target_kind: Option<Arc<str>>,
    /// The value before, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    old: Option<Arc<str>>,
    /// The value from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    new: Option<Arc<str>>,
}

impl From<AuditEntry> for AuditAnswer {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { number, at_millis: at, action, user, address, .. } = entry;
        let AuditEntry { listener, target, target_kind, old, new, .. } = entry;
        Self { number, at, action, user, address, listener, target, target_kind, old, new }
    }
}

/// Lists who has changed what, the oldest entry first.
#[utoipa::path(
    get, path = "/audit", tag = "access", operation_id = "listAudit", params(PageParameters),
    responses(
        (status = 200, description = "A page of changes.", body = PageAnswer<AuditAnswer>,
         example = json!({"items": [{"number": 41, "at": 1_764_321_000_000_u64, "action": "kick",
            "user": "admin", "address": "127.0.0.1:50312", "listener": "http://127.0.0.1:8080",
            "target": "car-17", "target_kind": "client_id"}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        // One more than the page, to know whether another page follows.
        let mut question = ListAudit::new(page.limit + 1);
        if let Some(number) = page.place(|key| key.parse().ok())? {
            question.after = number;
        }
        let text = page.begin(&api, &caller)?;
        let found = api.0.control.list_audit(question).await;
        let mut found = found.map_err(|error| {
            ApiError::of_access(error, ApiError::not_found, ApiError::invalid_body)
        })?;
        let has_more = page.cut(&mut found);
        let key = |last: &AuditEntry| last.number.to_string();
        text.answer(found, has_more, key, |entry| Ok(AuditAnswer::from(entry)))
    };
    answer(&api, &request, RestRoute::Audit, pin!(call)).await
}
