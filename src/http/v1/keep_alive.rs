//! `POST /api/v1/keep-alive`: changes the Keep Alive of several clients: of those in a list, or of
//! those that a selector selects.
//!
//! Needs `control` for each client. (CONNECT permits only the two calls about one client.)

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Bytes, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::yield_now;
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer, reserve},
        failures::{
            Caller, Change, Fails, Interval, Items as ItemFails, JsonBody, Repeating, Selector, Ttl,
        },
        idempotency::{KeyHeader, once},
    },
    body::{self, BULK_BYTES_MAX, ReadBody},
    bulk::{self, BulkResults, Items, PORTION},
    noted::{JoinedTexts, listed, range_of},
    resource, walk,
};
use crate::{
    auth::Action,
    control::{ControlError, KeepAliveChanged, SetKeepAlive},
    metrics::RestRoute,
    told::{Changed, ChangedObject},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/keep-alive", "POST").route(web::post().to(keep_alive)));
}

/// A client, and what changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeepAliveItem<'b> {
    /// The client.
    #[serde(borrow)]
    #[schema(value_type = String)]
    client_id: Option<&'b RawValue>,
    /// The new Keep Alive in seconds.
    #[serde(borrow)]
    #[schema(value_type = u16, minimum = 30, maximum = 1200)]
    interval: Option<&'b RawValue>,
    /// `true`: the results are the same, and nothing changes.
    #[serde(default)]
    dry_run: bool,
    /// `true`: the value holds for the client's later connections too.
    #[serde(default)]
    sticky: bool,
    /// The change ends by itself after these seconds.
    #[serde(borrow)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 31_536_000)]
    ttl_seconds: Option<&'b RawValue>,
}

/// A selector, which needs `clients` or `username`, and what changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeepAliveSelector<'b> {
    /// A pattern for Client Identifiers: `*` stands for any text.
    clients: Option<String>,
    /// The user name of the clients.
    username: Option<String>,
    /// The new Keep Alive in seconds.
    #[serde(borrow)]
    #[schema(value_type = u16, minimum = 30, maximum = 1200)]
    interval: Option<&'b RawValue>,
    /// `true`: the results are the same, and nothing changes.
    #[serde(default)]
    dry_run: bool,
    /// `true`: the value holds for the clients' later connections too.
    #[serde(default)]
    sticky: bool,
    /// The change ends by itself after these seconds.
    #[serde(borrow)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 31_536_000)]
    ttl_seconds: Option<&'b RawValue>,
}

/// The body of a call that changes several Keep Alives: a list, or a selector.
#[derive(ToSchema)]
#[schema(as = KeepAliveChanges)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described here; the first byte of a body decides")]
enum KeepAliveBody<'b> {
    /// At most 10,000 clients.
    List(Vec<KeepAliveItem<'b>>),
    /// All clients that it selects.
    Selector(KeepAliveSelector<'b>),
}

/// The result for one client.
#[derive(Serialize, ToSchema)]
struct KeepAliveResult<I> {
    /// The `client_id` of the item.
    #[schema(value_type = serde_json::Value)]
    client_id: I,
    /// Whether the Keep Alive is changed.
    success: bool,
    /// The node that has the connection, or has stored the value of an absent client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    node: Option<Arc<str>>,
    /// The Keep Alive in force, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    keepalive: Option<u16>,
    /// Whether the client cannot be told the sticky value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    not_told: bool,
    /// The risk for a client that does not learn of the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    /// Why nothing is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The value before.
    #[serde(skip)]
    former: Option<u16>,
}

/// Why a client may not stand a value that it is not told.
const BELOW_OWN: &str = "The value is below the client's own Keep Alive, and the client cannot be told: it may be \
     disconnected at every interval.";

impl<I> KeepAliveResult<I> {
    fn of(client_id: I, result: Result<KeepAliveChanged, ApiError>) -> Self {
        let (changed, code) = match result {
            Ok(changed) => (Some(changed), None),
            Err(error) => (None, Some(error.code())),
        };
        let of = changed.as_ref();
        Self {
            client_id,
            success: of.is_some(),
            keepalive: of.map(|changed| changed.new_secs),
            not_told: of.is_some_and(|changed| changed.is_not_told),
            warning: of.filter(|changed| changed.is_below_own).map(|_| BELOW_OWN),
            former: of.map(|changed| changed.old_secs),
            node: changed.map(|changed| changed.node),
            code,
        }
    }
}

/// Changes the Keep Alive of several clients.
///
/// A list has a result for each item, in its order. A selector is answered with one result on each line;
/// the changes are made as the caller reads them.
#[utoipa::path(
    post, path = "/keep-alive", tag = "keep-alive", operation_id = "setKeepAlives",
    params(KeyHeader),
    request_body(content = KeepAliveBody<'static>, description = "The clients, and what changes.",
        examples(
            ("list" = (value = json!([{"client_id": "car-17", "interval": 300, "sticky": true}]))),
            ("selector" = (value = json!({"clients": "car-*", "interval": 300}))))),
    responses(
        (status = 200, description = "A result for each client.", content(
            (BulkResults<KeepAliveResult<String>> = "application/json", example = json!({"results": [
                {"client_id": "car-17", "success": true, "node": "hearthmq", "keepalive": 300},
                {"client_id": "nobody", "success": false, "code": "client_not_online"}]})),
            (KeepAliveResult<String> = "application/x-ndjson",
             example = json!({
                "client_id": "car-17", "success": true, "node": "hearthmq", "keepalive": 300})))),
        Fails<(Caller, Change, JsonBody, ItemFails, Selector, Interval, Ttl, Repeating)>,
    ),
)]
pub(super) async fn keep_alive(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let body = body::read_json(&api, &request, payload, BULK_BYTES_MAX).await?;
        let (its, bytes) = ((Data::clone(&api), caller.clone()), body.bytes.clone());
        let changing = once(&api, &request, &caller, &bytes, change_many(its, body));
        // Only the fingerprint needed them; from here on the call alone holds the body.
        drop(bytes);
        changing.await
    };
    answer(&api, &request, RestRoute::KeepAlives, pin!(call)).await
}

/// Changes what a list or a selector asks for.
async fn change_many(
    (api, caller): (Data<Api>, HttpCaller),
    body: ReadBody,
) -> Result<Answer, ApiError> {
    // The first byte decides: a list begins with `[`.
    if body.bytes.trim_ascii_start().starts_with(b"{") {
        return of_selected(&api, &caller, body::parse(&body.bytes)?);
    }
    let list: Items<&RawValue> = body::parse_any(&body.bytes)?;
    list.check()?;
    let bytes = bulk::results_bytes(body.bytes.len(), list.items.len());
    // Before the first change: an answer without room would hide what was changed.
    let room = reserve(&api, &caller, bytes)?;
    let mut results = Vec::with_capacity(list.items.len());
    let mut noted = NotedChanges::default();
    for portion in list.items.chunks(PORTION) {
        results.extend(of_portion(&api, &caller, portion, &mut noted).await);
        yield_now().await; // other calls of this worker
    }
    // One entry for the whole list, or a call could flood the audit log.
    noted.tell(&api, &caller, None);
    Ok(Answer::json(&BulkResults { results }).within(room))
}

/// The changes of a call, for the audit log.
#[derive(Default)]
struct NotedChanges {
    clients: JoinedTexts,
    former: Vec<u16>,
    present: Vec<u16>,
    /// The number of items that were to change something.
    items: usize,
}

impl NotedChanges {
    /// Adds the result of an item, unless nothing was to change. `client_id` is known if it has changed.
    fn add<I>(&mut self, client_id: Option<&str>, is_dry_run: bool, result: &KeepAliveResult<I>) {
        if is_dry_run {
            return;
        }
        self.items += 1;
        let Some((client_id, present)) = client_id.zip(result.keepalive) else { return };
        self.clients.push(client_id);
        self.present.push(present);
        // 0 stands for none.
        self.former.extend(result.former.filter(|secs| *secs > 0));
    }

    /// Notes the changes of these clients, if there are any; `None` stands for those that were added.
    fn tell(&self, api: &Api, caller: &HttpCaller, target: Option<ChangedObject<'_>>) {
        let range = |values: &[u16]| range_of(values.iter().copied());
        let names = self.clients.text();
        let Some((names, present)) = names.zip(range(&self.present)) else { return };
        let count = self.clients.count();
        let target = Some(target.unwrap_or_else(|| listed(count, &names)));
        let new = format!("{present}; {count} of {} clients", self.items);
        let (old, new) = (range(&self.former), Some(&*new));
        caller.tell_changed(api, Changed { call: "keep-alive", target, old: old.as_deref(), new });
    }
}

/// Changes what some items of a list ask for.
async fn of_portion<'b>(
    api: &Api,
    caller: &HttpCaller,
    portion: &[&'b RawValue],
    noted: &mut NotedChanges,
) -> Vec<KeepAliveResult<Option<&'b RawValue>>> {
    let parsed = portion.iter().map(|item| match bulk::parse_object::<KeepAliveItem<'b>>(item) {
        Ok(item) => (item.client_id, wanted_by(api, caller, &item)),
        Err(error) => (None, Err(error)),
    });
    let (client_ids, wanted): (Vec<_>, Vec<_>) = parsed.unzip();
    let asked: Vec<_> = wanted.iter().map(|wanted| wanted.as_ref().ok().cloned()).collect();
    // The broker gets only valid items, in order, so results are matched by position.
    let results = change_each(api, wanted).await;
    let results = client_ids.into_iter().zip(results).zip(asked);
    let results = results.map(|((id, result), asked)| {
        let result = KeepAliveResult::of(id, result);
        let is_dry_run = asked.as_ref().is_some_and(|asked| asked.is_dry_run);
        noted.add(asked.as_ref().map(|asked| &*asked.client_id), is_dry_run, &result);
        result
    });
    results.collect()
}

/// Returns what an item asks for, if the caller may have that.
fn wanted_by(
    api: &Api,
    caller: &HttpCaller,
    item: &KeepAliveItem<'_>,
) -> Result<SetKeepAlive, ApiError> {
    let client_id = bulk::client_id_in(item.client_id)?;
    let interval_secs = bulk::interval_in(item.interval)?;
    caller.permit(api, &client_id, &[Action::Control])?;
    let mut wanted = SetKeepAlive::new(client_id, interval_secs);
    wanted.by = caller.identity.username.clone();
    (wanted.is_dry_run, wanted.is_sticky) = (item.dry_run, item.sticky);
    wanted.is_within_share = item.sticky && caller.has_share(api);
    wanted.ttl_secs = bulk::ttl_in(item.ttl_seconds)?;
    Ok(wanted)
}

/// Changes each Keep Alive that can be changed; returns the results in their order.
async fn change_each(
    api: &Api,
    wanted: Vec<Result<SetKeepAlive, ApiError>>,
) -> Vec<Result<KeepAliveChanged, ApiError>> {
    let asked: Vec<_> = wanted.iter().filter_map(|wanted| wanted.as_ref().ok().cloned()).collect();
    let changing = api.0.control.set_each_keep_alive(asked);
    let answers = timeout(api.options().call_timeout, changing).await;
    // Those before this portion have been changed, so that the call goes on.
    let mut answers = answers.map(Vec::into_iter).ok();
    let results = wanted.into_iter().map(|wanted| {
        wanted?;
        let Some(answers) = &mut answers else { return Err(ControlError::Timeout.into()) };
        Ok(answers.next().ok_or_else(ApiError::unavailable)??)
    });
    results.collect()
}

/// Changes the Keep Alive of the clients that a selector selects.
fn of_selected(
    api: &Api,
    caller: &HttpCaller,
    wanted: KeepAliveSelector<'_>,
) -> Result<Answer, ApiError> {
    let mut selector = walk::selector(wanted.clients.as_deref(), wanted.username.as_deref())?;
    let mut each = SetKeepAlive::new("", bulk::interval_in(wanted.interval)?);
    each.by.clone_from(&caller.identity.username);
    (each.is_dry_run, each.is_sticky) = (wanted.dry_run, wanted.sticky);
    each.ttl_secs = bulk::ttl_in(wanted.ttl_seconds)?;
    if each.is_sticky {
        each.is_within_share = caller.has_share(api);
        // A sticky value is for later connections, so absent clients get it too.
        selector = selector.with_absent();
    }
    let (is_pattern, is_dry_run) = (wanted.clients.is_some(), wanted.dry_run);
    let target: Arc<str> = wanted.clients.or(wanted.username).unwrap_or_default().into();
    let its = (api.clone(), caller.clone());
    let handle = move |client_ids: Vec<String>| {
        let (its, target) = (its.clone(), Arc::clone(&target));
        let wanted =
            client_ids.iter().map(|id| Ok(SetKeepAlive { client_id: id.clone(), ..each.clone() }));
        let wanted: Vec<_> = wanted.collect();
        let handled = async move {
            let (api, caller) = its;
            let results = change_each(&api, wanted).await;
            let results = client_ids.iter().zip(results);
            let results: Vec<_> = results.map(|(id, it)| KeepAliveResult::of(id, it)).collect();
            let mut noted = NotedChanges::default();
            for result in &results {
                noted.add(Some(result.client_id), is_dry_run, result);
            }
            noted.tell(&api, &caller, Some(ChangedObject::selected(is_pattern, &target)));
            results.iter().map(walk::line).collect::<Vec<Bytes>>()
        };
        Box::pin(handled) as _
    };
    walk::walk(api, caller, selector, Box::new(handle))
}
