//! `[[listeners]]`: settings of one listener that replace those for all listeners.
//!
//! Plain data, and how it overrides the sections; `check` refuses invalid values.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Config, TlsFiles, address::resolve};
use crate::{
    auth::ListenerLogins,
    net::tls::{ClientAuth, TlsVersion},
};

/// `[[listeners]]`: settings of one listener. Missing settings are those for all listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// One of the addresses in `[mqtt]` or `[http]`, written in the same way.
    pub address: String,
    /// Its own TLS settings; missing ones are those of `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOverrides>,
    /// The same as `anonymous` in `[auth]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// The same as `certificate_needs_account` in `[auth]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_needs_account: Option<bool>,
    /// The same as `pin_certificates` in `[auth]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_certificates: Option<bool>,
}

impl Config {
    /// Returns the login rules of each HTTPS listener, in the order of `http.https`.
    pub fn https_logins(&self) -> impl Iterator<Item = ListenerLogins> {
        self.http.https.iter().map(|address| self.logins_at(&address.to_string()))
    }

    /// Returns the login rules of the listener at this address or path.
    #[must_use]
    pub fn logins_at(&self, address: &str) -> ListenerLogins {
        let own = self.listener(address);
        let pins = own.and_then(|own| own.pin_certificates);
        ListenerLogins {
            anonymous: own.and_then(|own| own.anonymous),
            certificate_needs_account: own.and_then(|own| own.certificate_needs_account),
            pin_certificates: pins.unwrap_or(self.auth.pin_certificates),
        }
    }
}

/// `tls` of `[[listeners]]`: the options of `[tls]`, each optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOverrides {
    /// The same as `certificate` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The same as `key` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The same as `ocsp` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp: Option<PathBuf>,
    /// The same as `min_version` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The same as `client_ca` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<Vec<PathBuf>>,
    /// The same as `client_auth` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// The same as `crl` in `[tls]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<Vec<PathBuf>>,
}

impl ListenerConfig {
    /// Returns a table with every option, from which the options can be listed.
    pub(super) fn with_every_option() -> Self {
        Self {
            address: String::new(),
            anonymous: Some(false),
            certificate_needs_account: Some(false),
            pin_certificates: Some(false),
            tls: Some(TlsOverrides {
                certificate: Some(PathBuf::new()),
                key: Some(PathBuf::new()),
                ocsp: Some(PathBuf::new()),
                min_version: Some(TlsVersion::default()),
                client_ca: Some(Vec::new()),
                client_auth: Some(ClientAuth::default()),
                crl: Some(Vec::new()),
            }),
        }
    }

    /// Returns whether this table is for the listener at `address`, whichever way the two are
    /// written.
    #[must_use]
    pub fn is_for(&self, address: &str) -> bool {
        let parsed = |text: &str| text.parse::<SocketAddr>();
        match (parsed(&self.address), parsed(address)) {
            (Ok(own), Ok(other)) => own == other,
            (Err(_), Ok(other)) => {
                matches!(resolve(&self.address), Some(Ok(all)) if all.contains(&other))
            }
            _ => self.address == address,
        }
    }
}

impl TlsOverrides {
    /// Returns `files` with the options given here replaced.
    fn over(&self, files: &TlsFiles) -> TlsFiles {
        let files = files.clone();
        let Self { certificate, key, ocsp, min_version, client_ca, client_auth, crl } =
            self.clone();
        TlsFiles {
            certificate: certificate.unwrap_or(files.certificate),
            key: key.unwrap_or(files.key),
            ocsp: ocsp.unwrap_or(files.ocsp),
            min_version: min_version.unwrap_or(files.min_version),
            client_ca: client_ca.unwrap_or(files.client_ca),
            client_auth: client_auth.unwrap_or(files.client_auth),
            crl: crl.unwrap_or(files.crl),
            ..files
        }
    }
}

impl Config {
    /// Returns the own settings of the listener at `address` (or at that path, for a Unix socket).
    #[must_use]
    pub fn listener(&self, address: &str) -> Option<&ListenerConfig> {
        self.listeners.iter().find(|listener| listener.is_for(address))
    }

    /// Returns the TLS settings of the listener at `address`.
    #[must_use]
    pub fn tls_at(&self, address: &str) -> TlsFiles {
        let none = TlsOverrides::default();
        let own = self.listener(address).and_then(|listener| listener.tls.as_ref());
        let mut files = own.unwrap_or(&none).over(&self.tls);
        if files.client_auth == ClientAuth::None {
            // These were given for other listeners, which ask for certificates.
            files.client_ca.clear();
            files.crl.clear();
        }
        files
    }
}
