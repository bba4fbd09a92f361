//! The HTTP and HTTPS listeners of a configuration.

use std::{io, net::SocketAddr};

use hearthmq::{
    config::Config,
    http::{ApiOptions, Listener},
    net::{ProxyProtocol, give_up_the_dead, tls::Alpn},
};
use socket2::{Domain, Socket, Type};

use super::{serve_error::ServeError, tls::TlsSources};

/// Binds every HTTP listener, in the order of their options. Connections are refused until the
/// server listens on them.
pub(super) fn http_listeners(
    config: &Config,
    tls: &mut TlsSources,
) -> Result<Vec<Listener>, ServeError> {
    let (http, keep_alive_secs) = (&config.http, config.mqtt.tcp_keep_alive_secs);
    let behind_proxy =
        |address, listener| Listener { proxy: proxy_at(address, config), ..listener };
    let mut all = Vec::new();
    for address in &http.listen {
        let socket = bind(*address, "http.listen", keep_alive_secs)?;
        all.push(behind_proxy(address, Listener::http(socket.into())));
    }
    for address in &http.https {
        let tls = tls.at(*address, Alpn::Http, config)?;
        let socket = bind(*address, "http.https", keep_alive_secs)?;
        all.push(behind_proxy(address, Listener::https(socket.into(), tls)));
    }
    Ok(all)
}

/// Returns the PROXY header that each HTTP listener expects, in the order of the listeners.
pub(super) fn http_proxies(config: &Config) -> Vec<Option<ProxyProtocol>> {
    let addresses = config.http.listen.iter().chain(&config.http.https);
    addresses.map(|address| proxy_at(address, config)).collect()
}

fn proxy_at(address: &SocketAddr, config: &Config) -> Option<ProxyProtocol> {
    let http = &config.http;
    let is_behind = http.proxy_protocol.contains(address);
    is_behind.then(|| ProxyProtocol { trusted: http.proxy_trusted.clone() })
}

/// Returns the options of the REST interface, whose listeners for HTTPS have these URLs.
pub(super) fn api_options(config: &Config, https: &[String]) -> ApiOptions {
    let logins = https.iter().cloned().zip(config.https_logins()).collect();
    ApiOptions { logins, ..ApiOptions::from(&config.http) }
}

fn bind(
    address: SocketAddr,
    key: &'static str,
    keep_alive_secs: u16,
) -> Result<Socket, ServeError> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?; // a restart does not wait for old connections
        socket.set_tcp_nodelay(true)?;
        give_up_the_dead(&socket, keep_alive_secs)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bind().map_err(|source| ServeError::Listen { address, key, source })
}
