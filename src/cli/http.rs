//! The HTTP and HTTPS listeners of a configuration.

use std::{io, net::SocketAddr};

use hearthmq::{
    config::Config,
    http::Listener,
    net::{ProxyProtocol, give_up_the_dead, tls::Alpn},
};
use socket2::{Domain, Socket, Type};

use super::{serve::StartError, tls::TlsSources};

/// Binds every HTTP listener, in the order of their options. Connections are refused until the
/// server listens on them.
pub(super) fn http_listeners(
    config: &Config,
    tls: &mut TlsSources,
) -> Result<Vec<Listener>, StartError> {
    let (http, keep_alive_secs) = (&config.http, config.mqtt.tcp_keep_alive_secs);
    let behind_proxy = |address, mut listener: Listener| {
        if http.proxy_protocol.contains(address) {
            listener.proxy = Some(ProxyProtocol { trusted: http.proxy_trusted.clone() });
        }
        listener
    };
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

fn bind(
    address: SocketAddr,
    key: &'static str,
    keep_alive_secs: u16,
) -> Result<Socket, StartError> {
    let bind = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?; // a restart does not wait for old connections
        socket.set_tcp_nodelay(true)?;
        give_up_the_dead(&socket, keep_alive_secs)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bind().map_err(|source| StartError::Listen { address, key, source })
}
