//! A method of enhanced authentication whose client chooses the outcome.

use std::future::pending;

use async_trait::async_trait;
use hearthmq::{
    auth::{AuthenticationError, EnhancedAuthenticator, Exchange, ExchangeStart, Identity, Step},
    mqtt::{Auth, AuthProperties, Connect, ConnectProperties, Packet, ReasonCode},
};

/// The method's name.
pub const RIDDLE: &str = "RIDDLE";

/// Sends `?` until it gets an answer: `I am NAME` succeeds, `wrong`, `barred` and `busy` are
/// errors, and `slow` never gets a result.
pub struct Riddle;

struct Asking;

impl EnhancedAuthenticator for Riddle {
    fn knows(&self, method: &str) -> bool {
        ["OTHER", RIDDLE].contains(&method)
    }

    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(Asking)
    }
}

#[async_trait]
impl Exchange for Asking {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let answer = str::from_utf8(data.unwrap_or_default()).unwrap();
        if let Some(name) = answer.strip_prefix("I am ") {
            let identity = Identity { username: Some(name.into()), ..Identity::default() };
            return Ok(Step::Done { identity, data: Some(b"welcome".to_vec()) });
        }
        match answer {
            "wrong" => Err(AuthenticationError::BadCredentials),
            "barred" => Err(AuthenticationError::NotAllowed),
            "busy" => Err(AuthenticationError::Unavailable),
            "slow" => pending().await,
            _ => Ok(Step::Continue(Some(b"?".to_vec()))),
        }
    }
}

/// Returns a CONNECT with a method.
pub fn connect_by<'a>(
    connect: Connect<'a>,
    method: &'a str,
    data: Option<&'a [u8]>,
) -> Connect<'a> {
    let properties = ConnectProperties {
        authentication_method: Some(method),
        authentication_data: data,
        ..connect.properties
    };
    Connect { properties, ..connect }
}

/// Returns an AUTH with a method.
pub fn auth_by<'a>(reason: ReasonCode, method: &'a str, data: Option<&'a [u8]>) -> Packet<'a> {
    let properties = AuthProperties {
        authentication_method: Some(method),
        authentication_data: data,
        ..AuthProperties::default()
    };
    Packet::Auth(Auth { reason, properties })
}

/// Returns a CONNECT that will be challenged.
pub fn riddled(connect: Connect<'_>) -> Connect<'_> {
    connect_by(connect, RIDDLE, None)
}

/// Returns the broker's AUTH with the challenge.
pub fn question() -> Packet<'static> {
    auth_by(ReasonCode::ContinueAuthentication, RIDDLE, Some(b"?"))
}

/// Returns the client's AUTH with the answer.
pub fn answer(text: &str) -> Packet<'_> {
    auth_by(ReasonCode::ContinueAuthentication, RIDDLE, Some(text.as_bytes()))
}

/// Returns the client's AUTH that starts re-authentication.
pub fn again(text: &str) -> Packet<'_> {
    auth_by(ReasonCode::ReAuthenticate, RIDDLE, Some(text.as_bytes()))
}

/// Returns the broker's AUTH that completes re-authentication.
pub fn settled() -> Packet<'static> {
    auth_by(ReasonCode::Success, RIDDLE, Some(b"welcome"))
}
