//! The MQTT listeners of a configuration.

use std::net::SocketAddr;

use hearthmq::{
    config::Config,
    net::{
        Listener, ProxyProtocol, WebSocketOptions,
        tls::{Alpn, TlsError},
    },
};

use super::tls::TlsSources;

/// Returns every MQTT listener, in the order of their options.
pub(super) fn mqtt_listeners(
    config: &Config,
    tls: &mut TlsSources,
) -> Result<Vec<Listener>, TlsError> {
    let mqtt = &config.mqtt;
    let websocket = WebSocketOptions {
        path: mqtt.websocket_path.clone(),
        origins: mqtt.websocket_origins.clone(),
    };
    let proxy = ProxyProtocol { trusted: mqtt.proxy_trusted.clone() };
    // A reload gives settings by position, so all listeners are made in this fixed order.
    let at = |address: &SocketAddr, listener: Listener| {
        let listener = listener.logins(config.logins_at(&address.to_string()));
        match mqtt.proxy_protocol.contains(address) {
            true => listener.proxy_protocol(proxy.clone()),
            false => listener,
        }
    };
    let mut all = Vec::new();
    for address in &mqtt.tcp {
        all.push(at(address, Listener::tcp(address.to_string())));
    }
    for address in &mqtt.tls {
        let tls = tls.at(*address, Alpn::Mqtt, config)?;
        all.push(at(address, Listener::tls(address.to_string(), tls)));
    }
    for address in &mqtt.websocket {
        let listener = Listener::websocket(address.to_string(), websocket.clone());
        all.push(at(address, listener));
    }
    for address in &mqtt.secure_websocket {
        let tls = tls.at(*address, Alpn::Any, config)?; // browsers offer HTTP by ALPN, not MQTT
        let listener = Listener::secure_websocket(address.to_string(), tls, websocket.clone());
        all.push(at(address, listener));
    }
    for path in &mqtt.unix {
        let listener = Listener::unix(path).mode(mqtt.unix_mode_bits().unwrap_or(0o600));
        all.push(listener.logins(config.logins_at(&path.display().to_string())));
    }
    let keep_alive_secs = mqtt.tcp_keep_alive_secs;
    Ok(all.into_iter().map(|listener| listener.tcp_keep_alive_secs(keep_alive_secs)).collect())
}
