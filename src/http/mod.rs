//! The REST interface: calls on live clients, health and metrics, as actix-web routes.
//!
//! It knows who may ask ([`crate::auth`]) and whom to ask ([`crate::control`]), and nothing of
//! sockets, sessions or shards. The `hearthmq` program serves it with [`Server`]; an application
//! mounts [`routes`] into an `App` of its own.
//!
//! A call passes these checks in this order, and the first that fails answers: the method (405);
//! calls from the address (429); whose page it is, if it changes something (403); who it is (401);
//! calls of the account (429); the parameters (400); the permission for the target client id (403).
//! Only then is anything about the client looked up. (Where a call means many clients, each of them is
//! checked.) The rate of an address comes before authentication because verifying a password is dear.

mod admission;
mod browsers;
mod calls;
mod certificate;
mod desk;
mod error;
mod forwarded;
mod health;
mod parameters;
mod rate;
mod redirect;
mod server;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
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
use serde::{Deserialize, Serialize};

use crate::{
    auth::{Authenticator, Authorizer, ListenerLogins, Network},
    control::Control,
    metrics::Metrics,
    told::Told,
};

pub use error::{ApiError, ClientIdError, not_found};
pub use server::{Listener, ListenerName, Server, ServerOptions};

use desk::Desk;
use rate::Rates;

/// What the REST interface needs of the broker, shared by all workers. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    control: Arc<dyn Control>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    metrics: Arc<Metrics>,
    told: Arc<Told>,
    rates: Rates,
    call_timeout: Duration,
    login_timeout: Duration,
    logins: Vec<(String, ListenerLogins)>,
    metrics_access: MetricsAccess,
    metrics_hosts: Vec<String>,
    proxies: Vec<Network>,
    ready: AtomicBool,
}

/// What can be chosen about the REST interface.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// How often one account may call.
    pub account_rate: Option<CallRate>,
    /// How often one address (IPv6: one /64) may call.
    pub address_rate: Option<CallRate>,
    /// How long a call waits for the broker before it is answered with 504.
    pub call_timeout: Duration,
    /// How long the credentials of a call may take to be checked, delays for earlier failures and the
    /// wait for others' passwords included, before it is answered with 503.
    pub login_timeout: Duration,
    /// What holds for logins at single listeners, by their URLs.
    pub logins: Vec<(String, ListenerLogins)>,
    /// Who may read `/metrics`.
    pub metrics_access: MetricsAccess,
    /// Names that a request for `/metrics` may call the machine by, beside `localhost`, its host
    /// name and IP addresses. They count with [`MetricsAccess::Loopback`].
    pub metrics_hosts: Vec<String>,
    /// Networks of reverse proxies, whose headers `Forwarded` and `X-Forwarded-For` are believed.
    pub proxies: Vec<Network>,
}

impl Default for ApiOptions {
    /// No limits on rates: a host application has its own, or sets them.
    fn default() -> Self {
        Self {
            account_rate: None,
            address_rate: None,
            call_timeout: Duration::from_secs(2),
            login_timeout: Duration::from_secs(5),
            logins: Vec::new(),
            metrics_access: MetricsAccess::Loopback,
            metrics_hosts: Vec::new(),
            proxies: Vec::new(),
        }
    }
}

/// A token bucket's size and rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    /// Calls a second that go on for ever.
    pub per_sec: NonZeroU32,
    /// Calls that may come at once before the rate counts.
    pub burst: NonZeroU32,
}

/// Who may read `/metrics`; nobody needs an account for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricsAccess {
    /// Callers on the machine itself. Behind a proxy there, that is everybody.
    Loopback,
    /// Whoever reaches the listener.
    Anyone,
    /// Nobody: the route answers 404.
    Nobody,
}

impl Api {
    /// The REST interface of the broker behind `control`.
    #[must_use]
    pub fn new(
        control: Arc<dyn Control>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        options: &ApiOptions,
    ) -> Self {
        let told = Arc::new(Told::default());
        Self::telling(told, control, authenticator, authorizer, metrics, options)
    }

    /// The same with a log that is limited together with that of the broker.
    pub(crate) fn telling(
        told: Arc<Told>,
        control: Arc<dyn Control>,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        options: &ApiOptions,
    ) -> Self {
        Self(Arc::new(Shared {
            told,
            control,
            authenticator,
            authorizer,
            metrics,
            rates: Rates::new(options.account_rate, options.address_rate),
            call_timeout: options.call_timeout,
            login_timeout: options.login_timeout,
            logins: options.logins.clone(),
            metrics_access: options.metrics_access,
            metrics_hosts: options.metrics_hosts.clone(),
            proxies: options.proxies.clone(),
            ready: AtomicBool::new(true),
        }))
    }

    /// What `/health/ready` says from now on. It begins ready; a broker that shuts down says so
    /// here first, so that a load balancer sends callers elsewhere.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed) && self.0.control.is_ready()
    }
}

/// The routes, for [`App::configure`](actix_web::App::configure) or for a scope of it.
///
/// Paths that are not among them are left to the host; [`not_found`] is there for a host that has
/// nothing else.
pub fn routes(api: Api) -> impl FnOnce(&mut ServiceConfig) + Clone {
    move |config: &mut ServiceConfig| {
        config
            .app_data(Desk::new(api.0.control.clone(), api.0.call_timeout))
            .app_data(web::Data::new(api))
            .service(
                web::resource("/keep-alive").wrap(from_fn(stay_with_http)).to(calls::keep_alive),
            )
            // A prefix costs nothing to match; a pattern would be matched anew with each request.
            .service(
                web::scope("/client-id")
                    .wrap(from_fn(stay_with_http))
                    .default_service(web::to(calls::status)),
            )
            .service(
                web::resource("/api/v1/redirect")
                    .wrap(from_fn(stay_with_http))
                    .to(redirect::redirect),
            )
            .service(web::resource("/health/live").wrap(from_fn(stay_with_http)).to(health::live))
            .service(web::resource("/health/ready").wrap(from_fn(stay_with_http)).to(health::ready))
            .service(web::resource("/metrics").wrap(from_fn(stay_with_http)).to(health::metrics));
    }
}

/// Answers a request that offers another protocol (`Upgrade`) as if it did not, and closes then: what
/// the caller would send next is not known to be HTTP. actix-http closes, too, but does not say so,
/// and callers that send their next request meanwhile lose it. (RFC 9110, 7.8; RFC 9112, 9.6)
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
