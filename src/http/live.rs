//! Calls that take long: how many of each kind there are, of one account and in all, and what ends
//! answers that go on until their caller leaves.
//!
//! Knows nothing of what they say. Used by the calls with such answers; the server of the program
//! watches their connections in another way than those of other calls.

use std::{convert::Infallible, pin::Pin, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    rt::time::sleep,
    web::Bytes,
};
use futures_util::{Stream, StreamExt as _, stream::unfold};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{
    Api, ApiError,
    admission::{AdmittedAt, HttpCaller},
    asking::ItsPlace,
    error::ErrorBody,
    rate::AccountQuota,
    shares::{OwnShare, ShareBounds, Shares},
};
use crate::{
    auth::{Action, Standing},
    mqtt::Timestamp,
};

/// The format of an answer that goes on.
#[derive(Clone, Copy)]
pub(super) enum LiveFormat {
    ServerSentEvents,
    Lines,
}

impl LiveFormat {
    /// Returns the format that a request accepts; `None` if it wants none that goes on.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let accepted = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
        let mut accepted = accepted.flat_map(|value| value.split(','));
        accepted.find_map(|one| match one.split(';').next().unwrap_or_default().trim() {
            "text/event-stream" => Some(Self::ServerSentEvents),
            "application/x-ndjson" => Some(Self::Lines),
            _ => None,
        })
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::ServerSentEvents => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// Returns what a caller ignores: a comment, or an empty line.
    pub(super) const fn sign_of_life(self) -> &'static str {
        match self {
            Self::ServerSentEvents => ": still here\n\n",
            Self::Lines => "\n",
        }
    }
}

/// Returns a response whose body is made while the caller reads, until it leaves.
pub(super) fn live_response(
    request: &HttpRequest,
    content_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, Infallible>> + 'static,
) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no")) // nginx would collect the parts
        // The body has no end that another request could follow.
        .force_close();
    AccountQuota::tell(request, &mut response);
    let mut response = response.streaming(chunks);
    response.extensions_mut().insert(LiveAnswer);
    response
}

/// Marks a response whose body has no end, in the extensions of the response.
pub(super) struct LiveAnswer;

/// Cancelled when the server of a connection begins to stop, in the data of the connection.
pub(super) struct ServerEnding(pub(super) CancellationToken);

/// Returns a future that ends when the server of the connection begins to stop.
pub(super) fn ending(request: &HttpRequest) -> impl Future<Output = ()> + use<> {
    let ending = request.conn_data::<ServerEnding>().map(|ServerEnding(token)| token.clone());
    async move {
        match ending {
            Some(token) => token.cancelled_owned().await,
            None => std::future::pending().await,
        }
    }
}

/// The callers that follow events or messages at present.
#[derive(Default)]
pub(super) struct Followers(Shares);

/// The calls that wait at present for what becomes of their messages.
#[derive(Default)]
pub(super) struct WaitingCallers(Shares);

impl Followers {
    /// Gives a caller a place.
    pub(super) fn enter(&self, api: &Api, caller: &HttpCaller) -> Result<OwnShare, ApiError> {
        let options = api.options();
        let (all, own) = (options.followers_max, options.followers_per_account_max);
        let place = self.0.take(caller.account(), 1, ShareBounds { all, own });
        place.ok_or_else(ApiError::too_many_followers)
    }
}

impl WaitingCallers {
    /// Gives a caller a place, if fewer than `max` are taken and fewer than a quarter of them by its
    /// account.
    pub(super) fn enter(&self, max: usize, caller: &HttpCaller) -> Result<OwnShare, ApiError> {
        let bounds = ShareBounds { all: max, own: max.div_ceil(4) };
        self.0.take(caller.account(), 1, bounds).ok_or_else(ApiError::too_many_waiting)
    }
}

/// Says that a call waits, as long as it lives: its connection ends when the caller leaves.
pub(super) struct ReplaceableCall(Option<ItsPlace>);

impl ReplaceableCall {
    pub(super) fn begin(request: &HttpRequest) -> Self {
        let place = request.conn_data::<ItsPlace>().cloned();
        if let Some(place) = &place {
            place.begin_wait();
        }
        Self(place)
    }
}

impl Drop for ReplaceableCall {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            place.end_wait();
        }
    }
}

/// Time between two checks of the credentials of a caller that gets no answer at present.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Checks whether a caller that was admitted once may still be answered.
pub(super) struct StandingCheck {
    /// The generation of the accounts when the caller was admitted.
    admitted_at: u64,
    /// The generation of the accounts at the last check.
    checked_at: u64,
    /// The generation of the rules for which its permissions were loaded.
    rules: u64,
}

impl StandingCheck {
    /// Begins with the state of accounts and rules by which the caller was admitted.
    pub(super) const fn of(caller: &HttpCaller) -> Self {
        let AdmittedAt { accounts, rules } = caller.admitted_at;
        Self { admitted_at: accounts, checked_at: accounts, rules }
    }

    /// Returns whether the credentials still hold and the broker does not end.
    pub(super) fn holds(&mut self, api: &Api, caller: &HttpCaller) -> bool {
        api.is_ready() && self.is_logged_in(api, caller)
    }

    /// Returns whether the credentials still hold. Costs little while nothing has changed.
    fn is_logged_in(&mut self, api: &Api, caller: &HttpCaller) -> bool {
        let identity = &caller.identity;
        let now: Timestamp = api.0.clock.now();
        // What was loaded for the caller belongs to former rules. Calling again loads it again.
        let is_outdated =
            !identity.prepared.is_empty() && api.0.authorizer.generation() != self.rules;
        let is_logged_out = caller.session.is_some_and(|session| {
            api.0.sessions.ends_at(&session, now, api.session_times()).is_none()
        });
        if identity.has_expired(now) || is_outdated || is_logged_out {
            return false;
        }
        let accounts = api.0.authenticator.generation();
        if accounts == self.checked_at {
            return true;
        }
        // Noted before the result: if the login no longer holds, the answer ends anyway.
        self.checked_at = accounts;
        let rules = api.logins_at(caller.listener());
        let authenticator = &api.0.authenticator;
        authenticator.standing_at(identity, self.admitted_at, rules) == Standing::Good
    }

    /// Waits until the credentials do not hold any more: exactly until they expire, and at most [`LOOK_EVERY`]
    /// longer than that they were taken away.
    pub(super) async fn lost(&mut self, api: &Api, caller: &HttpCaller) {
        while self.holds(api, caller) {
            let expires_at = caller.identity.expires_at;
            let left = expires_at.map_or(LOOK_EVERY, |at| at.since(api.0.clock.now()));
            sleep(left.clamp(Duration::from_millis(1), LOOK_EVERY)).await;
        }
    }
}

/// Checks whether the caller of a call that takes long may go on with it.
pub(super) struct CallerCheck {
    api: Api,
    caller: HttpCaller,
    standing: StandingCheck,
    /// Whether the call needs the permission to administer all the time.
    is_for_administrator: bool,
}

impl CallerCheck {
    /// Creates the check of a caller that has just been admitted.
    fn of(api: &Api, caller: &HttpCaller) -> Self {
        let (api, caller, standing) = (api.clone(), caller.clone(), StandingCheck::of(caller));
        Self { api, caller, standing, is_for_administrator: false }
    }

    /// Creates the check of a caller that must be allowed to administer, too.
    pub(super) fn of_administrator(api: &Api, caller: &HttpCaller) -> Self {
        Self { is_for_administrator: true, ..Self::of(api, caller) }
    }

    /// Checks that the call may go on.
    ///
    /// # Errors
    /// The caller has lost its login or its permission.
    pub(super) fn check(&mut self) -> Result<(), ApiError> {
        if !self.standing.is_logged_in(&self.api, &self.caller) {
            return Err(ApiError::unauthenticated());
        }
        match self.is_for_administrator && !self.caller.may(&self.api, "", Action::Administer) {
            true => Err(ApiError::forbidden_to_administer()),
            false => Ok(()),
        }
    }
}

/// A long answer of lines, made in portions while the caller reads.
pub(super) struct LongAnswer {
    caller: CallerCheck,
    /// The error that the last line says.
    refused: Option<ApiError>,
}

/// A portion of a long answer. An error cuts the connection.
type AnswerPortion = Result<Bytes, ApiError>;

impl LongAnswer {
    /// Creates the answer to a caller that may have it now.
    pub(super) fn to(api: &Api, caller: &HttpCaller) -> Self {
        Self { caller: CallerCheck::of(api, caller), refused: None }
    }

    /// Creates the answer to an administrator, which also ends when the caller may not administer any more.
    pub(super) fn to_administrator(api: &Api, caller: &HttpCaller) -> Self {
        Self { caller: CallerCheck::of_administrator(api, caller), refused: None }
    }

    /// Returns the portions until one cannot be made, or the caller loses its login or its permission. Then the last
    /// line is an error, and the connection is cut, so that nobody takes the answer for complete.
    pub(super) fn of(
        self,
        portions: impl Stream<Item = AnswerPortion> + 'static,
    ) -> impl Stream<Item = AnswerPortion> + 'static {
        unfold((self, Box::pin(portions)), async |(mut answer, mut portions)| {
            let portion = answer.next(portions.as_mut()).await?;
            Some((portion, (answer, portions)))
        })
    }

    async fn next(
        &mut self,
        mut portions: Pin<&mut impl Stream<Item = AnswerPortion>>,
    ) -> Option<AnswerPortion> {
        if let Some(error) = self.refused.take() {
            yield_now().await; // so that the line before is written
            return Some(Err(error));
        }
        // Before a portion, because making it may change clients.
        if let Err(error) = self.caller.check() {
            return Some(Ok(self.refuse(error)));
        }
        let portion = portions.next().await?;
        // And after it: the caller may have lost its login while the broker made the portion.
        let portion = self.caller.check().and(portion);
        Some(Ok(portion.unwrap_or_else(|error| self.refuse(error))))
    }

    /// Returns the last line.
    fn refuse(&mut self, error: ApiError) -> Bytes {
        let mut line =
            serde_json::to_vec(&ErrorBody::of(&error)).expect("an error has text keys only");
        line.push(b'\n');
        self.refused = Some(error);
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::auth::Identity;

    use super::*;

    #[test]
    fn an_account_has_a_quarter_of_the_places_of_calls_that_wait() {
        let waiting = WaitingCallers::default();
        let caller = |name: &str| {
            HttpCaller::of(Identity { username: Some(name.into()), ..Identity::default() })
        };
        let enter = |name: &str| waiting.enter(100, &caller(name));
        let mut places: Vec<_> = (0..25).map(|_| enter("ann").ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert_eq!(enter("ann").err(), Some(ApiError::too_many_waiting()));
        for name in ["bob", "dan", "joe"] {
            places.extend((0..25).map(|_| enter(name).ok()));
        }
        assert!(places.iter().all(Option::is_some));
        assert_eq!(enter("eve").err(), Some(ApiError::too_many_waiting()));
        places.pop();
        assert!(enter("eve").is_ok());
        drop(places);
        assert!(waiting.0.is_empty());
    }
}
