//! Controls the broker from an actix application with typed actor messages: the registry actor of a
//! client identifier takes `SetKeepAlive`, `QueryOnline` and `Kick`.
//!
//! ```text
//! cargo run --example drive_by_messages
//! mosquitto_sub -p 1883 -i car -k 10 -t 'hello/#'        # in a second terminal
//! ```
//!
//! The program waits for the client `car`, changes its Keep Alive, and ends its connection ten
//! seconds later. mosquitto_sub reconnects by itself, and everything starts again. Ctrl-C ends the
//! program.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use actix::{Actor, Addr, AsyncContext as _, Context, fut::wrap_future};
use hearthmq::{
    Broker,
    actors::{QueryOnline, Registry},
    auth::AllowAll,
    control::{Kick, KickOptions, SetKeepAlive, WillRequest},
};
use tokio::time::sleep;

/// The application's own actor, which looks after one client.
struct Keeper {
    registry: Addr<Registry>,
    client_id: String,
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let watch = watch(self.registry.clone(), self.client_id.clone());
        context.spawn(wrap_future(watch));
    }
}

async fn watch(registry: Addr<Registry>, client_id: String) {
    loop {
        let question = QueryOnline::new(&client_id);
        while !matches!(registry.send(question.clone()).await, Ok(true)) {
            sleep(Duration::from_millis(500)).await;
        }
        // $events/client_keepalive_changed names the caller.
        let change = SetKeepAlive::new(&client_id, 45).by("keeper");
        println!("{client_id} is online: {:?}", registry.send(change).await);
        sleep(Duration::from_secs(10)).await;
        let kick = Kick::new(&client_id, KickOptions::new().will(WillRequest::Discard));
        println!("{client_id} has to go: {:?}", registry.send(kick).await);
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = Broker::builder().tcp("127.0.0.1:1883");
    let builder = builder.authenticator(AllowAll).authorizer(AllowAll);
    let broker = builder.start().await?;
    println!("waiting for car on {:?}", broker.local_addrs());
    let (registry, client_id) = (broker.registry("car"), "car".into());
    Keeper { registry, client_id }.start();
    tokio::signal::ctrl_c().await?;
    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
