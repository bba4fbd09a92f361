//! Who is calling, and whether they may: credentials of a request to an identity, and the
//! permission for the client that the call is about.
//!
//! The same authenticator and authorizer as for MQTT decide; here is only how HTTP carries
//! credentials. Used by `calls`, in the order that the module's documentation gives.

use std::net::{Ipv4Addr, SocketAddr};

use actix_web::{HttpRequest, http::header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Api, ApiError, ListenerName};
use crate::auth::{
    AccessRequest, Action, AuthenticationError, ClientCertificate, Credentials, Decision, Identity,
};

/// User name and password of HTTP Basic (RFC 7617).
struct Basic {
    username: String,
    password: Vec<u8>,
}

/// Where a request comes from. Without a TCP peer (a host may serve over other sockets) it is
/// the unspecified address, which no rule allows by accident.
pub(super) fn peer(request: &HttpRequest) -> SocketAddr {
    let peer = request.peer_addr();
    let peer = peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    SocketAddr::new(peer.ip().to_canonical(), peer.port()) // IPv4 over an IPv6 socket is IPv4
}

/// The name of the listener of calls that an application's own server has accepted.
const HOSTED: &str = "hosted-http";

/// The listener that accepted the connection, by its URL.
pub(super) fn listener(request: &HttpRequest) -> &str {
    request.conn_data::<ListenerName>().map_or(HOSTED, |ListenerName(name)| name)
}

/// Who is calling, after the rates of the address and of the account.
pub(super) async fn admit(api: &Api, request: &HttpRequest) -> Result<Identity, ApiError> {
    let peer = peer(request);
    api.0.rates.check_address(peer.ip())?;
    let certificate = request.conn_data::<ClientCertificate>();
    let basic = basic(request)?;
    match (certificate, &basic) {
        // The certificate's identity counts; a user name beside it may only say the same.
        (Some(certificate), Some(basic)) if basic.username != certificate.common_name => {
            return Err(ApiError::Unauthenticated);
        }
        // Admission without credentials is for MQTT clients; whoever controls others has a name.
        (None, None) => return Err(ApiError::Unauthenticated),
        (Some(_), _) | (None, Some(_)) => {}
    }
    let credentials = Credentials {
        client_id: None,
        username: basic.as_ref().map(|basic| basic.username.as_str()),
        password: basic.as_ref().map(|basic| basic.password.as_slice()),
        certificate,
        peer,
        listener: listener(request),
    };
    let identity = api.0.authenticator.authenticate(credentials).await.map_err(ApiError::from)?;
    if let Some(username) = &identity.username {
        api.0.rates.check_account(username)?;
    }
    Ok(identity)
}

/// Whether `identity` may control the client `client_id`.
pub(super) fn permit(
    api: &Api,
    request: &HttpRequest,
    identity: &Identity,
    client_id: &str,
) -> Result<(), ApiError> {
    let access = AccessRequest {
        identity,
        client_id,
        peer: peer(request),
        listener: listener(request),
        action: Action::Connect,
    };
    match api.0.authorizer.authorize(&access) {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(ApiError::Forbidden),
    }
}

/// HTTP Basic, `None` without `Authorization`. What is there and is not Basic, or is there twice,
/// is wrong credentials.
fn basic(request: &HttpRequest) -> Result<Option<Basic>, ApiError> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let Some(header) = headers.next() else {
        return Ok(None);
    };
    let parse = || {
        let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim()).ok()?;
        // The first colon ends the user name; the password may hold more of them.
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (username, password) = decoded.split_at(colon);
        Some(Basic {
            username: String::from_utf8(username.to_vec()).ok()?,
            password: password[1..].to_vec(),
        })
    };
    match (parse(), headers.next()) {
        (Some(basic), None) => Ok(Some(basic)),
        _ => Err(ApiError::Unauthenticated),
    }
}

impl From<AuthenticationError> for ApiError {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::BadCredentials => Self::Unauthenticated,
            AuthenticationError::TooManyAttempts { retry_after_secs } => {
                Self::TooManyRequests { retry_after_secs }
            }
            AuthenticationError::NotAllowed => Self::Forbidden,
            AuthenticationError::Unavailable => Self::Unavailable,
        }
    }
}
