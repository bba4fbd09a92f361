//! `POST /api/v1/keep-alive`: changes the Keep Alive of several clients: of those in a list, or of
//! those that a selector selects.
//!
//! Needs `control` for each client. (CONNECT permits only the two calls about one client.)

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    rt::time::timeout,
    web::{self, Bytes, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::yield_now;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
    },
    body::{self, BULK_BYTES_MAX},
    bulk::{self, BulkResults, Items, PORTION},
    resource, walk,
};
use crate::{
    auth::Action,
    control::{ControlError, KeepAliveChanged, SetKeepAlive},
    metrics::RestRoute,
    told::Changed,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/keep-alive", "POST").route(web::post().to(keep_alive)));
}

/// An item of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepAliveItem<'b> {
    #[serde(borrow)]
    client_id: Option<&'b RawValue>,
    #[serde(borrow)]
    interval: Option<&'b RawValue>,
    #[serde(default)]
    dry_run: bool,
}

/// A selector, and what changes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepAliveSelector<'b> {
    clients: Option<String>,
    username: Option<String>,
    #[serde(borrow)]
    interval: Option<&'b RawValue>,
    #[serde(default)]
    dry_run: bool,
}

/// The result for one client.
#[derive(Serialize)]
struct KeepAliveResult<I> {
    client_id: I,
    success: bool,
    /// The Keep Alive in force, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    keepalive: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl<I> KeepAliveResult<I> {
    fn of(client_id: I, result: Result<KeepAliveChanged, ApiError>) -> Self {
        match result {
            Ok(changed) => {
                let keepalive = Some(changed.new_secs);
                Self { client_id, success: true, keepalive, code: None }
            }
            Err(error) => {
                Self { client_id, success: false, keepalive: None, code: Some(error.code()) }
            }
        }
    }
}

async fn keep_alive(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let body = body::read_bytes(&api, &request, payload, BULK_BYTES_MAX).await?;
        if body.trim_ascii_start().starts_with(b"{") {
            return of_selected(&api, &caller, body::parse(&body)?);
        }
        let list: Items<'_> = body::parse(&body)?;
        list.check()?;
        let mut results = Vec::with_capacity(list.items.len());
        for portion in list.items.chunks(PORTION) {
            results.extend(of_portion(&api, &caller, portion).await);
            yield_now().await; // other calls of this worker
        }
        tell_changed(&api, &caller, None, &results);
        Ok(Answer::json(&BulkResults { results }))
    };
    answer(&api, &request, RestRoute::KeepAlives, call).await
}

/// Logs that a call has changed something.
fn tell_changed<I>(
    api: &Api,
    caller: &HttpCaller,
    target: Option<&str>,
    results: &[KeepAliveResult<I>],
) {
    let changed = results.iter().filter(|result| result.success).count();
    let new = format!("{changed} of {} clients", results.len());
    let changed = Changed { call: "keep-alive", target, old: None, new: Some(&new) };
    caller.tell_changed(api, changed);
}

/// Changes what some items of a list ask for.
async fn of_portion<'b>(
    api: &Api,
    caller: &HttpCaller,
    portion: &[&'b RawValue],
) -> Vec<KeepAliveResult<Option<&'b RawValue>>> {
    let parsed = portion.iter().map(|item| match bulk::parse_item::<KeepAliveItem<'b>>(item) {
        Ok(item) => (item.client_id, wanted_by(api, caller, &item)),
        Err(error) => (None, Err(error)),
    });
    let (client_ids, wanted): (Vec<_>, Vec<_>) = parsed.unzip();
    let results = change_each(api, wanted).await;
    client_ids
        .into_iter()
        .zip(results)
        .map(|(id, result)| KeepAliveResult::of(id, result))
        .collect()
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
    wanted.is_dry_run = item.dry_run;
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
    let KeepAliveSelector { clients, username, interval, dry_run } = wanted;
    let selector = walk::selector(clients.as_deref(), username.as_deref())?;
    let interval_secs = bulk::interval_in(interval)?;
    let target: Arc<str> = clients.or(username).unwrap_or_default().into();
    let its = (api.clone(), caller.clone());
    let handle = move |client_ids: Vec<String>| {
        let (its, target) = (its.clone(), Arc::clone(&target));
        let wanted = client_ids.iter().map(|client_id| {
            let mut wanted = SetKeepAlive::new(client_id.clone(), interval_secs);
            wanted.by = its.1.identity.username.clone();
            wanted.is_dry_run = dry_run;
            Ok(wanted)
        });
        let wanted: Vec<_> = wanted.collect();
        let handled = async move {
            let (api, caller) = its;
            let results = change_each(&api, wanted).await;
            let results = client_ids.iter().zip(results);
            let results: Vec<_> = results.map(|(id, it)| KeepAliveResult::of(id, it)).collect();
            tell_changed(&api, &caller, Some(&target), &results);
            results.iter().map(walk::line).collect::<Vec<Bytes>>()
        };
        Box::pin(handled) as _
    };
    Ok(Answer::lines(walk::walk(api, caller, selector, Box::new(handle))?))
}
