//! `/api/v1/logins`: what is known of failed logins, and how it is forgotten. Needs `administer`.

use std::{net::IpAddr, pin::pin};

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
        failures::{Administration, Caller, Change, Fails, NoFailures, Parameters},
        parameters::{Plus, decode},
    },
    Done,
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::administrator,
    target::{Query, raw_segment},
};
use crate::{
    auth::FailedLogins,
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/logins", "GET, HEAD").route(web::get().to(list));
    let one = resource("/logins/{address}", "GET, HEAD, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::delete().to(forget));
    config.service(all.route(web::head().to(list))).service(one);
}

/// The failed logins of an address, or of one user there.
#[derive(Serialize, ToSchema)]
#[schema(as = FailedLogins)]
struct FailedAnswer {
    /// The address; of IPv6 the first one of its /64.
    #[schema(value_type = String)]
    address: IpAddr,
    /// `mqtt` or `rest`: both are counted apart.
    over: &'static str,
    /// The number of failures that count now.
    failures: u32,
    /// For a user: how long the next attempt waits, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    delay_ms: u32,
    /// For how many more seconds attempts are refused without a check.
    #[serde(skip_serializing_if = "is_zero")]
    refused_seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl From<FailedLogins> for FailedAnswer {
    fn from(found: FailedLogins) -> Self {
        Self {
            address: found.address,
            over: if found.is_rest { "rest" } else { "mqtt" },
            failures: found.failures,
            delay_ms: found.delay_ms,
            refused_seconds: found.refused_secs,
        }
    }
}

/// The failed logins of an address.
#[derive(Serialize, ToSchema)]
struct FailedItems {
    /// The counts of all sources of identities: for MQTT and for REST.
    items: Vec<FailedAnswer>,
}

/// Lists addresses with failed logins, in the order of the addresses.
#[utoipa::path(
    get, path = "/logins", tag = "access", operation_id = "listFailedLogins",
    params(PageParameters),
    responses(
        (status = 200, description = "A page of addresses.", body = PageAnswer<FailedAnswer>,
         example = json!({"items": [{"address": "192.0.2.7", "over": "mqtt", "failures": 12}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let after = page.place(place_of)?;
        let text = page.begin(&api, &caller)?;
        let mut found = api.0.authenticator.failed_logins(None, None);
        // The counts have no order of their own, and pages need one that stays.
        found.sort_by_key(|one| (one.address, one.is_rest));
        found.retain(|one| after.is_none_or(|after| (one.address, one.is_rest) > after));
        let has_more = page.cut(&mut found);
        let key = |last: &FailedLogins| format!("{} {}", last.address, u8::from(last.is_rest));
        text.answer(found, has_more, key, |found| Ok(FailedAnswer::from(found)))
    };
    answer(&api, &request, RestRoute::Logins, pin!(call)).await
}

fn place_of(key: &str) -> Option<(IpAddr, bool)> {
    let (address, is_rest) = key.split_once(' ')?;
    Some((address.parse().ok()?, is_rest == "1"))
}

/// Shows the failed logins of an address, or of one user there.
#[utoipa::path(
    get, path = "/logins/{address}", tag = "access", operation_id = "showFailedLogins",
    params(
        ("address" = String, Path, description = "The IP address; of IPv6 its whole /64 is meant.",
         example = "192.0.2.7"),
        ("username" = Option<String>, Query, description = "Only this user at the address."),
    ),
    responses(
        (status = 200, description = "The counts of the address.", body = FailedItems, example = json!({"items":
            [{"address": "192.0.2.7", "over": "mqtt", "failures": 12, "refused_seconds": 41}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        let (address, username) = place(&request)?;
        let found = api.0.authenticator.failed_logins(Some(address), username.as_deref());
        let items = found.into_iter().map(FailedAnswer::from).collect();
        Ok(Answer::json(&FailedItems { items }))
    };
    answer(&api, &request, RestRoute::LoginsOfAddress, pin!(call)).await
}

/// Forgets the failed logins of an address, or of one user there: the next attempt is checked.
#[utoipa::path(
    delete, path = "/logins/{address}", tag = "access", operation_id = "forgetFailedLogins",
    params(
        ("address" = String, Path, description = "The IP address; of IPv6 its whole /64 is meant.",
         example = "192.0.2.7"),
        ("username" = Option<String>, Query, description = "Only this user at the address."),
    ),
    responses(
        (status = 200, description = "They are forgotten.", body = Done,
         example = json!({"success": true})),
        Fails<(Caller, Change, Administration, Parameters, NoFailures)>,
    ),
)]
pub(super) async fn forget(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        let (address, username) = place(&request)?;
        // Read before they are gone, for the audit log.
        let known = api.0.authenticator.failed_logins(Some(address), username.as_deref());
        let failures = known.iter().map(|found| u64::from(found.failures)).sum::<u64>();
        if !api.0.authenticator.forget_failures(address, username.as_deref()) {
            return Err(ApiError::no_failed_logins());
        }
        let target = match &username {
            None => address.to_string(),
            Some(name) => format!("{address} {name}"),
        };
        let (call, target, new) =
            ("failed logins", Some(ChangedObject::Address(&target)), Some("none"));
        let old = format!("{failures} failed");
        caller.tell_changed(&api, Changed { call, target, old: Some(&old), new });
        Ok(Answer::json(&Done::NOW))
    };
    answer(&api, &request, RestRoute::LoginsOfAddress, pin!(call)).await
}

fn place(request: &HttpRequest) -> Result<(IpAddr, Option<String>), ApiError> {
    let query = Query::parse(request.query_string(), &["username"])?;
    let text = decode(raw_segment(request, "{address}"), Plus::IsPlus).ok();
    let address = text.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    let invalid = || ApiError::invalid_parameter("address", "must be an IP address");
    Ok((address.ok_or_else(invalid)?, query.text("username")?))
}
