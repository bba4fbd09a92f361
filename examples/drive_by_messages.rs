//! Driving the broker from an actix application by typed actor messages: every client identifier
//! has a registry actor, and that takes `SetKeepAlive`, `QueryOnline` and `Kick`.
//!
//! ```text
//! cargo run --example drive_by_messages
//! mosquitto_sub -p 1883 -i car -k 10 -t 'hello/#'        # in a second terminal
//! ```
//!
//! The program waits for the client `car`, changes its Keep Alive, and ten seconds later ends its
//! connection; mosquitto_sub comes back by itself, and it all begins again. Ctrl-C ends it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use actix::{Actor, AsyncContext as _, Context, ResponseFuture, fut::wrap_future};
use hearthmq::{
    Broker,
    actors::{Kick, QueryOnline, WillRequest},
    auth::AllowAll,
    control::SetKeepAlive,
};

const CLIENT: &str = "car";

/// An actor of the application's own, which looks after one client.
struct Keeper {
    broker: Broker,
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let visits = look_after(self.broker.clone());
        context.spawn(wrap_future(visits));
    }
}

fn look_after(broker: Broker) -> ResponseFuture<()> {
    Box::pin(async move {
        let registry = broker.registry(CLIENT); // an actix::Addr; it may be kept
        let client_id = || CLIENT.to_owned();
        loop {
            let question = QueryOnline {
                client_id: client_id(),
            };
            while !matches!(registry.send(question.clone()).await, Ok(true)) {
                actix_rt::time::sleep(Duration::from_millis(500)).await;
            }
            let change = SetKeepAlive {
                client_id: client_id(),
                interval_secs: 45,
                by: Some("keeper".into()), // who is named in $events/client_keepalive_changed
            };
            println!("{CLIENT} is online; {:?}", registry.send(change).await);
            actix_rt::time::sleep(Duration::from_secs(10)).await;
            let kick = Kick {
                client_id: client_id(),
                end_session: false,
                will: WillRequest::Discard,
            };
            println!("{CLIENT} has to go: {:?}", registry.send(kick).await);
        }
    })
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = Broker::builder().tcp("127.0.0.1:1883");
    let broker = builder
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .start()
        .await?;
    println!(
        "waiting for the client {CLIENT} on {:?}",
        broker.local_addrs()
    );
    Keeper {
        broker: broker.clone(),
    }
    .start();
    tokio::signal::ctrl_c().await?;
    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
