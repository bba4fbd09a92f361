//! Pages of what is stored under the names of clients or users: sticky Keep Alives and settings.
//!
//! Knows neither what is stored nor who may see it.

use std::sync::Arc;

use actix_web::HttpRequest;
use serde::Serialize;
use tokio::{task::yield_now, time::Instant};
use utoipa::IntoParams;

use super::{
    super::{Api, ApiError, admission::HttpCaller, calls::Answer},
    LIST_TIMEOUTS, cursor, in_time,
    page::AskedPage,
    target::Query,
};
use crate::control::ControlError;

/// The largest number of items of a page, and of an answer of the broker.
const LIMIT_MAX: usize = 1_000;

/// The place and the size of a page.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct NamedPageParameters {
    /// Maximum number of items of the page.
    #[param(minimum = 1, maximum = 1_000, default = 100)]
    limit: Option<u64>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Which page a caller wants. Its cursors are names.
pub(super) struct NamedPage(AskedPage);

impl NamedPage {
    /// Parses the query of a call.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let query = Query::parse(request.query_string(), &["limit", "cursor"])?;
        AskedPage::within(&query, LIMIT_MAX as u64).map(Self)
    }

    /// Answers with the items of the page, as far as the caller may see them. `ask` returns up to a number
    /// of items behind a name, in the order of the names. A page ends early, with a cursor, if the
    /// search for them takes the time of a list.
    pub(super) async fn read<T, A: From<T> + Serialize>(
        self,
        (api, caller): (&Api, &HttpCaller),
        name: impl Fn(&T) -> &str,
        may_see: impl Fn(&str) -> bool,
        ask: impl AsyncFn(Option<Arc<str>>, usize) -> Result<Vec<T>, ControlError>,
    ) -> Result<Answer, ApiError> {
        let mut text = self.0.begin(api, caller)?;
        let AskedPage { mut after, limit } = self.0;
        let by = Instant::now() + LIST_TIMEOUTS * api.options().call_timeout;
        loop {
            // More than a page, because the caller may not see some of them.
            let asked = LIMIT_MAX.min(4 * limit);
            let found = in_time(api, ask(after.clone(), asked)).await?;
            let is_last = found.len() < asked;
            for found in found {
                let its_name = name(&found);
                let is_shown = may_see(its_name);
                // Only another item that the caller may see proves that there is a next page.
                if is_shown && text.items == limit {
                    return Ok(text.end(after.map(|name| cursor::after(&name))));
                }
                after = Some(its_name.into());
                if is_shown {
                    text.push(&A::from(found))?;
                }
            }
            if is_last {
                return Ok(text.end(None));
            }
            // A caller that may see few of many items gets
            // a short page and a cursor, not a timeout.
            if Instant::now() >= by {
                return Ok(text.end(after.map(|name| cursor::after(&name))));
            }
            yield_now().await; // other calls of this worker
        }
    }
}
