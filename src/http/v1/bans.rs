//! `/api/v1/bans`: clients that are kept out. Needs `administer`.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::{CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{
            Administration, BanForm, Caller, Change, Fails, JsonBody, NoBan, Parameters,
            Precondition, StoredThings, Ttl,
        },
    },
    body,
    etag::{self, ETAG, Preconditions},
    page::{AskedPage, PageAnswer, PageParameters},
    resource,
    rules::{administrator, in_time_of_change},
    target::{Query, name_in},
};
use crate::{
    control::{AccessChanged, AccessError, Ban, BanSubject, ListBans, PutBan, RemoveBan},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

/// Maximum bytes of a ban: a name and a reason, escaped.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// The longest time of a ban that ends by itself, in seconds: ten years.
const TTL_SECS_MAX: u32 = 315_360_000;

pub(super) fn routes(config: &mut ServiceConfig) {
    let all = resource("/bans", "GET, HEAD, POST")
        .route(web::get().to(list))
        .route(web::head().to(list))
        .route(web::post().to(create));
    let one = resource("/bans/{kind}/{value}", "GET, HEAD, DELETE")
        .route(web::get().to(show))
        .route(web::head().to(show))
        .route(web::delete().to(remove));
    config.service(all).service(one);
}

/// A ban: exactly one of `client_id`, `user` and `address` names the clients that it keeps out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBan)]
struct BanBody {
    /// A Client Identifier; `*` stands for any text.
    client_id: Option<String>,
    /// A user name; `*` stands for any text.
    user: Option<String>,
    /// An IP address, or a network like `10.0.0.0/8`.
    address: Option<String>,
    /// Why, for people.
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// After this number of seconds the ban ends by itself; left out: it stays until it is lifted.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u32>,
}

/// A ban in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Ban)]
struct BanAnswer {
    /// The kind of the banned value: `client_id`, `user` or `address`.
    kind: &'static str,
    /// The Client Identifier, the user name, their pattern, or the network.
    #[schema(value_type = String)]
    value: Arc<str>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Arc<str>>,
    /// The user name of the caller that has set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    by: Option<Arc<str>>,
    /// Whether the broker has set it, because the client connected too often.
    flapping: bool,
    /// When it was set, in milliseconds since the Unix epoch.
    set_at: u64,
    /// When it ends by itself, in milliseconds since the Unix epoch; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// Its revision, which is its `ETag` in quotes.
    revision: u64,
}

impl From<Ban> for BanAnswer {
    fn from(ban: Ban) -> Self {
        Self {
            kind: ban.subject.kind(),
            value: ban.subject.value(),
            reason: ban.reason,
            by: ban.by,
            flapping: ban.is_for_flapping,
            set_at: ban.set_at_millis,
            expires_at: ban.expires_at_millis,
            revision: ban.revision,
        }
    }
}

/// The ban in the path of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described here")]
struct BanInPath {
    /// `client_id`, `user` or `address`.
    #[param(example = "client_id", pattern = "^(client_id|user|address)$")]
    kind: String,
    /// The Client Identifier, user name, pattern or network, percent-encoded UTF-8.
    #[param(example = "car-13")]
    value: String,
}

/// A ban that was set or lifted.
#[derive(Serialize, ToSchema)]
struct BanDone {
    /// Always `true`.
    success: bool,
    /// The kind of the banned value: `client_id`, `user` or `address`.
    kind: &'static str,
    /// The Client Identifier, the user name, their pattern, or the network.
    #[schema(value_type = String)]
    value: Arc<str>,
    /// The revision of the ban; absent if it was lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// The number of sessions whose clients were disconnected.
    sessions_touched: u64,
}

/// Lists the bans, in the order of their kind and value.
#[utoipa::path(
    get, path = "/bans", tag = "access", operation_id = "listBans", params(PageParameters),
    responses(
        (status = 200, description = "A page of bans.", body = PageAnswer<BanAnswer>,
         example = json!({"items": [{"kind": "client_id", "value": "car-13", "reason": "stolen",
            "by": "admin", "flapping": false, "set_at": 1_764_321_000_000_u64, "revision": 7}]})),
        Fails<(Caller, Administration, Parameters)>,
    ),
)]
pub(super) async fn list(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Looks).await?;
        let page = AskedPage::of(&Query::parse(request.query_string(), &["limit", "cursor"])?)?;
        let mut question = ListBans::new(page.limit + 1);
        question.after = page.place(|key| {
            let (kind, value) = key.split_once('/')?;
            BanSubject::parse(kind, value).ok()
        })?;
        let text = page.begin(&api, &caller)?;
        let mut bans = api.0.control.list_bans(question).await.map_err(ban_error)?;
        let has_more = page.cut(&mut bans);
        let key = |ban: &Ban| format!("{}/{}", ban.subject.kind(), ban.subject.value());
        text.answer(bans, has_more, key, |ban| Ok(BanAnswer::from(ban)))
    };
    answer(&api, &request, RestRoute::Bans, pin!(call)).await
}

/// Keeps clients out. Those that are connected are disconnected.
///
/// A ban of the same clients is replaced.
#[utoipa::path(
    post, path = "/bans", tag = "access", operation_id = "ban", params(Preconditions),
    request_body(content = BanBody, description = "The ban.",
        example = json!({"client_id": "car-13", "reason": "stolen", "ttl_seconds": 86_400})),
    responses(
        (status = 200, description = "The clients are kept out.", body = BanDone, example = json!(
            {"success": true, "kind": "client_id", "value": "car-13", "revision": 7,
             "sessions_touched": 1})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, BanForm, StoredThings, (Ttl, Precondition))>,
    ),
)]
pub(super) async fn create(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let expected = etag::expected(&request)?;
        let wanted: BanBody = body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let mut ban = PutBan::new(subject_of(&wanted)?);
        if wanted.ttl_seconds.is_some_and(|secs| !(1..=TTL_SECS_MAX).contains(&secs)) {
            return Err(ApiError::invalid_ttl(1..=TTL_SECS_MAX));
        }
        ban.reason = wanted.reason.map(Into::into);
        ban.ttl_secs = wanted.ttl_seconds;
        ban.expected = expected;
        ban.by.clone_from(&caller.identity.username);
        let changed = in_time_of_change(&api, api.0.control.put_ban(ban)).await;
        done(&api, &caller, changed.map_err(ban_error)?)
    };
    answer(&api, &request, RestRoute::Bans, pin!(call)).await
}

fn subject_of(wanted: &BanBody) -> Result<BanSubject, ApiError> {
    let all =
        [("client_id", &wanted.client_id), ("user", &wanted.user), ("address", &wanted.address)];
    let mut given = all.into_iter().filter_map(|(kind, value)| Some((kind, value.as_deref()?)));
    match (given.next(), given.next()) {
        (Some((kind, value)), None) => BanSubject::parse(kind, value).map_err(ban_error),
        _ => Err(ApiError::invalid_ban("it has exactly one of client_id, user and address")),
    }
}

/// Shows a ban.
#[utoipa::path(
    get, path = "/bans/{kind}/{value}", tag = "access", operation_id = "showBan", params(BanInPath),
    responses(
        (status = 200, description = "The ban. Its revision is the `ETag`.", body = BanAnswer,
         example = json!({"kind": "client_id", "value": "car-13", "reason": "stolen", "by": "admin",
            "flapping": false, "set_at": 1_764_321_000_000_u64, "revision": 7})),
        Fails<(Caller, Administration, Parameters, BanForm, NoBan)>,
    ),
)]
pub(super) async fn show(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::of(&request, &[])?;
        let subject = subject_of_call(&request)?;
        let found = api.0.control.find_ban(&subject).await.map_err(ban_error)?;
        let tag = etag::of(found.revision);
        Ok(Answer::json(&BanAnswer::from(found)).with_header(ETAG, &tag))
    };
    answer(&api, &request, RestRoute::Ban, pin!(call)).await
}

/// Lifts a ban.
#[utoipa::path(
    delete, path = "/bans/{kind}/{value}", tag = "access", operation_id = "liftBan",
    params(BanInPath, Preconditions),
    responses(
        (status = 200, description = "The ban is lifted.", body = BanDone, example = json!(
            {"success": true, "kind": "client_id", "value": "car-13", "sessions_touched": 0})),
        Fails<(Caller, Change, Administration, Parameters, BanForm, NoBan, Precondition)>,
    ),
)]
pub(super) async fn remove(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::of(&request, &[])?;
        let mut wanted = RemoveBan::new(subject_of_call(&request)?);
        wanted.expected = etag::expected(&request)?;
        let changed = in_time_of_change(&api, api.0.control.remove_ban(wanted)).await;
        done(&api, &caller, changed.map_err(ban_error)?)
    };
    answer(&api, &request, RestRoute::Ban, pin!(call)).await
}

fn subject_of_call(request: &HttpRequest) -> Result<BanSubject, ApiError> {
    let part = |name| {
        let invalid = || ApiError::invalid_ban("its names must be UTF-8, percent-encoded");
        name_in(request, name, invalid)
    };
    BanSubject::parse(&part("kind")?, &part("value")?).map_err(ban_error)
}

/// Logs a change of a ban and answers it.
fn done(api: &Api, caller: &HttpCaller, changed: AccessChanged<Ban>) -> Result<Answer, ApiError> {
    let AccessChanged { old, new, sessions_touched, .. } = changed;
    // After a removal only the former ban has the subject.
    let one = new.as_ref().or(old.as_ref()).ok_or_else(ApiError::unavailable)?;
    let (subject, revision) = (one.subject.clone(), new.as_ref().map(|ban| ban.revision));
    let text = |ban: &Option<Ban>| {
        ban.as_ref().map(|ban| {
            let until = ban.expires_at_millis.map(|at| format!(" until {at}"));
            let reason = ban.reason.as_deref().map(|reason| format!(": {reason}"));
            format!("banned{}{}", until.unwrap_or_default(), reason.unwrap_or_default())
        })
    };
    let (old, new) = (text(&old), text(&new));
    let new = new.as_deref().or(Some("none"));
    let target = subject.to_string();
    caller.tell_changed(
        api,
        Changed {
            call: "ban",
            target: Some(ChangedObject::Ban(&target)),
            old: old.as_deref(),
            new,
        },
    );
    let (kind, value) = (subject.kind(), subject.value());
    let answer = Answer::json(&BanDone { success: true, kind, value, revision, sessions_touched });
    Ok(match revision {
        Some(revision) => answer.with_header(ETAG, &etag::of(revision)),
        None => answer,
    })
}

fn ban_error(error: AccessError) -> ApiError {
    ApiError::of_access(error, ApiError::ban_not_found, ApiError::invalid_ban)
}
