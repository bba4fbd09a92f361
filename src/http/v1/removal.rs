//! Removes what is stored under the names of clients, for all clients that a pattern selects.
//!
//! Knows neither what is stored nor who may remove it.

use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::{FutureExt as _, future::join_all};
use serde::Serialize;
use tokio::{task::yield_now, time::Instant};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{Api, ApiError, admission::HttpCaller},
    LIST_TIMEOUTS, cursor, in_time,
    noted::JoinedTexts,
    target::Query,
};
use crate::{
    control::{ClientPattern, ControlError},
    told::{Changed, ChangedObject},
};

/// Names that are read at a time.
const READ_AT_A_TIME: usize = 1_000;
/// Names whose records are removed at the same time.
const REMOVED_AT_A_TIME: usize = 100;

/// Selects the clients to remove from.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct RemovalParameters {
    /// A pattern for Client Identifiers: `*` stands for any text.
    #[param(example = "car-*")]
    clients: String,
    /// The `next` of the answer before.
    cursor: Option<String>,
}

/// The result of a call that has removed something.
#[derive(Serialize, ToSchema)]
pub(super) struct RemovedSome {
    /// Always `true`.
    success: bool,
    /// For how many clients something was removed.
    removed: usize,
    /// There if the call ended before it was complete, because its time was over or a removal failed: the `cursor`
    /// of the next call.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which names a caller wants removed.
pub(super) struct Removal {
    pub(super) pattern: ClientPattern,
    after: Option<Arc<str>>,
}

impl Removal {
    /// Parses the query of a call.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let query = Query::parse(request.query_string(), &["clients", "cursor"])?;
        let pattern = query.text("clients")?;
        let pattern = pattern.ok_or_else(|| ApiError::missing_parameter("clients"))?;
        let pattern = ClientPattern::new(&pattern).map_err(|_| ApiError::invalid_pattern())?;
        let after = query.text("cursor")?.map(|text| cursor::key_of(&text)).transpose()?;
        Ok(Self { pattern, after })
    }

    /// Removes the records of the clients that the pattern selects and the caller may control. `ask`
    /// returns up to a number of names behind one, in their order; `remove` returns the text of what was there.
    /// Returns the former values, too, for the audit log.
    pub(super) async fn carry_out(
        self,
        api: &Api,
        may_control: impl Fn(&str) -> bool,
        ask: impl AsyncFn(Option<Arc<str>>, usize) -> Result<Vec<Arc<str>>, ControlError>,
        remove: impl AsyncFn(Arc<str>) -> Result<Option<String>, ControlError>,
    ) -> Result<(RemovedSome, JoinedTexts), ApiError> {
        let Self { pattern, mut after } = self;
        let by = Instant::now() + LIST_TIMEOUTS * api.options().call_timeout;
        let mut former = JoinedTexts::default();
        loop {
            let mut done_to = after.clone();
            let found = match in_time(api, ask(after.clone(), READ_AT_A_TIME)).await {
                Ok(found) => found,
                Err(error) => return stopped(done_to, former, error),
            };
            let is_last = found.len() < READ_AT_A_TIME;
            // The place behind all names that were read, also those that do not match.
            after = found.last().cloned().or(after);
            let chosen: Vec<_> =
                found.into_iter().filter(|id| pattern.matches(id) && may_control(id)).collect();
            // Removals of one portion go to the store together; a bound keeps its groups small.
            for some in chosen.chunks(REMOVED_AT_A_TIME) {
                let removing = join_all(some.iter().map(|id| remove(Arc::clone(id)))).map(Ok);
                let results = match in_time(api, removing).await {
                    Ok(results) => results,
                    Err(error) => return stopped(done_to, former, error),
                };
                let mut failed = None;
                for (id, result) in some.iter().zip(results) {
                    match result {
                        Ok(Some(value)) => former.push(&format!("{id}: {value}")),
                        Ok(None) => {}
                        Err(error) => failed = failed.or(Some(error)),
                    }
                    if failed.is_none() {
                        done_to = Some(Arc::clone(id));
                    }
                }
                if let Some(error) = failed {
                    return stopped(done_to, former, error.into());
                }
            }
            if is_last || Instant::now() >= by {
                let next = after.filter(|_| !is_last).map(|id| cursor::after(&id));
                return Ok((RemovedSome { success: true, removed: former.count(), next }, former));
            }
            yield_now().await; // other calls of this worker
        }
    }
}

/// Returns the result of a call that cannot go on behind this name. If it has removed something, the answer and
/// the audit log say so, because an error would hide it. The next call gets the error.
fn stopped(
    done_to: Option<Arc<str>>,
    former: JoinedTexts,
    error: ApiError,
) -> Result<(RemovedSome, JoinedTexts), ApiError> {
    if former.count() == 0 {
        return Err(error);
    }
    // No name is empty, so a list behind the empty one begins with the first.
    let next = cursor::after(done_to.as_deref().unwrap_or_default());
    Ok((RemovedSome { success: true, removed: former.count(), next: Some(next) }, former))
}

/// Notes in the audit log what a call has removed, if it has removed something.
pub(super) fn tell_removed(
    api: &Api,
    caller: &HttpCaller,
    call: &str,
    (pattern, former): (&ClientPattern, &JoinedTexts),
) {
    let Some(old) = former.text() else { return };
    let target = Some(ChangedObject::Clients(pattern.text()));
    let new = format!("{} removed", former.count());
    caller.tell_changed(api, Changed { call, target, old: Some(&old), new: Some(&new) });
}
