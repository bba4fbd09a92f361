//! Authenticates and authorizes a call: from the credentials of a request to an identity, and from
//! that to the permission for the client that the call is about.
//!
//! The authenticator and the authorizer are those of MQTT; this module only handles how HTTP
//! carries credentials. Used by the calls, in the order given in the documentation of `http`.

mod page;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use actix_web::{HttpMessage as _, HttpRequest, ResponseError as _, rt::time::timeout};
use tokio::time::Instant;

use super::{
    Api, ApiError,
    asking::{Displaced, ItsPlace},
    authorization::{Authorization, authorization},
    browsers,
    certificate::ShownCertificate,
    channel::{Channel, is_of_page},
    forwarded,
    remembered::{LastAccepted, ShownLogin},
    sessions::SessionKey,
};
use crate::{
    auth::{
        AccessRequest, Action, AuthenticationError, ClientCertificate, Credentials, Decision,
        Identity, ListenerLogins, Precedence, PrepareRequest, in_time,
    },
    control::{self, AuditEntry},
    net::canonical,
    told::{Changed, Made, Subject, cut},
};

/// The URL of the listener that accepted a connection, stored in the connection's data for rules
/// and the log. Calls on a connection without it have the listener `hosted-http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(pub Arc<str>);

/// Marks a connection whose peer is the caller: its PROXY header has named it. Stored in the
/// connection's data.
#[cfg(feature = "tls")]
pub(super) struct PeerIsCaller;

/// The effect of a call on the broker and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEffect {
    /// The call only reads.
    Looks,
    /// The call changes something, so it must not come from a page of another site.
    Changes,
}

/// Returns the peer address of a request's connection. Without a TCP peer (a host application may
/// serve other sockets) this is the unspecified address, which no rule allows by accident.
fn connected(request: &HttpRequest) -> SocketAddr {
    let peer = request.peer_addr();
    canonical(peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

/// Returns the caller's address: the peer of the connection, or the client that a trusted proxy
/// names. After a PROXY header, other headers do not count: the caller may have written them.
pub(super) fn peer(api: &Api, request: &HttpRequest) -> Result<SocketAddr, ApiError> {
    #[cfg(feature = "tls")]
    if request.conn_data::<PeerIsCaller>().is_some() {
        return Ok(connected(request));
    }
    forwarded::caller(connected(request), request.headers(), &api.options().proxies)
}

/// The generations of accounts and rules before a caller was admitted, so that a change during its login counts
/// as a later one.
#[derive(Clone, Copy, Default)]
pub(super) struct AdmittedAt {
    pub(super) accounts: u64,
    pub(super) rules: u64,
}

impl AdmittedAt {
    fn now(api: &Api) -> Self {
        let accounts = api.0.authenticator.generation();
        Self { accounts, rules: api.0.authorizer.generation() }
    }
}

/// An authenticated caller and its address.
#[derive(Clone)]
pub(super) struct HttpCaller {
    pub(super) identity: Identity,
    pub(super) peer: SocketAddr,
    pub(super) admitted_at: AdmittedAt,
    listener: Option<ListenerName>,
    /// The session of its browser, if a page has made the call.
    pub(super) session: Option<SessionKey>,
}

/// The listener name of calls that a host application's server has accepted.
const HOSTED: &str = "hosted-http";

fn url_of(listener: Option<&ListenerName>) -> &str {
    listener.map_or(HOSTED, |ListenerName(name)| name)
}

/// Returns the URL of the listener that accepted the connection.
pub(super) fn listener(request: &HttpRequest) -> &str {
    url_of(request.conn_data())
}

/// Logs a call that is refused because of its caller's identity, address or rate.
pub(super) fn tell_refused(api: &Api, request: &HttpRequest, error: &ApiError) {
    // Other refusals are about the request; a caller could fill the log with them.
    let is_about_caller = [401, 403, 429].contains(&error.status_code().as_u16());
    if !is_about_caller {
        return;
    }
    let peer = peer(api, request).unwrap_or_else(|_| connected(request));
    // Only claimed: the refusal may be that it was not proven.
    let user = claimed_user(request);
    let caller = Subject { user: user.as_deref(), ..Subject::stranger(peer, listener(request)) };
    if error.is_lock_out() {
        return api.0.told.attempt_not_checked(&caller);
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let call = format!("{} {target}", request.method());
    api.0.told.call_refused(&caller, &call, error.code());
}

/// Authenticates the caller, after checking the rate of the address and before that of the account.
pub(super) async fn admit(
    api: &Api,
    request: &HttpRequest,
    effect: CallEffect,
) -> Result<HttpCaller, ApiError> {
    // First, because a flood from one address must cost less than a check of credentials.
    let peer = arrive(api, request, effect)?;
    let at = AdmittedAt::now(api);
    let given = authorization(request)?;
    // An explicit header wins over the cookie, which a browser adds by itself.
    if !given.is_given() && is_of_page(request.headers()) {
        // On the heap, so that the other calls do not carry its state.
        let (identity, session) = Box::pin(page::caller(api, request, peer)).await?;
        return admitted(api, request, (identity, peer, at), Some(session)).await;
    }
    let identity = authenticate(api, request, &given, (peer, at)).await?;
    admitted(api, request, (identity, peer, at), None).await
}

/// Authenticates the user of a page by a password, after [`arrive`].
pub(super) async fn log_in(
    api: &Api,
    request: &HttpRequest,
    peer: SocketAddr,
    (username, password): (String, String),
) -> Result<HttpCaller, ApiError> {
    let given = Authorization {
        basic: Some((username, password.into_bytes())),
        ..Authorization::default()
    };
    let at = AdmittedAt::now(api);
    let identity = authenticate(api, request, &given, (peer, at)).await?;
    admitted(api, request, (identity, peer, at), None).await
}

/// Returns the address of the caller, after checking its rate, and the origin of the page if the call
/// changes something.
pub(super) fn arrive(
    api: &Api,
    request: &HttpRequest,
    effect: CallEffect,
) -> Result<SocketAddr, ApiError> {
    let peer = peer(api, request)?;
    api.0.rates.check_address(peer.ip())?;
    if effect == CallEffect::Changes {
        browsers::refuse_cross_site(request.headers())?;
    }
    Ok(peer)
}

/// Returns the session in the cookie of a call that a page has made.
pub(super) fn session_of(api: &Api, request: &HttpRequest) -> Result<Option<SessionKey>, ApiError> {
    if is_of_page(request.headers()) { page::key(api, request) } else { Ok(None) }
}

/// Returns the way on which a request of a page has come.
pub(super) fn channel(api: &Api, request: &HttpRequest) -> Result<Channel, ApiError> {
    let is_tls = listener(request).starts_with("https://") || request.app_config().secure();
    #[cfg(feature = "tls")]
    let has_proxy_header = request.conn_data::<PeerIsCaller>().is_some();
    #[cfg(not(feature = "tls"))]
    let has_proxy_header = false;
    let connected = connected(request).ip();
    let is_of_proxy =
        has_proxy_header || api.options().proxies.iter().any(|network| network.contains(connected));
    Ok(Channel::of(is_tls, is_of_proxy, peer(api, request)?.ip(), request.headers()))
}

/// Returns the certificate that identifies the caller beside other credentials, or alone.
pub(super) fn certificate(
    request: &HttpRequest,
    has_others: bool,
) -> Result<Option<&ClientCertificate>, ApiError> {
    match request.conn_data::<ShownCertificate>() {
        Some(shown) => shown.caller(has_others),
        None => Ok(request.conn_data()), // from the server of a host application
    }
}

/// Returns the identity behind credentials: the one that the connection remembers, or that of a check.
async fn authenticate(
    api: &Api,
    request: &HttpRequest,
    given: &Authorization,
    (peer, at): (SocketAddr, AdmittedAt),
) -> Result<Identity, ApiError> {
    let certificate = certificate(request, given.is_given())?;
    match (certificate, given.username()) {
        // The certificate is the identity; a user name in addition must be the same.
        (Some(certificate), Some(username)) if username != certificate.common_name => {
            return Err(ApiError::unauthenticated());
        }
        // Anonymous access is for MQTT clients only; a caller that controls clients must have a
        // name.
        (None, None) if given.bearer.is_none() => return Err(ApiError::unauthenticated()),
        (Some(_) | None, _) => {}
    }
    let rules = api.logins_at(listener(request));
    let shown = ShownLogin::of(request, (peer.ip(), rules), at.accounts);
    let accepted = request.conn_data::<LastAccepted>().zip(shown);
    // A connection that repeats the same credentials is not hashed again for each call.
    if let Some((accepted, shown)) = &accepted
        // A certificate may have been revoked since, so it is always checked.
        && certificate.is_none()
        && let Some(identity) = accepted.identity(shown, api.0.clock.now())
    {
        return Ok(identity);
    }
    let credentials = Credentials {
        client_id: None,
        username: given.username(),
        password: given.basic.as_ref().map(|(_, password)| password.as_slice()),
        bearer: given.bearer.as_deref().map(str::as_bytes),
        // A token alone names the caller: an authenticator that does not know tokens must not
        // look at the certificate in its place.
        certificate: certificate.filter(|_| given.bearer.is_none()),
        rules,
        proven: accepted.as_ref().is_some_and(|(accepted, shown)| accepted.has_accepted(shown)),
        ..Credentials::new(peer, listener(request))
    };
    // On the heap, so that calls that are remembered do not carry its state.
    let identity =
        Box::pin(check(api, request, (credentials, certificate), given.bearer.is_some())).await?;
    if let Some((accepted, shown)) = accepted {
        // The source decides: an identity that can be withdrawn without a notice must be asked for.
        let may_be_remembered =
            certificate.is_none() && api.0.authenticator.may_be_remembered(&identity);
        let remembered = may_be_remembered.then(|| (identity.clone(), api.0.clock.now()));
        accepted.note(shown, remembered);
    }
    Ok(identity)
}

/// Has the authenticator check credentials, beside a certificate.
async fn check(
    api: &Api,
    request: &HttpRequest,
    (credentials, certificate): (Credentials<'_>, Option<&ClientCertificate>),
    is_token: bool,
) -> Result<Identity, ApiError> {
    let from = credentials.peer.ip();
    // Bounded, whatever the source waits for.
    let check = timeout(api.options().login_timeout, api.0.authenticator.authenticate(credentials));
    let precedence = || match credentials.proven {
        true => Precedence::Known,
        false => api.0.authenticator.precedence(&credentials),
    };
    let place = request.conn_data::<ItsPlace>();
    let checked = api.0.asking.wait((from, precedence), place, check).await;
    let login = checked.map_err(|Displaced| ApiError::unavailable())?;
    let login = login.map_err(|_| ApiError::unavailable())?;
    let name =
        credentials.username.or_else(|| certificate.map(|certificate| &*certificate.common_name));
    let mut identity = login.map_err(|error| refused(error, name.unwrap_or_default(), from))?;
    // The token was checked without the certificate, so both are compared here.
    if is_token {
        join_certificate(&mut identity, certificate)?;
    }
    if identity.has_expired(api.0.clock.now()) {
        return Err(ApiError::unauthenticated());
    }
    Ok(identity)
}

/// Returns the caller with this identity, after counting its call.
async fn admitted(
    api: &Api,
    request: &HttpRequest,
    (identity, peer, admitted_at): (Identity, SocketAddr, AdmittedAt),
    session: Option<SessionKey>,
) -> Result<HttpCaller, ApiError> {
    let mut identity = identity;
    // Before any permission is asked for, and once for the whole call.
    prepare_caller(api, request, &mut identity, peer).await?;
    if let Some(username) = &identity.username {
        count_call(api, request, username)?;
    }
    let listener = request.conn_data().cloned();
    let caller = HttpCaller { identity, peer, admitted_at, listener, session };
    // The response tells the caller how much is left of the rate of this account.
    request.extensions_mut().insert(CallAccount(caller.account()));
    Ok(caller)
}

/// The account of a call that was admitted, in the extensions of its request.
struct CallAccount(Arc<str>);

/// Returns the account whose share a call takes; empty for a stranger.
pub(super) fn account_of(request: &HttpRequest) -> Arc<str> {
    let account = request.extensions().get::<CallAccount>().map(|found| Arc::clone(&found.0));
    account.unwrap_or_else(|| "".into())
}

/// Adds the certificate beside a token to the identity of the token, which must be of the same user.
fn join_certificate(
    identity: &mut Identity,
    certificate: Option<&ClientCertificate>,
) -> Result<(), ApiError> {
    let user = identity.username.as_deref();
    let is_same = |shown: &ClientCertificate| user == Some(&shown.common_name);
    if user.is_none() || !certificate.is_none_or(is_same) {
        return Err(ApiError::unauthenticated());
    }
    identity.certificate = certificate.cloned().map(Arc::new);
    Ok(())
}

/// Counts a call of an account, and notes the rest of its quota for the answer.
fn count_call(api: &Api, request: &HttpRequest, username: &Arc<str>) -> Result<(), ApiError> {
    let Some(quota) = api.0.rates.check_account(username) else { return Ok(()) };
    request.extensions_mut().insert(quota);
    quota.outcome().map_err(ApiError::too_many_requests)
}

/// Has the authorizer load what it needs for the caller.
async fn prepare_caller(
    api: &Api,
    request: &HttpRequest,
    identity: &mut Identity,
    peer: SocketAddr,
) -> Result<(), ApiError> {
    let listener = listener(request);
    let request = PrepareRequest { identity, client_id: None, peer, listener };
    let Some(preparation) = api.0.authorizer.prepare(request) else { return Ok(()) };
    let prepared = in_time(preparation, Instant::now() + api.options().login_timeout).await;
    identity.prepared = prepared.map_err(|error| {
        tracing::debug!(%error, "a caller cannot be authorized");
        ApiError::unavailable()
    })?;
    Ok(())
}

impl Api {
    /// Returns the login rules of the listener with this URL.
    pub(super) fn logins_at(&self, listener: &str) -> ListenerLogins {
        let options = self.options();
        let mut all = options.logins.iter();
        all.find(|(url, _)| url == listener).map_or_else(ListenerLogins::default, |found| found.1)
    }
}

impl HttpCaller {
    /// Returns a caller at this machine.
    #[cfg(test)]
    pub(super) fn of(identity: Identity) -> Self {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Self { identity, peer, admitted_at: AdmittedAt::default(), listener: None, session: None }
    }

    /// Returns the account whose shares the calls of this caller take.
    pub(super) fn account(&self) -> Arc<str> {
        self.identity.username.clone().unwrap_or_else(|| "".into())
    }

    /// Returns the URL of the listener that accepted the connection.
    pub(super) fn listener(&self) -> &str {
        url_of(self.listener.as_ref())
    }

    /// Logs a change that was made by a call of this caller, and notes it in the audit log.
    pub(super) fn tell_changed(&self, api: &Api, changed: Changed<'_>) {
        let mut entry = AuditEntry::new(changed.call);
        entry.user.clone_from(&self.identity.username);
        (entry.address, entry.listener) = (Some(self.peer), Some(self.listener().into()));
        [entry.old, entry.new] = [changed.old, changed.new].map(|text| text.map(Into::into));
        entry.target = changed.target.map(|target| target.name().into());
        entry.target_kind = changed.target.map(|target| target.kind().into());
        api.0.control.note_audit(entry);
        let user = self.identity.username.as_deref();
        let caller = Subject { user, ..Subject::stranger(self.peer, self.listener()) };
        api.0.told.call_changed(&caller, changed);
    }

    /// Logs what a call of this caller has done.
    pub(super) fn tell_made(&self, api: &Api, made: Made<'_>) {
        let user = self.identity.username.as_deref();
        let caller = Subject { user, ..Subject::stranger(self.peer, self.listener()) };
        api.0.told.call_made(&caller, made);
    }

    /// Returns the caller in the form in which it goes to the broker with a request.
    pub(super) fn as_data(&self) -> control::Caller {
        let Self { identity, peer, .. } = self.clone();
        control::Caller { identity, peer, listener: self.listener().into() }
    }

    /// Checks that the policy allows the caller one of `actions` for the client `client_id`.
    pub(super) fn permit(
        &self,
        api: &Api,
        client_id: &str,
        actions: &[Action<'_>],
    ) -> Result<(), ApiError> {
        match actions.iter().any(|action| self.may(api, client_id, *action)) {
            true => Ok(()),
            false => Err(ApiError::forbidden()),
        }
    }

    /// Returns whether what the caller stores is bounded by the share of one user: unless it may
    /// administer.
    pub(super) fn has_share(&self, api: &Api) -> bool {
        !self.may(api, "", Action::Administer)
    }

    /// Returns whether the policy allows the caller `action` for the client `client_id`.
    pub(super) fn may(&self, api: &Api, client_id: &str, action: Action<'_>) -> bool {
        let Self { identity, peer, .. } = self;
        let listener = self.listener();
        let access = AccessRequest { identity, client_id, peer: *peer, listener, action };
        api.0.authorizer.authorize(&access) == Decision::Allow
    }
}

/// Returns the user name in a request, verified or not, for the log.
pub(super) fn claimed_user(request: &HttpRequest) -> Option<String> {
    let certificate = match request.conn_data::<ShownCertificate>() {
        Some(shown) => shown.named(),
        None => request.conn_data::<ClientCertificate>(),
    };
    let name = certificate.map(|certificate| certificate.common_name.clone());
    name.or_else(|| authorization(request).ok()?.username().map(Into::into))
}

/// Returns what a caller of this name and address is answered whose login failed.
fn refused(error: AuthenticationError, name: &str, address: IpAddr) -> ApiError {
    match error {
        // One answer for all of these, so that it does not tell which accounts exist.
        AuthenticationError::BadCredentials
        | AuthenticationError::NotMine
        | AuthenticationError::OtherThanCertificate
        | AuthenticationError::NoAccount => ApiError::unauthenticated(),
        AuthenticationError::TooManyAttempts { retry_after_secs } => {
            ApiError::too_many_attempts(&cut(name), address, retry_after_secs)
        }
        AuthenticationError::NotAllowed => ApiError::forbidden(),
        AuthenticationError::Unavailable => ApiError::unavailable(),
        AuthenticationError::Failed(fault) => {
            tracing::debug!(%address, why = %fault, "credentials of a REST caller cannot be checked");
            ApiError::unavailable()
        }
    }
}
