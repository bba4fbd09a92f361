//! Who may connect and what they may do, decided by code of one's own.
//!
//! A device is known by a password that anybody can compute who knows the secret, so that there
//! are no accounts to keep; it may only speak below its own name. `operator` may do everything.
//!
//! ```text
//! cargo run --example own_authenticator
//! mosquitto_sub -p 1883 -u operator -P hunter2 -t 'devices/#' -v               # second terminal
//! mosquitto_pub -p 1883 -u car-7 -P 7-rac -i car-7 -t devices/car-7/speed -m 80    # printed
//! mosquitto_pub -p 1883 -u car-7 -P 7-rac -i car-7 -t devices/car-8/speed -m 80    # dropped
//! mosquitto_pub -p 1883 -u car-7 -P guess -i car-7 -t devices/car-7/speed -m 80    # refused
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AccessRequest, Action, AuthenticationError, Authenticator, Authorizer, Credentials,
        Decision, Identity,
    },
};

const OPERATOR: &str = "operator";

struct Secrets;

#[async_trait]
impl Authenticator for Secrets {
    /// May ask a database or another service: nobody else waits for it.
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let (Some(username), Some(password)) = (credentials.username, credentials.password) else {
            return Err(AuthenticationError::BadCredentials);
        };
        let expected = match username {
            OPERATOR => "hunter2".to_owned(),
            device => device.chars().rev().collect(), // use an HMAC; this is an example
        };
        if password != expected.as_bytes() {
            return Err(AuthenticationError::BadCredentials);
        }
        Ok(Identity {
            username: Some(username.into()),
            certificate: None,
        })
    }
}

struct OwnTopicsOnly;

impl Authorizer for OwnTopicsOnly {
    /// Answers from memory, at once: it is asked on the broker's threads.
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let Some(username) = request.identity.username.as_deref() else {
            return Decision::Deny;
        };
        let own = |topic: &str| topic.starts_with(&format!("devices/{username}/"));
        let allowed = match request.action {
            _ if username == OPERATOR => true,
            Action::Connect => request.client_id == username,
            Action::Publish { topic, .. } => own(topic),
            Action::Subscribe { filter, .. } => own(filter),
        };
        if allowed {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = Broker::builder().tcp("127.0.0.1:1883");
    let broker = builder
        .authenticator(Secrets)
        .authorizer(OwnTopicsOnly)
        .start()
        .await?;
    println!("listening on {:?}", broker.local_addrs());
    tokio::signal::ctrl_c().await?;
    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
