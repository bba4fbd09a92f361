//! Identities from an HTTP service: one POST for a login, with permissions in its answer.
//!
//! `template` makes the request, `answer` reads the answer, `cache` keeps it; this module puts them
//! together, with a limit of calls at the same time and a circuit breaker. A service that does not answer
//! makes a login Unavailable, never refused.

mod answer;
mod cache;
mod options;
mod template;

use std::{
    fs,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use self::options::{AnswerForm, HttpAuthConfig, HttpAuthError};
use self::{
    answer::{ServiceAdmission, ServiceVerdict, kept_for, verdict},
    cache::{Answers, RequestKey, ServiceReply, jittered},
    template::RequestBody,
};
use super::{
    Admission as Admitted, AuthenticationError, Authenticator, ClientCertificate, Credentials,
    FailureThrottle, Identity, Lockout, Login, Renew, Renewal, Standing, ThrottleConfig,
    breaker::{Breaker, CallOutcome, Turned},
    identity::is_user_name,
    origin::Origin,
    throttle::now,
};
use crate::{
    mqtt::Timestamp,
    outbound::{self, CallFailure, ServiceCaller, ServiceUrl},
    told::{LockOut, LockOuts},
};

/// Maximum bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of idle connections to the service.
const IDLE_MAX: usize = 16;

/// Admits clients that an HTTP service knows. Cloning copies a pointer.
#[derive(Clone)]
pub struct HttpAuthenticator(Arc<HttpShared>);

struct HttpShared {
    /// `None` while there is no service.
    service: ArcSwapOption<Service>,
    generation: AtomicU64,
    failures: Mutex<FailureThrottle>,
    lock_outs: LockOuts,
}

/// The service of a configuration.
struct Service {
    url: ServiceUrl,
    caller: ServiceCaller,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: RequestBody,
    answers: AnswerForm,
    time_max: Duration,
    kept_for: Duration,
    refused_for: Duration,
    turns: Semaphore,
    breaker: Breaker,
    cache: Answers,
}

impl HttpAuthenticator {
    /// Creates it; connects to nothing yet.
    ///
    /// # Errors
    /// An option is invalid, or a file cannot be read.
    pub fn open(config: &HttpAuthConfig, throttle: ThrottleConfig) -> Result<Self, HttpAuthError> {
        let authenticator = Self(Arc::new(HttpShared {
            service: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            failures: Mutex::new(FailureThrottle::new(throttle.clone())),
            lock_outs: LockOuts::default(),
        }));
        authenticator.set_config(config, throttle)?;
        Ok(authenticator)
    }

    /// Applies a configuration, and reads its files again. Forgets the answers that were kept.
    ///
    /// # Errors
    /// The same as [`HttpAuthenticator::open`]; the former configuration then stays in force.
    pub fn set_config(
        &self,
        config: &HttpAuthConfig,
        throttle: ThrottleConfig,
    ) -> Result<(), HttpAuthError> {
        let service = match config.is_used() {
            true => Some(Arc::new(Service::new(config)?)),
            false => None,
        };
        self.0.failures().set_config(throttle);
        self.0.service.store(service);
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl HttpShared {
    fn failures(&self) -> MutexGuard<'_, FailureThrottle> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal by the service, and logs a lock-out if one begins with it.
    fn note_refused(&self, shown: &Credentials<'_>, name: &str) {
        let address = shown.peer.ip();
        // Under one lock, so that no other login changes the time that is logged; the log comes after it.
        let (lockout, admission) = {
            let mut failures = self.failures();
            let lockout = failures.failed(address, name, now());
            (lockout, failures.admit(address, name, now()))
        };
        let secs = match admission {
            Admitted::Refused { retry_after_secs } => retry_after_secs,
            Admitted::Now | Admitted::After(_) => 0,
        };
        if let Some(lockout) = lockout {
            self.lock_outs.tell(&LockOut {
                address: address.to_canonical(),
                listener: shown.listener,
                over: if shown.client_id.is_some() { "MQTT" } else { "REST" },
                user: name,
                secs,
                is_whole_address: lockout == Lockout::Address,
            });
        }
    }
}

impl Service {
    fn new(config: &HttpAuthConfig) -> Result<Self, HttpAuthError> {
        let url = config.service_url()?;
        let unreadable = |option, path: &std::path::Path| {
            let path = path.to_owned();
            move |source| HttpAuthError::Unreadable { option, path, source }
        };
        // Files are read now, so that a wrong one refuses the configuration and not a login.
        let authorities = match config.ca.as_os_str().is_empty() {
            true => None,
            false => {
                Some(outbound::authorities_in(&config.ca).map_err(unreadable("ca", &config.ca))?)
            }
        };
        let tls = outbound::tls_config(authorities.as_deref(), url.is_encrypted());
        let tls = tls.map_err(|fault| HttpAuthError::of("ca", fault.to_string()))?;
        let mut headers = config.further_headers()?;
        if !config.token_file.as_os_str().is_empty() {
            let token = fs::read_to_string(&config.token_file)
                .map_err(unreadable("token_file", &config.token_file))?;
            let value = format!("Bearer {}", token.trim()).parse::<HeaderValue>();
            let mut value =
                value.map_err(|_| HttpAuthError::of("token_file", "it has no token"))?;
            // Keeps the token out of debug output.
            value.set_sensitive(true);
            headers.push((AUTHORIZATION, value));
        }
        Ok(Self {
            url,
            caller: ServiceCaller::new(tls, IDLE_MAX),
            headers,
            body: config.request_body()?,
            answers: config.answers,
            time_max: Duration::from_millis(config.timeout_ms.into()),
            kept_for: Duration::from_secs(config.cache_secs.into()),
            refused_for: Duration::from_secs(config.cache_refused_secs.into()),
            turns: Semaphore::new(config.calls_at_once_max.into()),
            breaker: Breaker::default(),
            cache: Answers::new(config.cache_entries_max),
        })
    }

    /// Asks the service, or joins those that wait for the same answer.
    async fn ask(self: &Arc<Self>, origin: Origin, key: RequestKey, body: Bytes) -> ServiceReply {
        let service = Arc::clone(self);
        // Shared by equal logins: a fleet with one credential asks the service once.
        let call = self.cache.call(key, move || {
            Box::pin(async move {
                let by = Instant::now() + service.time_max;
                // A login that gets no turn in time says nothing about the service.
                let Ok(Ok(_turn)) = timeout_at(by, service.turns.acquire()).await else {
                    tracing::debug!("calls_at_once_max calls of auth.http take all the time");
                    return None;
                };
                // After the turn, because the breaker may have opened while this login waited.
                if !service.breaker.admits(origin) {
                    return None;
                }
                // An answer that is late because its call began late says nothing about the service either.
                let is_in_time = Instant::now() + service.time_max / 2 <= by;
                let asked = match timeout_at(by, service.call(key, body)).await {
                    Ok(asked) => asked,
                    Err(_) if is_in_time => Err(CallFailure::of("no answer in time".to_owned())),
                    Err(_) => return None,
                };
                service.note(origin, &asked);
                asked.ok()
            })
        });
        call.await
    }

    async fn call(&self, key: RequestKey, body: Bytes) -> Result<Arc<ServiceVerdict>, CallFailure> {
        let mut request = Request::post(self.url.uri().clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, outbound::AGENT);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("the headers were parsed");
        let answer = self.caller.call(request, self.time_max, ANSWER_BYTES_MAX).await?;
        let verdict = Arc::new(verdict(self.answers, &answer).map_err(CallFailure::of)?);
        let said = kept_for(&answer.headers);
        let time = match &*verdict {
            ServiceVerdict::Allow(admission) => {
                let time = said.unwrap_or(self.kept_for);
                let left = admission.expires_at.map(|at| at.since(wall_clock()));
                // A kept answer must not outlive the identity;
                // the margin lets a client renew it before.
                left.map_or(time, |left| time.min(left.mul_f64(0.8)))
            }
            // Short, so that a corrected account works soon; the service may only shorten it.
            ServiceVerdict::Deny | ServiceVerdict::Ignore => {
                self.refused_for.min(said.unwrap_or(Duration::MAX))
            }
        };
        self.cache.keep(key, Arc::clone(&verdict), time);
        Ok(verdict)
    }

    /// Notes the outcome of a call.
    fn note(&self, origin: Origin, asked: &Result<Arc<ServiceVerdict>, CallFailure>) {
        let service = self.url.host();
        let outcome = match asked {
            Ok(_) => CallOutcome::Good,
            Err(failure) if failure.is_of_connection => CallOutcome::Unreachable,
            Err(_) => CallOutcome::Failed,
        };
        let failure = asked.as_ref().err().map(|failure| &*failure.why);
        // Only at `debug`: while the service is down, every login fails.
        if let Some(why) = failure {
            tracing::debug!(service, why, "the service of auth.http has failed");
        }
        match (self.breaker.note(origin, outcome), failure) {
            // The breaker limits these lines to changes of its state, and to one first failure in a time.
            (Turned::Failing, Some(why)) => tracing::warn!(
                service,
                why,
                "the service of auth.http has failed; this login is answered Server unavailable"
            ),
            (Turned::Open, Some(why)) => tracing::warn!(
                service,
                why,
                "the service of auth.http fails; logins that need it are answered Server unavailable"
            ),
            (Turned::Closed, _) => tracing::info!(service, "the service of auth.http is back"),
            (Turned::Failing | Turned::Open | Turned::No, _) => {}
        }
    }
}

/// Returns the time of the wall clock, by which the service computes `expire_at`.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The client that an admission is about.
#[derive(Clone)]
struct Claimant {
    username: Option<Arc<str>>,
    certificate: Option<Arc<ClientCertificate>>,
    login: Login,
}

impl Claimant {
    fn identity(&self, admission: &ServiceAdmission) -> Result<Identity, AuthenticationError> {
        let given = admission.username.as_deref().map(Into::into);
        // The name in CONNECT wins: the service must not turn one user into another.
        let username = self.username.clone().or(given);
        let is_named = username.as_ref().is_some_and(|name| is_user_name(name));
        let is_other = |shown: &Arc<ClientCertificate>| {
            username.as_ref().is_none_or(|name| **name != *shown.common_name)
        };
        match () {
            () if !is_named => return Err(AuthenticationError::BadCredentials),
            // A certificate names its user, and the service must not make it another one.
            () if self.certificate.as_ref().is_some_and(is_other) => {
                return Err(AuthenticationError::OtherThanCertificate);
            }
            () => {}
        }
        Ok(Identity {
            username,
            certificate: self.certificate.clone(),
            login: self.login,
            expires_at: admission.expires_at,
            attributes: admission.attributes.clone(),
            groups: admission.groups.clone(),
            rules: admission.rules.clone(),
            ..Identity::default()
        })
    }
}

/// Asks again about a client, with the same request.
struct AskAgain {
    shared: Arc<HttpShared>,
    origin: Origin,
    applicant: Claimant,
    body: Bytes,
}

#[async_trait]
impl Renew for AskAgain {
    async fn renew(&self) -> Result<Identity, AuthenticationError> {
        let service = self.shared.service.load_full();
        let service = service.ok_or(AuthenticationError::Unavailable)?;
        // The same body as at the login, so several clients with it share the answer.
        let key = service.cache.key_of(&self.body);
        match service.ask(self.origin, key, self.body.clone()).await.as_deref() {
            None => Err(AuthenticationError::Unavailable),
            Some(ServiceVerdict::Deny | ServiceVerdict::Ignore) => {
                Err(AuthenticationError::BadCredentials)
            }
            Some(ServiceVerdict::Allow(admission)) => {
                let identity = self.applicant.identity(admission)?;
                let (shared, applicant) = (Arc::clone(&self.shared), self.applicant.clone());
                let again =
                    Self { shared, origin: self.origin, applicant, body: self.body.clone() };
                Ok(renewed(identity, again, &key))
            }
        }
    }
}

/// Plans the renewal of an identity that expires: after about four fifths of its time.
fn renewed(identity: Identity, by: AskAgain, key: &RequestKey) -> Identity {
    let Some(expires_at) = identity.expires_at else { return identity };
    let now = wall_clock();
    let time = jittered(expires_at.since(now).mul_f64(0.8), key);
    let at = now.plus_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Identity { renewal: Renewal::new(at, Arc::new(by)), ..identity }
}

#[async_trait]
impl Authenticator for HttpAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let Some(service) = self.0.service.load_full() else {
            return Err(AuthenticationError::NotMine);
        };
        // Without credentials that the body can carry, the service is not asked.
        let has_token = credentials.bearer.is_some() && service.body.has_token;
        let has_name = credentials.username.is_some() && credentials.bearer.is_none();
        if !(has_token || has_name) {
            return Err(AuthenticationError::NotMine);
        }
        let body = service.body.fill(&credentials).ok_or(AuthenticationError::BadCredentials)?;
        let key = service.cache.key_of(&body);
        let body = Bytes::from(body);
        let (address, name) = (credentials.peer.ip(), credentials.username.unwrap_or_default());
        // Only a call counts as an attempt: a kept answer tells a guesser nothing new.
        let verdict = match service.cache.find(&key) {
            Some(verdict) => verdict,
            None => {
                let delay = self.0.failures().admit(address, name, now()).delay()?;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                    // Others may have failed meanwhile.
                    self.0.failures().admit(address, name, now()).delay()?;
                }
                let asked = service.ask(Origin::of(address), key, body.clone()).await;
                let verdict = asked.ok_or(AuthenticationError::Unavailable)?;
                match &*verdict {
                    ServiceVerdict::Allow(_) => self.0.failures().succeeded(address, name),
                    ServiceVerdict::Deny => self.0.note_refused(&credentials, name),
                    // The next source decides and counts; a
                    // second count would punish the client twice.
                    ServiceVerdict::Ignore => {}
                }
                verdict
            }
        };
        let admission = match &*verdict {
            ServiceVerdict::Allow(admission) => admission,
            ServiceVerdict::Deny => return Err(AuthenticationError::BadCredentials),
            ServiceVerdict::Ignore => return Err(AuthenticationError::NotMine),
        };
        // Without a user name in CONNECT, the service names the user.
        let applicant = Claimant {
            username: credentials.username.map(Into::into),
            certificate: credentials.certificate.cloned().map(Arc::new),
            login: if has_name { Login::Password } else { Login::Other },
        };
        let identity = applicant.identity(admission)?;
        let again =
            AskAgain { shared: Arc::clone(&self.0), origin: Origin::of(address), applicant, body };
        Ok(match credentials.client_id {
            Some(_) => renewed(identity, again, &key),
            None => identity, // A REST caller: each call is checked.
        })
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn standing(&self, _: &Identity, _: u64) -> Standing {
        match self.0.service.load().is_some() {
            true => Standing::Good,
            false => Standing::Suspended,
        }
    }
}

impl std::fmt::Debug for HttpAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpAuthenticator").finish_non_exhaustive()
    }
}
