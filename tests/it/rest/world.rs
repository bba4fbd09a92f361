//! A REST interface on a real socket, with doubles behind it, and a caller that controls every byte
//! it sends.
//!
//! The doubles answer by name: the name of a client or user selects the behaviour that a test
//! needs. Used by the tests of this directory.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    callers::{Accounts, Policy},
    feed, openapi,
};
use actix_web::{App, HttpServer, rt::System, web};
use async_trait::async_trait;
use futures_util::future::join_all;
use hearthmq::{
    auth::{AllowAll, Authorizer, ClientCertificate, FilePolicy},
    control::{
        AccessControl, BridgeControl, ChangeSubscriptions, ClientCertificates, ClientTraces,
        Clients, ControlError, FeedPosition, KeepAliveChanged, KeepAliveOverride, Kick, Kicked,
        ListOverrides, LiveClients, OnlineState, QueryOverride, Readiness, Redirect, Redirection,
        Redirects, RemoveOverride, SelectClients, SelectedClients, SelectionPlace, SetKeepAlive,
        SubscriptionChange, SubscriptionsChanged, WillRequest,
    },
    http::{Api, ApiOptions, Listener, MetricsAccess, Server, ServerOptions, not_found, routes},
    metrics::Metrics,
    mqtt::{ReasonCode, Timestamp},
    net::ProxyProtocol,
};
pub(crate) use hearthmq_test::http::{Answer, basic};
use hearthmq_test::{
    http::{exchange, request},
    mqtt::tcp,
};
use tokio::sync::Notify;

/// The broker's double. It records its calls, in order.
pub(super) struct Fleet {
    pub(super) policy: Arc<dyn Authorizer>,
    pub(super) asked: Mutex<Vec<String>>,
    drained_to: Mutex<Option<Redirection>>,
    feed_goes_on: Notify,
}

impl Fleet {
    pub(super) fn note(&self, question: String) {
        self.asked.lock().unwrap().push(question);
    }

    pub(super) async fn answer(
        &self,
        client_id: &str,
        question: String,
    ) -> Result<(), ControlError> {
        self.asked.lock().unwrap().push(question);
        match client_id {
            "offline" => Err(ControlError::NotOnline),
            "keep-alive-off" => Err(ControlError::KeepAliveDisabled),
            "full" => Err(ControlError::Unavailable),
            "slow" => Err(ControlError::Timeout),
            "too-long" => Err(ControlError::ClientIdTooLong { bytes_max: 1_024 }),
            "stuck" => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl LiveClients for Fleet {
    async fn follow(&self, follow: feed::Follow) -> Result<feed::FeedPart, ControlError> {
        self.asked.lock().unwrap().push(feed::asked(&follow));
        if matches!(follow.from, FeedPosition::After(id) if id.number == 6) {
            self.feed_goes_on.notified().await;
        }
        Ok(feed::part(&follow).await)
    }

    async fn set_keep_alive(&self, set: SetKeepAlive) -> Result<KeepAliveChanged, ControlError> {
        let by = set.by.as_deref().unwrap_or("nobody");
        let dry = if set.is_dry_run { " dry" } else { "" };
        let sticky = if set.is_sticky { " sticky" } else { "" };
        let share = if set.is_within_share { " within its share" } else { "" };
        let ttl = set.ttl_secs.map_or(String::new(), |secs| format!(" for {secs}"));
        let (id, secs) = (&set.client_id, set.interval_secs);
        let question = format!("{id} {secs} by {by}{dry}{sticky}{share}{ttl}");
        self.answer(&set.client_id, question).await?;
        let mut changed = KeepAliveChanged::new("here", 60, set.interval_secs);
        changed.is_not_told = set.client_id == "old" && set.is_sticky;
        changed.is_below_own = changed.is_not_told && set.interval_secs < 60;
        Ok(changed)
    }

    /// Finds one client at a time, in two shards; asked for `broken*`, fails at the second.
    async fn select_clients(
        &self,
        request: SelectClients,
    ) -> Result<SelectedClients, ControlError> {
        let mut found = SelectedClients::default();
        let is_first = request.from == SelectionPlace::default();
        let pattern = request.selector.client_id.as_ref().map_or("*", |pattern| pattern.text());
        if !is_first && pattern == "broken*" {
            return Err(ControlError::Unavailable);
        }
        let ids: &[&str] =
            if is_first { &["car-1", "secret"] } else { &["keep-alive-off", "car-2"] };
        let caller = request.caller.as_ref().unwrap();
        for id in ids {
            if request.selector.matches(id, Some("fleet")) && caller.may_control(&*self.policy, id)
            {
                found.client_ids.push((*id).into());
            }
        }
        found.next = is_first.then(|| SelectionPlace::new(1, 0));
        Ok(found)
    }

    async fn change_subscriptions(
        &self,
        request: ChangeSubscriptions,
    ) -> Result<SubscriptionsChanged, ControlError> {
        let mut question = request.client_id.clone();
        let mut reasons = Vec::new();
        for change in &request.changes {
            let (sign, granted) = match change {
                SubscriptionChange::Subscribe(_, options) => ('+', options.qos.number()),
                _ => ('-', 0),
            };
            question += &format!(" {sign}{}", change.filter());
            reasons.push(match change.filter() {
                "denied" => ReasonCode::NotAuthorized,
                "quota" => ReasonCode::QuotaExceeded,
                "wrong" => ReasonCode::TopicFilterInvalid,
                "none" => ReasonCode::NoSubscriptionExisted,
                _ => [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2]
                    [usize::from(granted)],
            });
        }
        self.answer(&request.client_id, question).await?;
        Ok(SubscriptionsChanged::new("here", reasons))
    }

    async fn query_override(
        &self,
        question: QueryOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        let QueryOverride { client_id, .. } = question;
        let is_known = client_id != "nobody";
        let mut found = KeepAliveOverride::new(client_id, 300, Timestamp(7));
        (found.by, found.expires_at) = (Some("ops".into()), Some(Timestamp(9)));
        Ok(is_known.then_some(found))
    }

    async fn remove_override(
        &self,
        request: RemoveOverride,
    ) -> Result<Option<KeepAliveOverride>, ControlError> {
        let by = request.by.as_deref().unwrap_or("nobody");
        self.answer(&request.client_id, format!("remove {} by {by}", request.client_id)).await?;
        let is_known = request.client_id != "nobody";
        Ok(is_known.then(|| KeepAliveOverride::new(request.client_id, 300, Timestamp(7))))
    }

    /// There are `id-00` to `id-30`, `secret`, and `full`, which cannot be removed.
    async fn list_overrides(
        &self,
        request: ListOverrides,
    ) -> Result<Vec<KeepAliveOverride>, ControlError> {
        let ids = (0..=30).map(|number| format!("id-{number:02}")).chain(["secret".into()]);
        let ids = ["full".to_owned()].into_iter().chain(ids);
        let after = request.after.unwrap_or_default();
        let found = ids.filter(|id| *id > after).take(request.limit);
        Ok(found.map(|id| KeepAliveOverride::new(id, 300, Timestamp(7))).collect())
    }

    async fn kick(&self, kick: Kick) -> Result<Kicked, ControlError> {
        let Kick { client_id, options, .. } = kick;
        let session = if options.ends_session() { "end" } else { "keep" };
        let will = match options.will_request() {
            WillRequest::Discard => "discard",
            _ => "publish",
        };
        let reason = options.reason().map_or(String::new(), |reason| format!(" {reason}"));
        self.answer(&client_id, format!("kick {client_id} {session} {will}{reason}")).await?;
        Ok(Kicked::new("here"))
    }

    async fn query_online(&self, client_id: &str) -> Result<bool, ControlError> {
        match self.answer(client_id, client_id.to_owned()).await {
            Err(ControlError::NotOnline) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    async fn query_each_online(
        &self,
        client_ids: Vec<String>,
    ) -> Vec<Result<OnlineState, ControlError>> {
        let asked = client_ids.iter().map(async |client_id| {
            let online = self.query_online(client_id).await?;
            Ok(OnlineState::of(online.then(|| "here".into())))
        });
        join_all(asked).await
    }
}

#[async_trait]
impl Redirects for Fleet {
    async fn redirect(&self, redirect: Redirect) -> Result<usize, ControlError> {
        let code = if redirect.to.is_permanent() { "9d" } else { "9c" };
        let to = redirect.to.server_reference();
        let clients = match &redirect.clients {
            Clients::One(client_id) => vec![client_id.clone()],
            Clients::Matching(pattern) => {
                let all = ["car-1", "car-2", "secret", "ship"].iter();
                all.filter(|id| pattern.matches(id)).map(|id| (*id).to_owned()).collect()
            }
            _ => return Err(ControlError::Unavailable),
        };
        let caller = redirect.caller.as_ref();
        let may_control =
            |id: &str| caller.is_none_or(|caller| caller.may_control(&*self.policy, id));
        let meant = clients.iter().filter(|id| may_control(id));
        let mut redirected = 0;
        for client_id in meant {
            match self.answer(client_id, format!("{client_id} {code} {to}")).await {
                Ok(()) => redirected += 1,
                Err(ControlError::NotOnline) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(redirected)
    }

    async fn evacuate(&self, redirect: Redirect) -> Result<usize, ControlError> {
        self.drain(Some(redirect.to.clone())).await;
        self.redirect(redirect).await
    }

    fn drained_to(&self) -> Option<Redirection> {
        self.drained_to.lock().unwrap().clone()
    }

    async fn drain(&self, to: Option<Redirection>) {
        self.drained_to.lock().unwrap().clone_from(&to);
        let to = to.as_ref().map_or("nowhere", |to| to.server_reference());
        self.asked.lock().unwrap().push(format!("drain to {to}"));
    }
}

impl Readiness for Fleet {}

impl AccessControl for Fleet {}

impl BridgeControl for Fleet {}

impl ClientCertificates for Fleet {}

impl ClientTraces for Fleet {}

/// A running interface. Dropping it ends it.
pub(crate) struct Rest {
    pub(crate) api: Api,
    pub(crate) accounts: Arc<Accounts>,
    address: SocketAddr,
    fleet: Arc<Fleet>,
    system: System,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn rest() -> Rest {
    rest_with(&options())
}

/// Returns options without rate limits and with short time limits.
pub(crate) fn options() -> ApiOptions {
    ApiOptions {
        call_timeout: Duration::from_millis(50),
        metrics_access: MetricsAccess::Loopback,
        ..ApiOptions::default()
    }
}

pub(crate) fn rest_with(options: &ApiOptions) -> Rest {
    start(options, Arc::new(Policy), serve)
}

/// Starts an interface with another authorizer in place of the double.
pub(crate) fn rest_by(authorizer: impl Authorizer) -> Rest {
    start(&options(), Arc::new(authorizer), serve)
}

/// Starts an interface with this policy in place of the double.
pub(crate) fn rest_where(policy: FilePolicy) -> Rest {
    start(&options(), Arc::new(policy), serve)
}

/// Does the same, mounted into an application's own server.
pub(crate) fn hosted_where(policy: FilePolicy) -> Rest {
    start(&options(), Arc::new(policy), |api, listener| {
        let server = HttpServer::new(move || App::new().configure(routes(api.clone())));
        let server = server.workers(1).disable_signals().listen(listener);
        actix_web::rt::spawn(server.unwrap().run());
    })
}

/// Starts an interface with these connection limits.
pub(crate) fn rest_serving(bounds: ServerOptions) -> Rest {
    start(&options(), Arc::new(Policy), move |api, listener| {
        Server::start(&api, vec![Listener::http(listener)], &bounds).unwrap();
    })
}

/// Starts an interface that the test serves itself.
pub(crate) fn serving(serve: impl FnOnce(Api, TcpListener) + Send + 'static) -> Rest {
    start(&options(), Arc::new(Policy), serve)
}

/// Starts an interface whose connections begin with a PROXY header.
pub(crate) fn rest_behind(options: &ApiOptions, proxy: ProxyProtocol) -> Rest {
    start(options, Arc::new(AllowAll), move |api, listener| {
        let listener = Listener { proxy: Some(proxy), ..Listener::http(listener) };
        Server::start(&api, vec![listener], &ServerOptions::default()).unwrap();
    })
}

fn serve(api: Api, listener: TcpListener) {
    let listeners = vec![Listener::http(listener)];
    Server::start(&api, listeners, &ServerOptions::default()).unwrap();
}

/// Starts an interface mounted below `/broker` in an application, whose callers have all presented
/// the certificate of `device-7`.
pub(crate) fn hosted_with_certificates() -> Rest {
    start(&options(), Arc::new(Policy), |api, listener| {
        let server = HttpServer::new(move || {
            App::new()
                .service(web::scope("/broker").configure(routes(api.clone())))
                .default_service(web::to(not_found))
        })
        .on_connect(|_, extensions| {
            extensions.insert(ClientCertificate {
                common_name: "device-7".into(),
                serial_number: "07".into(),
            });
        })
        .workers(1)
        .disable_signals()
        .listen(listener);
        actix_web::rt::spawn(server.unwrap().run());
    })
}

fn start(
    options: &ApiOptions,
    policy: Arc<dyn Authorizer>,
    serve: impl FnOnce(Api, TcpListener) + Send + 'static,
) -> Rest {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let fleet = Fleet {
        policy: Arc::clone(&policy),
        asked: Mutex::default(),
        drained_to: Mutex::default(),
        feed_goes_on: Notify::new(),
    };
    let fleet = Arc::new(fleet);
    let metrics = Arc::new(Metrics::new(1));
    let accounts = Arc::new(Accounts::default());
    let known = Arc::<Accounts>::clone(&accounts);
    let api = Api::new(Arc::<Fleet>::clone(&fleet), known, policy, metrics, options);
    let (started, starts) = mpsc::channel();
    let served = api.clone();
    let thread = thread::spawn(move || {
        let runner = System::new();
        runner.block_on(async { serve(served, listener) });
        started.send(System::current()).unwrap();
        runner.run().unwrap();
    });
    Rest { api, accounts, address, fleet, system: starts.recv().unwrap(), thread: Some(thread) }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.system.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Rest {
    /// Calls `METHOD target` as user `ops`.
    pub(crate) fn call(&self, line: &str) -> Answer {
        self.call_as(Some(&basic("ops:pass:word")), line)
    }

    pub(crate) fn call_as(&self, authorization: Option<&str>, line: &str) -> Answer {
        self.send(&request(line, authorization))
    }

    /// Calls `METHOD target` with a JSON body.
    pub(crate) fn post_json(&self, user_and_password: &str, line: &str, body: &str) -> Answer {
        let (length, authorization) = (body.len(), basic(user_and_password));
        self.send(&format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\nAuthorization: {authorization}\r\n\r\n{body}"
        ))
    }

    /// Calls `METHOD target` as user `ops` with this header and a body, which is JSON unless it is
    /// empty.
    pub(crate) fn call_with(&self, line: &str, header: &str, body: &str) -> Answer {
        self.send(&self.request(line, header, body))
    }

    /// Returns the request that `call_with` sends.
    pub(crate) fn request(&self, line: &str, header: &str, body: &str) -> String {
        let (length, authorization) = (body.len(), basic("ops:pass:word"));
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\nContent-Type: application/json\r\n\
             Authorization: {authorization}\r\n{header}\r\n{body}"
        )
    }

    /// Sends these bytes and reads until the server closes.
    pub(crate) fn send(&self, request: &str) -> Answer {
        self.send_bytes(request.as_bytes()).unwrap()
    }

    /// Does the same; `None` if no answer comes.
    pub(crate) fn send_bytes(&self, request: &[u8]) -> Option<Answer> {
        let answer = exchange(tcp(self.address), request).ok()?;
        openapi::check(request, &answer);
        Some(answer)
    }

    /// Lets the feed go on that waits.
    pub(crate) fn let_feed_go_on(&self) {
        self.fleet.feed_goes_on.notify_one();
    }

    /// Returns its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of calls to the broker since the last look.
    pub(crate) fn asked_so_far(&self) -> usize {
        self.fleet.asked.lock().unwrap().len()
    }

    /// Returns the calls to the broker since the last look, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.fleet.asked.lock().unwrap())
    }
}
