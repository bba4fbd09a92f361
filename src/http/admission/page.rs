//! Calls that a page in a browser makes: their caller is that of the session behind the cookie.

use actix_web::{HttpRequest, rt::time::timeout};

use super::{
    Api, ApiError, Identity, SessionKey, SocketAddr, certificate, channel, listener, refused,
};
use crate::{
    auth::{AuthenticationError, Standing},
    http::{browsers::refuse_cross_site, channel::is_caused_by_person, sessions::ProvenLogin},
};

/// Returns the caller of a page, and its session.
///
/// # Errors
/// There is no session, or what has proven it no longer holds: then it ends.
pub(super) async fn caller(
    api: &Api,
    request: &HttpRequest,
    peer: SocketAddr,
) -> Result<(Identity, SessionKey), ApiError> {
    let key = key(api, request)?.ok_or_else(ApiError::unauthenticated)?;
    // A page that refreshes itself must not keep an abandoned session alive.
    let by_person = is_caused_by_person(request.headers());
    let found = api.0.sessions.find(&key, by_person, api.0.clock.now(), api.session_times());
    let login = found.ok_or_else(ApiError::unauthenticated)?;
    // A stolen cookie is useless without the certificate of the login.
    has_certificate_of(request, &login)?;
    let holds = match still_holds(api, request, login, &key) {
        Ok(login) => renewed(api, login, &key, peer).await,
        Err(error) => Err(error),
    };
    let identity = holds.inspect_err(|error| {
        // A source that does not answer says nothing about the login.
        if *error != ApiError::unavailable() {
            api.0.sessions.end(&key);
        }
    })?;
    Ok((identity, key))
}

/// Returns the key of the session in the cookie of a request. A page of another site has none, even if it
/// only reads.
pub(super) fn key(api: &Api, request: &HttpRequest) -> Result<Option<SessionKey>, ApiError> {
    if refuse_cross_site(request.headers()).is_err() {
        return Ok(None);
    }
    let secret = channel(api, request)?.secret(request.headers());
    Ok(secret.map(|secret| secret.key()))
}

/// Checks that the certificate of the connection is that of the session, if either has one.
fn has_certificate_of(request: &HttpRequest, login: &ProvenLogin) -> Result<(), ApiError> {
    let shown = certificate(request, true)?;
    let is_same = match (shown, &login.certificate) {
        (shown, Some(proven)) => shown == Some(proven),
        (Some(shown), None) => Some(&*shown.common_name) == login.identity.username.as_deref(),
        (None, None) => true,
    };
    if is_same { Ok(()) } else { Err(ApiError::unauthenticated()) }
}

/// Checks a login again if the accounts have changed since.
fn still_holds(
    api: &Api,
    request: &HttpRequest,
    mut login: ProvenLogin,
    key: &SessionKey,
) -> Result<ProvenLogin, ApiError> {
    if login.identity.has_expired(api.0.clock.now()) {
        return Err(ApiError::unauthenticated());
    }
    let authenticator = &api.0.authenticator;
    let generation = authenticator.generation();
    // The usual case, one comparison: nothing has changed since the last check.
    if generation == login.checked_at {
        return Ok(login);
    }
    if let Some(identity) = authenticator.renewed(&login.identity) {
        login.identity = identity;
    }
    let rules = api.logins_at(listener(request));
    // Judged since the login, not since the last check, so that no change is skipped.
    let standing = authenticator.standing_at(&login.identity, login.admitted_at, rules);
    if standing != Standing::Good {
        return Err(ApiError::unauthenticated());
    }
    login.checked_at = generation;
    api.0.sessions.renew(key, login.clone());
    Ok(login)
}

/// Asks the source of an identity again, if it is time.
async fn renewed(
    api: &Api,
    login: ProvenLogin,
    key: &SessionKey,
    peer: SocketAddr,
) -> Result<Identity, ApiError> {
    let ProvenLogin { identity, certificate, .. } = login;
    let is_due = identity.renewal.at().is_some_and(|at| at <= api.0.clock.now());
    if !is_due {
        return Ok(identity);
    }
    // Read before the question, so that a change during it counts as a later one.
    let generation = api.0.authenticator.generation();
    let asked = timeout(api.options().login_timeout, identity.renewal.renew()).await;
    match asked.ok().flatten() {
        // It is asked again at the next call, until the identity expires.
        None | Some(Err(AuthenticationError::Unavailable | AuthenticationError::Failed(_))) => {
            Ok(identity)
        }
        Some(Err(error)) => {
            Err(refused(error, identity.username.as_deref().unwrap_or_default(), peer.ip()))
        }
        // Another user would inherit the session and its permissions, so it has to log in.
        Some(Ok(renewed)) if renewed.username == identity.username => {
            let identity = Identity { source: identity.source, ..renewed };
            let proven = ProvenLogin {
                identity: identity.clone(),
                certificate,
                admitted_at: generation,
                checked_at: generation,
            };
            api.0.sessions.renew(key, proven);
            Ok(identity)
        }
        Some(Ok(_)) => Err(ApiError::unauthenticated()),
    }
}
