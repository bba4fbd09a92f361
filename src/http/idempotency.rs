//! Calls with an `Idempotency-Key`: a repeated call gets the answer of the first one and changes nothing.
//! (draft-ietf-httpapi-idempotency-key-header-07)
//!
//! A key belongs to an account. A call with a key goes on if its caller leaves, because the caller will
//! repeat it. Used by the calls that change something by POST.

mod kept;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::{HttpRequest, rt, web::Data};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use utoipa::IntoParams;

use self::kept::{AccountKey, EarlierCall, KeptAnswer, KeptAnswers, KeptText};
use super::{Api, ApiError, admission::HttpCaller, calls::Answer};

/// How long an answer is kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(300);
/// Maximum bytes of a kept answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Maximum bytes of a key.
const KEY_BYTES_MAX: usize = 255;
/// The header of a call.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of an answer that was given before.
const REPLAYED: &str = "Idempotent-Replayed";

/// The header of a call that may be repeated.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct KeyHeader {
    /// A key under which the call may be repeated: it then gets the answer of the first call, and changes
    /// nothing.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    key: Option<String>,
}

/// The answers to calls with a key.
#[derive(Default)]
pub(super) struct Idempotency(Mutex<KeptAnswers>);

impl Idempotency {
    fn answers(&self) -> MutexGuard<'_, KeptAnswers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a call, or returns the answer that it was given before under the same key.
///
/// The body is not needed while the call goes on.
pub(super) fn once<C>(
    api: &Data<Api>,
    request: &HttpRequest,
    caller: &HttpCaller,
    body: &[u8],
    call: C,
) -> impl Future<Output = Result<Answer, ApiError>> + use<C>
where
    C: Future<Output = Result<Answer, ApiError>> + 'static,
{
    let api = Data::clone(api);
    // Computed before the future, which must not borrow request and body.
    let keyed = key_of(request).map(|key| {
        let key = key?;
        Some((AccountKey { account: caller.account(), key }, fingerprint(request, body)))
    });
    async move {
        match keyed? {
            Some(keyed) => once_under(api, keyed, call).await,
            None => call.await,
        }
    }
}

async fn once_under(
    api: Data<Api>,
    (id, fingerprint): (AccountKey, [u8; 32]),
    call: impl Future<Output = Result<Answer, ApiError>> + 'static,
) -> Result<Answer, ApiError> {
    match api.0.idempotency.answers().begin(&id, fingerprint, Instant::now()) {
        EarlierCall::Unknown => {}
        EarlierCall::Answered(answer) => return answer.map(|kept| replayed(&kept)),
        EarlierCall::Running => return Err(ApiError::idempotency_key_in_use()),
        EarlierCall::Other => return Err(ApiError::idempotency_key_reused()),
        EarlierCall::NoRoom => return Err(ApiError::unavailable()),
    }
    // In a task of its own: a caller that leaves will repeat the call, and must find its answer.
    let under_way = OpenKey { api, id, kept: Some(Err(ApiError::unavailable())) };
    let calling = rt::spawn(async move {
        let result = call.await;
        under_way.end_with(kept_of(&result));
        result
    });
    calling.await.unwrap_or_else(|_| Err(ApiError::unavailable()))
}

/// A call with a key. Dropping it stores its result, also after an error or a panic, or the key would stay in use.
struct OpenKey {
    api: Data<Api>,
    id: AccountKey,
    /// A call that ends without a result may have changed something.
    kept: Option<KeptAnswer>,
}

impl OpenKey {
    fn end_with(mut self, kept: Option<KeptAnswer>) {
        self.kept = kept;
    }
}

impl Drop for OpenKey {
    fn drop(&mut self) {
        let mut answers = self.api.0.idempotency.answers();
        answers.end(&self.id, self.kept.take(), Instant::now());
    }
}

fn replayed(kept: &KeptText) -> Answer {
    let mut answer = Answer::json_text(kept.text.as_ref().to_owned());
    answer.headers.clone_from(&kept.headers);
    answer.with_header(REPLAYED, "true")
}

/// Returns the part of a call's result that is kept. A call that has changed nothing leaves no result: it may
/// be repeated under its key.
fn kept_of(result: &Result<Answer, ApiError>) -> Option<KeptAnswer> {
    match result {
        Ok(answer) => match answer.text() {
            Some(text) if text.len() <= ANSWER_BYTES_MAX => {
                Some(Ok(KeptText { text: text.into(), headers: answer.headers.clone() }))
            }
            Some(_) | None => Some(Err(ApiError::answer_not_kept())),
        },
        Err(error) => error.may_have_changed().then(|| Err(error.clone())),
    }
}

/// Returns the key of a call: a string of structured fields (RFC 9651), or the same without quotes.
fn key_of(request: &HttpRequest) -> Result<Option<Arc<str>>, ApiError> {
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let text = text
        .map(str::trim)
        .map(|text| text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text));
    let is_valid = |text: &&str| {
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
        (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
    };
    let key = text.filter(is_valid).ok_or_else(ApiError::invalid_idempotency_key)?;
    Ok(Some(key.into()))
}

/// Returns a hash of what a call asks for.
fn fingerprint(request: &HttpRequest, body: &[u8]) -> [u8; 32] {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let mut hash = Sha256::new();
    // No target contains a line feed.
    hash.update(format!("{} {target}\n", request.method()));
    hash.update(body);
    hash.finalize().into()
}
