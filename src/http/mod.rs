//! The REST interface: calls about live clients, health and metrics, as actix-web routes.
//!
//! It uses [`crate::auth`] for permissions and [`crate::control`] for requests, and knows nothing
//! of sockets, sessions or shards. The `hearthmq` program serves it with [`Server`]; an application
//! mounts [`routes`] into its own `App`.
//!
//! A call passes these checks in this order, and the first one that fails gives the response: the
//! method (405); the rate of the address (429); the web site of the page, if the call changes
//! something (403); the credentials (401); the rate of the account (429); the parameters (400); the
//! permission for the client identifier (403). Only then does the call access the client. (A call
//! about many clients checks the permission for each.) The rate of the address comes before the
//! credentials because verifying a password is expensive.

mod admission;
mod asking;
mod authorization;
mod browsers;
mod calls;
mod certificate;
mod channel;
#[cfg(feature = "console")]
mod console;
mod desk;
mod error;
mod failures;
mod fixed;
mod forwarded;
mod health;
mod idempotency;
mod live;
mod parameters;
mod pieces;
mod problem;
mod program;
mod rate;
mod remembered;
#[cfg(feature = "tls")]
mod server;
mod sessions;
mod shares;
mod traced;
mod v1;

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use actix_http::ConnectionType;
use actix_web::{
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    web::{self, ServiceConfig},
};
use arc_swap::{ArcSwap, Guard};
use serde::{Deserialize, Serialize};

use crate::{
    auth::{Authenticator, Authorizer, ListenerLogins, Network},
    clock::Clock,
    control::Control,
    metrics::Metrics,
    mqtt::Timestamp,
    spans::Tracer,
    told::Told,
};

pub use admission::ListenerName;
pub use error::{ApiError, not_found};
pub use program::{InvalidLogFilter, OptionInForce, Program};
#[cfg(feature = "tls")]
pub use server::{Listener, Server, ServerOptions};
#[doc(hidden)]
pub use v1::describe_calls;

use asking::Asking;
use desk::Desk;
use idempotency::Idempotency;
use live::{Followers, WaitingCallers};
use rate::Rates;
use sessions::{SessionTimes, Sessions};
use shares::{ShareBounds, Shares};

/// Calls that walk along all clients at the same time.
const WALKS: ShareBounds = ShareBounds { all: 8, own: 2 };
/// Bytes of all bodies of calls that are larger than a few KiB.
const BODIES: ShareBounds = ShareBounds::of_bytes(64 * 1024 * 1024);
/// Bytes of all answers that are larger than a few KiB and not yet taken by their callers.
const ANSWERS: ShareBounds = ShareBounds::of_bytes(64 * 1024 * 1024);

/// The REST interface of one broker, shared by all workers. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<ApiParts>);

struct ApiParts {
    control: Arc<dyn Control>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    metrics: Arc<Metrics>,
    told: Arc<Told>,
    rates: Rates,
    asking: Asking,
    followers: Followers,
    waiting: WaitingCallers,
    idempotency: Idempotency,
    clock: Clock,
    /// The number of messages that callers have published.
    messages: AtomicU64,
    /// The description of all calls.
    described: v1::Described,
    /// The page on which they can be made.
    docs: v1::DocsFiles,
    /// The console.
    #[cfg(feature = "console")]
    console: console::ConsoleFiles,
    /// The sessions of browsers.
    sessions: Sessions,
    /// The program of the broker.
    program: OnceLock<Arc<dyn Program>>,
    /// Makes spans of calls.
    tracer: OnceLock<Arc<Tracer>>,
    /// The places of calls that walk along all clients.
    walks: Shares,
    /// The bytes of bodies.
    bodies: Shares,
    /// The bytes of answers.
    answers: Shares,
    /// Imports of accounts under way.
    imports: AtomicUsize,
    options: ArcSwap<ApiOptions>,
    ready: AtomicBool,
}

/// Options of the REST interface.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Rate limit of one account.
    pub account_rate: Option<CallRate>,
    /// Rate limit of one address (IPv6: one /64).
    pub address_rate: Option<CallRate>,
    /// Maximum time that a call waits for the broker; then the response is 504.
    pub call_timeout: Duration,
    /// Maximum time to check the credentials of a call, including delays after earlier failures and
    /// the queue of password checks; then the response is 503.
    pub login_timeout: Duration,
    /// Maximum number of calls that wait for the check of their credentials at the same time. A call
    /// beyond the limit displaces one of lower [`Precedence`](crate::auth::Precedence), or one from an
    /// address or network with more calls, which is answered 503; if there is none, it is answered 503
    /// itself. At most half of the connections of a server leaves the other half to health checks and
    /// to calls whose credentials need no check.
    pub password_checks_max: usize,
    /// Maximum number of calls that wait for deliveries or replies at the same time, of which one account
    /// may have half; one more is answered 429. At most half of the connections of a server, together with
    /// the followers, leaves the other half to calls that do not wait and to health checks.
    pub waiting_max: usize,
    /// Maximum number of callers that follow events at the same time; one more is answered 503.
    pub followers_max: usize,
    /// The same of one account.
    pub followers_per_account_max: usize,
    /// Login rules of individual listeners, by URL.
    pub logins: Vec<(String, ListenerLogins)>,
    /// How long a browser stays logged in without a person who uses it; zero: a page cannot log in.
    pub session_idle: Duration,
    /// How long a browser stays logged in at most.
    pub session_max: Duration,
    /// Which callers may read `/metrics`.
    pub metrics_access: MetricsAccess,
    /// Names that a request for `/metrics` may use for this machine, in addition to `localhost`,
    /// its host name and IP addresses. Used with [`MetricsAccess::Loopback`].
    pub metrics_hosts: Vec<String>,
    /// Networks of reverse proxies whose headers `Forwarded` and `X-Forwarded-For` are trusted.
    pub proxies: Vec<Network>,
}

impl Default for ApiOptions {
    /// Without rate limits: a host application may have its own or set them.
    fn default() -> Self {
        Self {
            account_rate: None,
            address_rate: None,
            call_timeout: Duration::from_secs(2),
            login_timeout: Duration::from_secs(5),
            password_checks_max: 500,
            waiting_max: 400,
            followers_max: 100,
            followers_per_account_max: 20,
            logins: Vec::new(),
            session_idle: Duration::from_secs(30 * 60),
            session_max: Duration::from_secs(12 * 60 * 60),
            metrics_access: MetricsAccess::Loopback,
            metrics_hosts: Vec::new(),
            proxies: Vec::new(),
        }
    }
}

/// Size and rate of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    /// Sustained calls for each second.
    pub per_sec: NonZeroU32,
    /// Maximum burst of calls, above which the rate applies.
    pub burst: NonZeroU32,
}

/// Which callers may read `/metrics`. No account is needed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MetricsAccess {
    /// Callers on this machine. Behind a proxy on this machine, these are all callers.
    Loopback,
    /// All callers that can reach the listener.
    Anyone,
    /// No caller: the route responds with 404.
    Nobody,
}

impl Api {
    /// Creates the REST interface of the broker behind `control`.
    #[must_use]
    pub fn new(
        control: Arc<dyn Control>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        options: &ApiOptions,
    ) -> Self {
        let (told, clock) = (Arc::new(Told::default()), Clock::start_after(Timestamp(0)));
        Self::of_broker((told, clock), control, authenticator, authorizer, metrics, options)
    }

    /// Creates it with the clock of a broker, and with its log, whose rate limit covers the lines of
    /// both.
    pub(crate) fn of_broker(
        (told, clock): (Arc<Told>, Clock),
        control: Arc<dyn Control>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        options: &ApiOptions,
    ) -> Self {
        Self(Arc::new(ApiParts {
            told,
            control,
            authenticator,
            authorizer,
            metrics,
            rates: Rates::new(options.account_rate, options.address_rate),
            asking: Asking::new(options.password_checks_max),
            followers: Followers::default(),
            waiting: WaitingCallers::default(),
            idempotency: Idempotency::default(),
            clock,
            messages: AtomicU64::new(1),
            described: v1::Described::default(),
            docs: v1::DocsFiles::default(),
            #[cfg(feature = "console")]
            console: console::ConsoleFiles::default(),
            sessions: Sessions::default(),
            program: OnceLock::new(),
            tracer: OnceLock::new(),
            walks: Shares::default(),
            bodies: Shares::default(),
            answers: Shares::default(),
            imports: AtomicUsize::new(0),
            options: ArcSwap::from_pointee(options.clone()),
            ready: AtomicBool::new(true),
        }))
    }

    /// Changes the options, for calls from then on. A rate that stays the same keeps its counts.
    pub fn set_options(&self, options: &ApiOptions) {
        self.0.rates.set(options.account_rate, options.address_rate);
        self.0.asking.set_max(options.password_checks_max);
        self.0.options.store(Arc::new(options.clone()));
    }

    fn options(&self) -> Guard<Arc<ApiOptions>> {
        self.0.options.load()
    }

    /// Sets the program whose options and log the calls show; only the first call has an effect.
    pub fn set_program(&self, program: Arc<dyn Program>) {
        drop(self.0.program.set(program));
    }

    /// Sets what makes spans of calls; only the first call has an effect.
    pub(crate) fn set_tracer(&self, tracer: Arc<Tracer>) {
        drop(self.0.tracer.set(tracer));
    }

    /// Returns how long the sessions of browsers last.
    fn session_times(&self) -> SessionTimes {
        let options = self.options();
        SessionTimes { idle: options.session_idle, whole: options.session_max }
    }

    /// Sets the state of `/health/ready`, which starts as ready. A broker sets false at the
    /// beginning of its shutdown, so that a load balancer sends callers elsewhere.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed) && self.0.control.is_ready()
    }
}

/// Returns the routes, for [`App::configure`](actix_web::App::configure) or for a scope.
///
/// Other paths are left to the host application; [`not_found`] answers them if it has no other
/// routes. Its server should set [`tcp_nodelay`](actix_web::HttpServer::tcp_nodelay): otherwise the end of a long
/// answer may wait 40 ms for an acknowledgement of the caller.
pub fn routes(api: Api) -> impl FnOnce(&mut ServiceConfig) + Clone {
    move |config: &mut ServiceConfig| {
        config
            .app_data(Desk::new(api.clone()))
            .app_data(web::Data::new(api))
            .service(
                web::resource("/keep-alive").wrap(from_fn(stay_with_http)).to(calls::keep_alive),
            )
            // Matching a prefix is cheap; a pattern would be evaluated for each request.
            .service(
                web::scope("/client-id")
                    .wrap(from_fn(stay_with_http))
                    .default_service(web::to(calls::status)),
            )
            .configure(v1::topics)
            .configure(v1::routes)
            .configure(pages)
            .service(web::resource("/health/live").wrap(from_fn(stay_with_http)).to(health::live))
            .service(web::resource("/health/ready").wrap(from_fn(stay_with_http)).to(health::ready))
            .service(web::resource("/metrics").wrap(from_fn(stay_with_http)).to(health::metrics));
    }
}

/// Registers the routes of the pages.
fn pages(config: &mut ServiceConfig) {
    #[cfg(feature = "console")]
    console::routes(config);
    #[cfg(not(feature = "console"))]
    let _ = config;
}

/// Answers a request with `Upgrade` as if it had none, and closes the connection: the next bytes
/// may not be HTTP. actix-http closes it too, but without saying so in the response, and a caller
/// loses the request that it sends meanwhile. (RFC 9110, 7.8; RFC 9112, 9.6)
async fn stay_with_http(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let offers_another = request.head().upgrade();
    let mut answer = next.call(request).await?;
    if offers_another {
        answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(answer)
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("options", &self.options()).finish_non_exhaustive()
    }
}
