//! MQTT over WebSocket inside an application's own HTTP server.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use hearthmq::{auth::ClientCertificate, limits::Limits, net::WebSocketOptions};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;

use crate::{
    support::{Client, generous, packets::*, secs},
    transports::ways::{Way, World, builder},
    websocket_client::{Binary, request},
};

/// A route of the application that inspects the request first.
#[actix_rt::test]
async fn an_application_may_look_at_the_request_first() {
    let broker = builder().start().await.unwrap();
    let shared = broker.clone();
    let server = HttpServer::new(move || {
        let broker = shared.clone();
        App::new().route(
            "/mqtt",
            web::get().to(move |request: HttpRequest, payload: web::Payload| {
                let answer = match request.headers().contains_key("x-let-me-in") {
                    true => broker.accept_websocket(&request, payload),
                    false => HttpResponse::PaymentRequired().finish(),
                };
                async move { answer }
            }),
        )
    })
    .workers(1)
    .disable_signals()
    .on_connect(|_, extensions| {
        extensions.insert(ClientCertificate {
            common_name: "device-1".into(),
            serial_number: "2a".into(),
        });
    })
    .bind("127.0.0.1:0")
    .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);

    let stream = TcpStream::connect(address).await.unwrap();
    assert!(client_async(request(Some("mqtt")), stream).await.is_err());
    let mut request = request(Some("mqtt"));
    request.headers_mut().insert("X-Let-Me-In", "please".parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = client_async(request, stream).await.unwrap();
    let mut client = Client::on(Binary::on(socket), V5);
    client.connect(connect("c")).await;
    client.ping().await;
    broker.shutdown(secs(5)).await;
    handle.stop(false).await;
}

#[actix_rt::test]
async fn origins_and_limits_hold_here_too() {
    let limits = Limits { connections_max: 1, ..generous() };
    let world = World::configured(Way::Hosted, |builder| builder.limits(limits)).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut client = Client::on(Binary::over(stream).await, V5);
    client.connect(connect("c")).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let refused = client_async(request(Some("mqtt")), stream).await.err().unwrap();
    assert!(refused.to_string().contains("503"), "{refused}");
    client.ping().await;

    let routes = world.broker.websocket_routes(WebSocketOptions {
        path: "/".into(),
        origins: vec!["https://app.example.org".into()],
    });
    let app = actix_web::test::init_service(App::new().configure(routes)).await;
    let mut request = actix_web::test::TestRequest::get().uri("/");
    for header in [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "mqtt"),
        ("Origin", "https://evil.example.net"),
    ] {
        request = request.insert_header(header);
    }
    let answer = actix_web::test::call_service(&app, request.to_request()).await;
    assert_eq!(answer.status(), 403);
}

/// A browser adds a client certificate to requests of any site's pages. The application puts it into
/// the data of the connection.
#[actix_rt::test]
async fn pages_of_other_sites_are_refused_here_too_where_a_certificate_is_the_login() {
    let broker = builder().start().await.unwrap();
    for has_certificate in [false, true] {
        let routes = broker.websocket_routes("/mqtt");
        let server = HttpServer::new(move || App::new().configure(routes.clone()))
            .workers(1)
            .disable_signals()
            .on_connect(move |_, extensions| {
                if has_certificate {
                    extensions.insert(ClientCertificate {
                        common_name: "device-1".into(),
                        serial_number: "2a".into(),
                    });
                }
            })
            .bind("127.0.0.1:0")
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        for (origin, is_refused) in [
            (None, false),
            (Some("https://evil.example"), has_certificate),
            (Some("https://localhost.evil.example"), has_certificate),
            (Some("http://localhost"), false),
        ] {
            let mut request = request(Some("mqtt"));
            if let Some(origin) = origin {
                request.headers_mut().insert("Origin", origin.parse().unwrap());
            }
            let stream = TcpStream::connect(address).await.unwrap();
            let answered = client_async(request, stream).await;
            let refused = answered.as_ref().err().map(ToString::to_string);
            assert_eq!(refused.is_some(), is_refused, "{origin:?}: {refused:?}");
            assert!(refused.is_none_or(|why| why.contains("403")));
        }
        handle.stop(false).await;
    }
    broker.shutdown(secs(5)).await;
}
