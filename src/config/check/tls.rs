//! Checks of `[tls]` and `[[listeners]]`, alone and together.

use std::{collections::HashMap, net::SocketAddr, path::Path};

use crate::{
    config::{Config, ListenerConfig, problem::Problem},
    net::tls::ClientAuth,
};

pub(super) fn check(config: &Config) -> Result<(), Problem> {
    for (number, listener) in config.listeners.iter().enumerate() {
        check_listener(config, number, listener)?;
    }
    check_complete(config)?;
    check_client_auth(config)
}

/// Returns the options that hold addresses of TLS listeners.
fn tls_addresses(config: &Config) -> [(&'static str, &[SocketAddr]); 3] {
    [
        ("mqtt.tls", &config.mqtt.tls),
        ("mqtt.secure_websocket", &config.mqtt.secure_websocket),
        ("http.https", &config.http.https),
    ]
}

/// Returns the address of every listener as `[[listeners]]` names it, and whether it uses TLS. Port
/// 0 may occur several times.
fn addresses(config: &Config) -> HashMap<String, bool> {
    let mqtt = &config.mqtt;
    let plain = [&mqtt.tcp, &mqtt.websocket, &config.http.listen];
    let plain = plain.into_iter().flatten().map(|address| (address.to_string(), false));
    let unix = mqtt.unix.iter().map(|path| (path.display().to_string(), false));
    let secure = tls_addresses(config).into_iter().flat_map(|(_, addresses)| addresses);
    plain.chain(unix).chain(secure.map(|address| (address.to_string(), true))).collect()
}

fn check_listener(
    config: &Config,
    number: usize,
    listener: &ListenerConfig,
) -> Result<(), Problem> {
    let address = &listener.address;
    let key = |name: &str| format!("listeners.{number}.{name}");
    let all = addresses(config);
    let mut speaks_tls =
        all.iter().filter(|(known, _)| listener.is_for(known)).map(|(_, tls)| *tls).peekable();
    if speaks_tls.peek().is_none() {
        let mut known: Vec<_> = all.into_keys().collect();
        known.sort();
        return Err(Problem::new(
            &[&key("address")],
            format!("{address:?} in [[listeners]] is not the address of a listener"),
            format!("write one of those in [mqtt] and [http]: {}", known.join(", ")),
        ));
    }
    // Otherwise one of the two would win silently.
    if config.listeners[..number].iter().any(|before| before.is_for(address)) {
        return Err(Problem::new(
            &[&key("address")],
            format!("{address} is given twice in [[listeners]]"),
            "put all settings of one listener into a single [[listeners]] table",
        ));
    }
    // From here on: combinations that an operator cannot have meant.
    let Some(own) = &listener.tls else { return Ok(()) };
    if !speaks_tls.any(|tls| tls) {
        return Err(Problem::new(
            &[&key("tls")],
            format!("tls of {address} in [[listeners]] has no effect, because it does not use TLS"),
            "list the address in tls or secure_websocket of [mqtt] or in https of [http]",
        ));
    }
    // With those of `[tls]`: a listener may take its authorities from there.
    let files = config.tls_at(address);
    if files.client_auth != ClientAuth::None {
        return match files.client_ca.is_empty() {
            false => Ok(()),
            true => Err(Problem::new(
                &[&key("tls.client_auth"), &key("tls.client_ca"), &key("tls")],
                format!("{address} asks for certificates, but no issuer is trusted"),
                "give the issuers in client_ca of its tls or of [tls], or write client_auth = \
                 \"none\"",
            )),
        };
    }
    for (name, given) in [("client_ca", &own.client_ca), ("crl", &own.crl)] {
        if given.as_ref().is_some_and(|files| !files.is_empty()) {
            return Err(Problem::new(
                &[&key(&format!("tls.{name}"))],
                format!(
                    "{name} of {address} has no effect while its clients are not asked for a \
                         certificate"
                ),
                "write client_auth = \"optional\" or \"required\" in its tls",
            ));
        }
    }
    Ok(())
}

/// Checks that every TLS listener has a certificate and a key.
fn check_complete(config: &Config) -> Result<(), Problem> {
    let has = |path: &Path| !path.as_os_str().is_empty();
    for (key, addresses) in tls_addresses(config) {
        // After the tables of single listeners are applied, which may give what `[tls]` lacks.
        let incomplete = addresses.iter().find(|address| {
            let files = config.tls_at(&address.to_string());
            !has(&files.certificate) || !has(&files.key)
        });
        if incomplete.is_some() {
            return Err(Problem::new(
                &[key],
                format!("{key} needs a certificate and its key"),
                "give both as certificate and key in [tls]",
            ));
        }
    }
    Ok(())
}

/// Checks the options of `[tls]` about client certificates.
fn check_client_auth(config: &Config) -> Result<(), Problem> {
    let tls = &config.tls;
    let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
    if let Some(url) = tls.crl_urls.iter().find(|url| !is_url(url)) {
        return Err(Problem::new(
            &["tls.crl_urls"],
            format!("{url:?} in tls.crl_urls is not a URL of a revocation list"),
            "write a URL that begins with http:// or https://, and name files in tls.crl",
        ));
    }
    if tls.client_auth != ClientAuth::None && tls.client_ca.is_empty() {
        return Err(Problem::new(
            &["tls.client_auth"],
            "tls.client_auth asks for certificates, but no issuer is trusted",
            "give the issuers in tls.client_ca, or write client_auth = \"none\"",
        ));
    }
    // One listener that asks is enough to give these options an effect.
    let own = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.client_auth);
    let is_anybody_asked =
        own.chain([tls.client_auth]).any(|client_auth| client_auth != ClientAuth::None);
    // An option without effect would let the operator believe that it protects something.
    for (key, given) in [
        ("tls.client_ca", !tls.client_ca.is_empty()),
        ("tls.crl", !tls.crl.is_empty()),
        ("tls.crl_urls", !tls.crl_urls.is_empty()),
        ("tls.client_id_is_common_name", tls.client_id_is_common_name),
        ("auth.pin_certificates", config.auth.pin_certificates),
    ] {
        if given && !is_anybody_asked {
            return Err(Problem::new(
                &[key, "tls.client_auth"],
                format!("{key} has no effect while clients are not asked for a certificate"),
                "write client_auth = \"optional\" or \"required\" in [tls]",
            ));
        }
    }
    Ok(())
}
