//! The MQTT listeners of a configuration, and what each is called when it listens.

use std::net::SocketAddr;

use hearthmq::{
    config::Config,
    net::{
        Listener, ProxyProtocol, WebSocketOptions,
        tls::{Alpn, TlsError},
    },
};

use super::tls::TlsSources;

/// A listener and how its URL is written.
pub(super) struct Named {
    pub(super) listener: Listener,
    scheme: &'static str,
    path: String,
}

impl Named {
    /// The URL of the listener, which is bound to `address` unless it is a Unix socket.
    pub(super) fn url<'a>(&self, mut addresses: impl Iterator<Item = &'a SocketAddr>) -> String {
        let Self { listener, scheme, path } = self;
        match *scheme {
            "unix" => format!("unix:{listener}"),
            _ => match addresses.next() {
                Some(address) => format!("{scheme}://{address}{path}"),
                None => format!("{scheme}://{listener}{path}"),
            },
        }
    }
}

/// Every MQTT listener, in the order of their options.
pub(super) fn mqtt_listeners(
    config: &Config,
    tls: &mut TlsSources,
) -> Result<Vec<Named>, TlsError> {
    let mqtt = &config.mqtt;
    let websocket = WebSocketOptions {
        path: mqtt.websocket_path.clone(),
        origins: mqtt.websocket_origins.clone(),
    };
    let proxy = ProxyProtocol { trusted: mqtt.proxy_trusted.clone() };
    let at = |scheme, address: &SocketAddr, listener: Listener| {
        let is_behind_proxy = mqtt.proxy_protocol.contains(address);
        let listener = match is_behind_proxy {
            true => listener.proxy_protocol(proxy.clone()),
            false => listener,
        };
        let path =
            if matches!(scheme, "ws" | "wss") { websocket.path.clone() } else { String::new() };
        Named { listener, scheme, path }
    };
    let mut all = Vec::new();
    for address in &mqtt.tcp {
        all.push(at("mqtt", address, Listener::tcp(address.to_string())));
    }
    for address in &mqtt.tls {
        let tls = tls.at(*address, Alpn::Mqtt, config)?;
        all.push(at("mqtts", address, Listener::tls(address.to_string(), tls)));
    }
    for address in &mqtt.websocket {
        let listener = Listener::websocket(address.to_string(), websocket.clone());
        all.push(at("ws", address, listener));
    }
    for address in &mqtt.secure_websocket {
        let tls = tls.at(*address, Alpn::Any, config)?; // browsers offer HTTP by ALPN, not MQTT
        let listener = Listener::secure_websocket(address.to_string(), tls, websocket.clone());
        all.push(at("wss", address, listener));
    }
    for path in &mqtt.unix {
        let listener = Listener::unix(path).mode(mqtt.unix_mode_bits().unwrap_or(0o600));
        all.push(Named { listener, scheme: "unix", path: String::new() });
    }
    Ok(all)
}
