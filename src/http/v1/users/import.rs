//! `POST /api/v1/users/import`: creates accounts from lines of JSON, a million of them if need be.
//!
//! Some hundred accounts are in memory at a time. The answer begins when the body was read, so that a
//! caller may send all of it before it reads.

use std::{net::IpAddr, pin::pin, sync::atomic::Ordering};

use actix_web::{
    HttpRequest, HttpResponse,
    rt::{self, time::timeout},
    web::{BytesMut, Data, Payload},
};
use futures_util::{StreamExt as _, stream::iter};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        super::{
            Api, ApiError,
            admission::CallEffect,
            calls::{Answer, answer},
            failures::{Administration, Caller, Change, Fails, NoUsers, Parameters},
            live::CallerCheck,
        },
        LIST_TIMEOUTS,
        rules::administrator,
        target::Query,
    },
    export::{UserLine, lines_of},
    forms::{attributes_of, groups_of, password_of},
};
use crate::{
    auth::JsonObject,
    control::{ExistingUsers, ImportUsers, Imported, NewUser, UsersError},
    metrics::RestRoute,
    mqtt::Timestamp,
    told::Changed,
};

/// Maximum bytes of a line: an account with 4 KiB of groups, attributes and a long name, with escapes.
const LINE_BYTES_MAX: usize = 128 * 1024;
/// Maximum number of lines of a call; each takes two bytes of memory until the answer is read.
const LINES_MAX: usize = 10_000_000;
/// Replaced accounts up to this number are looked for one by one among the sessions.
const CHECKED_BY_NAME_MAX: usize = 64;
/// Lines of the answer that are made at a time.
const LINES_AT_A_TIME: usize = 1_000;
/// Imports under way at the same time.
const IMPORTS_MAX: usize = 2;

/// The result of one line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineOutcome {
    Done(Imported),
    Failed(LineError),
}

/// Why a line was not imported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineError {
    Users(UsersError),
    /// The line is not the JSON of an account.
    NotAnAccount,
    /// A secret is not a SHA-256, or there are more than two.
    Secrets,
    /// Groups or attributes are too many or too long, or two passwords are given.
    Properties,
    /// The caller had lost its login before.
    LoggedOut,
    /// The caller had lost the permission to administer before.
    Forbidden,
}

impl LineError {
    /// Returns the code and the sentence for the caller.
    fn text(self) -> (&'static str, String) {
        let of = |error: &ApiError| (error.code(), error.to_string());
        match self {
            Self::Users(error) => of(&error.into()),
            Self::LoggedOut => of(&ApiError::unauthenticated()),
            Self::Forbidden => of(&ApiError::forbidden_to_administer()),
            Self::NotAnAccount => (
                "invalid_body",
                "The line is not a JSON object with the members of an account.".into(),
            ),
            Self::Secrets => {
                let text = "An account has at most two secrets, each with a SHA-256 of 64 digits.";
                ("invalid_secret", text.into())
            }
            Self::Properties => {
                let text = "Groups or attributes exceed their limits, or there are two passwords.";
                ("invalid_body", text.into())
            }
        }
    }
}

/// The result of one line.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportedLine)]
struct LineAnswer {
    /// The number of the line, from 1.
    line: usize,
    /// `created`, `replaced`, `skipped` or `failed`.
    result: &'static str,
    /// The cause of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<&'static str>,
    /// A sentence about the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// The last line of the answer.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ImportSummary)]
struct ImportSummary {
    /// The number of lines that were read.
    lines: usize,
    /// The number of accounts that were created.
    created: usize,
    /// The number of accounts that have replaced others.
    replaced: usize,
    /// The number of accounts that were there and stay.
    skipped: usize,
    /// The number of lines that failed.
    failed: usize,
    /// The number of sessions that were disconnected or ended, have lost a subscription, or have stopped
    /// to queue messages.
    sessions_touched: usize,
    /// Why the import ended before the end of the body; absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    ended: Option<&'static str>,
}

/// A line of the answer.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described here")]
enum ImportLine {
    /// The result of a line.
    Line(LineAnswer),
    /// The last line.
    Sums(ImportSummary),
}

/// An import under way.
struct Import {
    api: Data<Api>,
    _place: ImportPlace,
    existing: ExistingUsers,
    check: CallerCheck,
    caller: IpAddr,
    outcomes: Vec<LineOutcome>,
    replaced: Vec<String>,
    summary: ImportSummary,
}

/// Imports accounts, one on each line.
///
/// The answer has a line for each line, and a last one with sums. It begins when the body was read.
#[utoipa::path(
    post, path = "/users/import", tag = "users", operation_id = "importUsers",
    params(
        ("existing" = Option<String>, Query, pattern = "^(fail|skip|replace)$",
         description = "The treatment of accounts that exist already; default `fail`."),
    ),
    request_body(content = UserLine, content_type = "application/x-ndjson",
        description = "One account on each line.",
        example = json!({"name": "car-17", "secrets": [{"sha256":
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]})),
    responses(
        (status = 200, description = "A line for each line, and one with sums.",
         content_type = "application/x-ndjson", body = ImportLine,
         example = json!({"line": 1, "result": "created"})),
        Fails<(Caller, Change, Administration, Parameters, NoUsers)>,
    ),
)]
pub(in crate::http::v1) async fn import_users(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        let query = Query::parse(request.query_string(), &["existing"])?;
        let existing =
            query.value("existing", "must be fail, skip or replace", |text| match text {
                "fail" => Some(ExistingUsers::Fail),
                "skip" => Some(ExistingUsers::Skip),
                "replace" => Some(ExistingUsers::Replace),
                _ => None,
            })?;
        let mut import = Import {
            _place: ImportPlace::take(&api)?,
            api: Data::clone(&api),
            existing: existing.unwrap_or_default(),
            check: CallerCheck::of_administrator(&api, &caller),
            caller: caller.peer.ip(),
            outcomes: Vec::new(),
            replaced: Vec::new(),
            summary: ImportSummary::default(),
        };
        // Goes on if the caller leaves: what was stored must reach the sessions.
        let importing = rt::spawn(async move {
            import.read(payload).await;
            import.finish().await
        });
        // The task fails only if it panics or the worker ends.
        let done = importing.await.map_err(|_| ApiError::unavailable())?;
        let Import { outcomes, summary, .. } = done;
        let new = format!("{} created, {} replaced", summary.created, summary.replaced);
        caller.tell_changed(&api, Changed { call: "users", new: Some(&new), ..Changed::default() });
        Ok(answer_of(outcomes, summary))
    };
    answer(&api, &request, RestRoute::UsersImport, pin!(call)).await
}

impl Import {
    /// Reads the body, and imports its lines as they come. A body that ends early leaves what came before.
    async fn read(&mut self, mut payload: Payload) {
        let mut rest = BytesMut::new();
        let mut batch = Vec::new();
        loop {
            // For each chunk, because an import as a whole may take an hour.
            let time = LIST_TIMEOUTS * self.api.options().call_timeout;
            let chunk = match timeout(time, payload.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(_))) => {
                    return self.end_early("the body did not arrive in full", batch).await;
                }
                Err(_) => return self.end_early("the body did not arrive in time", batch).await,
            };
            rest.extend_from_slice(&chunk);
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(at + 1);
                self.take(&line[..at], &mut batch).await;
                if self.summary.ended.is_some() {
                    return;
                }
            }
            // Only the incomplete line is left here, and it may not grow without a bound.
            if rest.len() > LINE_BYTES_MAX {
                return self.end_early("a line is longer than 131072 bytes", batch).await;
            }
            if self.outcomes.len() >= LINES_MAX {
                return self.end_early("there are more than 10000000 lines", batch).await;
            }
        }
        // The last line need not end in a line break.
        self.take(&rest, &mut batch).await;
        self.flush(&mut batch).await;
    }

    async fn end_early(&mut self, why: &'static str, mut batch: Vec<(usize, NewUser)>) {
        self.summary.ended = Some(why);
        self.flush(&mut batch).await;
    }

    /// Takes a line. An empty one does not count.
    async fn take(&mut self, line: &[u8], batch: &mut Vec<(usize, NewUser)>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        // Until its batch is imported, the line has failed.
        let at = self.outcomes.len();
        // In the order of the lines, although batches are imported later.
        self.outcomes.push(LineOutcome::Failed(LineError::Users(UsersError::Unavailable)));
        match parsed(line) {
            Ok(user) => batch.push((at, user)),
            Err(error) => self.outcomes[at] = LineOutcome::Failed(error),
        }
        if batch.len() >= ImportUsers::USERS_MAX {
            self.flush(batch).await;
        }
    }

    async fn flush(&mut self, batch: &mut Vec<(usize, NewUser)>) {
        // For each batch: an administrator that was removed meanwhile must not make accounts.
        if let Err(error) = self.check.check() {
            return self.refuse(batch, &error);
        }
        let (places, users): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let names: Vec<_> = match self.existing {
            ExistingUsers::Replace => users.iter().map(|user| user.name.clone()).collect(),
            ExistingUsers::Fail | ExistingUsers::Skip => Vec::new(),
        };
        let request = ImportUsers::new(users, self.existing, self.caller);
        let outcomes = self.api.0.control.import_users(request).await;
        for (number, outcome) in outcomes.into_iter().enumerate() {
            // A new account has no sessions that must be checked.
            if outcome == Ok(Imported::Replaced)
                && self.replaced.len() <= CHECKED_BY_NAME_MAX
                && let Some(name) = names.get(number)
            {
                self.replaced.push(name.clone());
            }
            let outcome = outcome.map_or_else(
                |error| LineOutcome::Failed(LineError::Users(error)),
                LineOutcome::Done,
            );
            if let Some(at) = places.get(number) {
                self.outcomes[*at] = outcome;
            }
        }
    }

    /// Ends the import at a batch that its caller may not import any more.
    fn refuse(&mut self, batch: &mut Vec<(usize, NewUser)>, error: &ApiError) {
        let (why, outcome) = match *error == ApiError::unauthenticated() {
            true => ("the caller has lost its login", LineError::LoggedOut),
            false => ("the caller may not administer any more", LineError::Forbidden),
        };
        for (at, _) in batch.drain(..) {
            self.outcomes[at] = LineOutcome::Failed(outcome);
        }
        // The first cause counts: the body may have ended early before.
        self.summary.ended.get_or_insert(why);
    }

    /// Checks the sessions of accounts that were replaced, and counts.
    async fn finish(mut self) -> Self {
        let names = std::mem::take(&mut self.replaced);
        if !names.is_empty() {
            // Too many names: then one walk along all sessions is cheaper.
            let names = Some(names).filter(|names| names.len() <= CHECKED_BY_NAME_MAX);
            self.summary.sessions_touched =
                self.api.0.control.check_sessions_of(names).await.touched;
        }
        let summary = &mut self.summary;
        summary.lines = self.outcomes.len();
        for outcome in &self.outcomes {
            match outcome {
                LineOutcome::Done(Imported::Created) => summary.created += 1,
                LineOutcome::Done(Imported::Replaced) => summary.replaced += 1,
                LineOutcome::Done(Imported::Skipped) => summary.skipped += 1,
                LineOutcome::Failed(_) => summary.failed += 1,
            }
        }
        self
    }
}

fn parsed(line: &[u8]) -> Result<NewUser, LineError> {
    let JsonObject(line): JsonObject<UserLine> =
        serde_json::from_slice(line).map_err(|_| LineError::NotAnAccount)?;
    if line.secrets.len() > 2 {
        return Err(LineError::Secrets);
    }
    let mut user = NewUser::new(line.name);
    for secret in line.secrets {
        let hash = hash_of(&secret.sha256).ok_or(LineError::Secrets)?;
        user.secrets.push((hash, secret.created_at.map(Timestamp)));
    }
    let properties = |_| LineError::Properties;
    user.password = password_of(line.password, line.password_hash).map_err(properties)?;
    user.is_disabled = line.disabled;
    user.groups = groups_of(line.groups).map_err(properties)?;
    user.attributes = attributes_of(line.attributes).map_err(properties)?;
    user.limits = line.limits.map(Into::into);
    Ok(user)
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

/// Returns the answer, whose lines are made while the caller reads.
fn answer_of(outcomes: Vec<LineOutcome>, summary: ImportSummary) -> Answer {
    let portions = outcomes.len().div_ceil(LINES_AT_A_TIME);
    let last = lines_of([summary].iter());
    let each = iter(0..portions).map(move |portion| {
        let first = portion * LINES_AT_A_TIME;
        let some = outcomes.iter().enumerate().skip(first).take(LINES_AT_A_TIME);
        let answers: Vec<_> = some.map(|(at, outcome)| line_answer(at + 1, *outcome)).collect();
        lines_of(answers.iter())
    });
    Answer::lines(each.chain(iter([last])))
}

fn line_answer(line: usize, outcome: LineOutcome) -> LineAnswer {
    let (result, cause) = match outcome {
        LineOutcome::Done(Imported::Created) => ("created", None),
        LineOutcome::Done(Imported::Replaced) => ("replaced", None),
        LineOutcome::Done(Imported::Skipped) => ("skipped", None),
        LineOutcome::Failed(error) => ("failed", Some(error.text())),
    };
    let (code, message) = cause.unzip();
    LineAnswer { line, result, code, message }
}

/// The place of an import among those that are under way.
struct ImportPlace(Data<Api>);

impl ImportPlace {
    fn take(api: &Data<Api>) -> Result<Self, ApiError> {
        let place = Self(Data::clone(api));
        // Counted before it is compared; dropping the place gives it back.
        match api.0.imports.fetch_add(1, Ordering::AcqRel) < IMPORTS_MAX {
            true => Ok(place),
            false => Err(ApiError::unavailable()),
        }
    }
}

impl Drop for ImportPlace {
    fn drop(&mut self) {
        self.0.0.imports.fetch_sub(1, Ordering::AcqRel);
    }
}
