//! Authenticates clients and decides about their permissions with custom code. The password of a
//! device is its name spelled backwards, and it may publish and subscribe only below its own name;
//! `operator` may do everything.
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

struct Backwards;

#[async_trait]
impl Authenticator for Backwards {
    /// May query a database or another service: no other client waits for it.
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let username = shown.username.unwrap_or_default();
        let expected = match username {
            OPERATOR => "hunter2".to_owned(),
            device => device.chars().rev().collect(),
        };
        if username.is_empty() || shown.password != Some(expected.as_bytes()) {
            return Err(AuthenticationError::BadCredentials);
        }
        let username = Some(username.into());
        Ok(Identity { username, ..Identity::default() })
    }
}

struct OwnTopics;

impl Authorizer for OwnTopics {
    /// Answers from memory at once, because it is called on the broker's threads.
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let username = request.identity.username.as_deref().unwrap_or_default();
        let own = |topic: &str| topic.starts_with(&format!("devices/{username}/"));
        let allowed = match request.action {
            _ if username == OPERATOR => true,
            Action::Connect => request.client_id == username,
            Action::Publish { topic, .. } => own(topic),
            Action::Subscribe { filter, .. } => own(filter),
            // No other action over REST is allowed.
            Action::Observe | Action::Control | Action::Administer => false,
            _ => false, // an action of a later version
        };
        if allowed { Decision::Allow } else { Decision::Deny }
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = Broker::builder().tcp("127.0.0.1:1883");
    let builder = builder.authenticator(Backwards).authorizer(OwnTopics);
    let broker = builder.start().await?;
    println!("listening on {:?}", broker.local_addrs());
    tokio::signal::ctrl_c().await?;
    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
