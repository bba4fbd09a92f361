//! Compares the origin of a web page with the host that its request names.
//!
//! Knows neither HTTP nor WebSocket, which both ask it.

/// Returns whether an `Origin` belongs to this `Host`: same name and port. The scheme is ignored,
/// because TLS may end before the broker.
pub(crate) fn is_own_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |host: &'_ str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    without_port(authority) == without_port(host)
}
