//! An actix-web application with an MQTT broker in it: its own pages, the broker's REST calls and
//! MQTT over WebSocket on one port, MQTT on another, one process.
//!
//! ```text
//! cargo run --example embed_in_actix_web
//! mosquitto_sub -p 1883 -i car -t 'news/#' -v            # in a second terminal
//! curl http://127.0.0.1:8080/                            # in a third: who is connected
//! curl -d 'it rains' http://127.0.0.1:8080/news/weather  # the subscriber prints it
//! curl -u me: http://127.0.0.1:8080/mqtt/client-id/car/status
//! curl -u me: -X POST 'http://127.0.0.1:8080/mqtt/keep-alive?client-id=car&interval=120'
//! npx mqtt sub -l ws -h 127.0.0.1 -p 8080 --path /ws -t 'news/#'
//! ```
//!
//! Ctrl-C ends the broker first, which disconnects its clients, and then the HTTP server, which
//! would otherwise wait for the WebSockets.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer, Responder, get, post,
    web::{Bytes, Data, Path, scope},
};
use hearthmq::{Broker, auth::AllowAll, mqtt::QoS};

/// A page of the application itself.
#[get("/")]
async fn home(broker: Data<Broker>) -> impl Responder {
    match broker.online("car").await {
        Ok(true) => HttpResponse::Ok().body("the car is connected\n"),
        Ok(false) => HttpResponse::Ok().body("the car is not connected\n"),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}

/// Publishes to MQTT clients.
#[post("/news/{about}")]
async fn news(broker: Data<Broker>, about: Path<String>, text: Bytes) -> impl Responder {
    let topic = format!("news/{about}");
    match broker.publish(&topic, &text, QoS::AtLeastOnce, true).await {
        Ok(()) => HttpResponse::Accepted().finish(),
        Err(error) => HttpResponse::BadRequest().body(format!("{error}\n")),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Everybody may do everything here; own_authenticator shows how to restrict that.
    let broker = Broker::builder()
        .tcp("127.0.0.1:1883")
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .start()
        .await?;
    println!("MQTT on {:?}, HTTP on 127.0.0.1:8080", broker.local_addrs());

    let routes = broker.http_routes();
    let websocket = broker.websocket_routes("/ws");
    let shared = Data::new(broker.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .service(home)
            .service(news)
            .service(scope("/mqtt").configure(routes.clone()))
            .configure(websocket.clone())
    })
    .tcp_nodelay(true) // otherwise the end of a long answer waits for an acknowledgement, up to 40 ms
    // The application handles Ctrl-C itself, to end the broker before the server.
    .disable_signals()
    .bind("127.0.0.1:8080")?
    .run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);

    actix_web::rt::signal::ctrl_c().await?;
    // First the broker, so that MQTT clients over the server's WebSockets get their DISCONNECT.
    broker.shutdown(Duration::from_secs(5)).await;
    handle.stop(true).await;
    Ok(serving.await??)
}
