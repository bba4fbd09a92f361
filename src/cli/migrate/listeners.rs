//! Listeners of a `mosquitto.conf`: addresses, transports, TLS.

use toml::{Table, Value};

use super::{
    conf::{Line, Place},
    options::without_counterpart,
    report::Report,
    settings::MosquittoSettings,
};

/// The port without another one.
const PORT: u16 = 1883;

/// A listener with its own lines.
#[derive(Default)]
pub(super) struct Listener {
    pub(super) place: Option<Place>,
    port: u16,
    host: Option<String>,
    pub(super) lines: Vec<Line>,
}

/// The properties of a listener that the other parts need.
pub(super) struct Listening {
    /// A pattern for rules that matches its URL.
    pub(super) pattern: String,
    /// Its address, as `[[listeners]]` names it.
    pub(super) address: String,
    /// Whether a client certificate is the login.
    pub(super) logs_in_by_certificate: bool,
    /// Whether clients need a certificate and log in by something else.
    pub(super) wants_certificate_too: bool,
}

/// Whether an option of this name concerns one listener.
pub(super) fn is_of_listener(name: &str) -> bool {
    matches!(
        name,
        "bind_interface"
            | "cafile"
            | "capath"
            | "certfile"
            | "keyfile"
            | "tls_keyform"
            | "tls_engine"
            | "tls_engine_kpass_sha1"
            | "ciphers"
            | "ciphers_tls1.3"
            | "crlfile"
            | "dhparamfile"
            | "disable_client_cert_date_checks"
            | "http_dir"
            | "max_connections"
            | "max_qos"
            | "mount_point"
            | "protocol"
            | "psk_hint"
            | "require_certificate"
            | "socket_domain"
            | "tls_version"
            | "use_identity_as_username"
            | "use_subject_as_username"
            | "use_username_as_clientid"
            | "websockets_headers_size"
            | "websockets_origin"
            | "accept_protocol_versions"
            | "enable_proxy_protocol"
    )
}

/// Takes over the limits of the connections of all listeners that were taken over: their sum, if each has one.
pub(super) fn take_connections(
    taken: &[&Listener],
    settings: &mut MosquittoSettings,
    report: &mut Report,
) {
    let limits: Vec<_> =
        taken.iter().filter_map(|listener| listener.connections_max(report)).collect();
    // A sum would bound the listener without a limit too, and refuse clients that came in before.
    if limits.len() < taken.len() {
        for (_, line) in limits {
            report.not_taken(
                line,
                "limits.connections_max bounds all listeners together here, and another listener has no limit",
            );
        }
        return;
    }
    for (_, line) in &limits {
        report.differs(
            Some(&line.place),
            "max_connections bounds one listener there; here limits.connections_max bounds all listeners \
             together, and has the sum of their limits",
        );
    }
    let sum: i64 = limits.iter().map(|(number, _)| number).sum();
    if sum > 0 {
        settings.set("limits", "connections_max", sum.min(u32::MAX.into()));
    }
}

impl Listener {
    /// Returns the listener that there is without a `listener` line, on all addresses.
    pub(super) fn default_of_all() -> Self {
        Self { port: PORT, ..Self::default() }
    }

    /// Returns the one of a configuration without any, on this machine alone.
    pub(super) fn default_of_this_machine() -> Self {
        Self { port: PORT, host: Some("localhost".to_owned()), ..Self::default() }
    }

    /// Reads a `listener` line: port, and address or path.
    pub(super) fn begin(line: &Line, report: &mut Report) -> Option<Self> {
        let (port, host) = line.value.split_once([' ', '\t']).unwrap_or((&line.value, ""));
        let Ok(port) = port.parse() else {
            report.not_taken(line, "the port is not valid");
            return None;
        };
        let host = Some(host.trim().to_owned()).filter(|host| !host.is_empty());
        Some(Self { place: Some(line.place.clone()), port, host, lines: Vec::new() })
    }

    /// Takes `port` and `bind_address` of the default listener over.
    pub(super) fn take_default(&mut self, line: &Line, report: &mut Report) {
        match (line.name.as_str(), line.value.parse()) {
            ("bind_address", _) => self.host = Some(line.value.clone()),
            (_, Ok(port)) => self.port = port,
            (_, Err(_)) => report.not_taken(line, "the port is not valid"),
        }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    fn last(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.name == name)
    }

    fn flag(&self, name: &str) -> bool {
        self.last(name).and_then(Line::flag).unwrap_or(false)
    }

    /// Returns the address as an option has it.
    fn address(&self) -> String {
        let port = self.port;
        match self.host.as_deref() {
            None if self.last("socket_domain").is_some_and(|line| line.value == "ipv4") => {
                format!("0.0.0.0:{port}")
            }
            None => format!("[::]:{port}"),
            Some(host) if host.contains(':') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
        }
    }

    /// Takes the listener over. Returns `None` if it is not one of MQTT, or if its clients would be allowed
    /// more than before. `has_rules` says whether rules depend on user names.
    pub(super) fn take(
        &self,
        has_rules: bool,
        settings: &mut MosquittoSettings,
        report: &mut Report,
    ) -> Option<Listening> {
        for line in &self.lines {
            if let Some(why) = without_counterpart(&line.name) {
                report.not_taken(line, why);
            }
        }
        // Another protocol has no counterpart, so the whole listener is left out.
        let is_websocket = match self.last("protocol") {
            None => false,
            Some(line) if line.value == "mqtt" => false,
            Some(line) if line.value == "websockets" => true,
            Some(line) => {
                report.not_taken(line, "a listener speaks mqtt or websockets here");
                return None;
            }
        };
        // A Unix socket has no layers and no certificates.
        if self.port == 0 {
            let path = self.host.clone()?;
            settings.push("mqtt", "unix", &path);
            return Some(Listening {
                pattern: format!("unix:{path}"),
                address: path,
                logs_in_by_certificate: false,
                wants_certificate_too: false,
            });
        }
        if let Some(line) = self.last("psk_hint") {
            // Without it, the same port would accept clients without a proof.
            report.not_taken(line, "the listener used TLS-PSK, and is left out");
            return None;
        }
        // As in Mosquitto, a certificate without its key means no TLS.
        let has_tls = self.last("certfile").is_some() && self.last("keyfile").is_some();
        if has_tls && !self.has_possible_names(has_rules, report) {
            return None;
        }
        let (key, scheme, path) = match (is_websocket, has_tls) {
            (false, false) => ("tcp", "mqtt", ""),
            (false, true) => ("tls", "mqtts", ""),
            (true, false) => ("websocket", "ws", "/*"),
            (true, true) => ("secure_websocket", "wss", "/*"),
        };
        let address = self.address();
        settings.push("mqtt", key, &address);
        if is_websocket {
            report.differs(
                self.place.as_ref(),
                "clients connect to the path /mqtt (mqtt.websocket_path); Mosquitto accepts any path",
            );
            if let Some(origin) = self.last("websockets_origin") {
                settings.push("mqtt", "websocket_origins", &origin.value);
            }
        }
        // With these options the certificate is the login; otherwise clients show it beside a password.
        let wants_certificate = has_tls && self.flag("require_certificate");
        let is_name = wants_certificate
            && (self.flag("use_identity_as_username") || self.flag("use_subject_as_username"));
        if has_tls {
            self.take_tls(&address, wants_certificate, settings, report);
        }
        Some(Listening {
            pattern: format!("{scheme}://*:{}{path}", self.port),
            address,
            logs_in_by_certificate: is_name,
            wants_certificate_too: wants_certificate && !is_name,
        })
    }

    /// Returns whether the user names of a TLS listener can be the same here. Reports why not.
    fn has_possible_names(&self, has_rules: bool, report: &mut Report) -> bool {
        let options = ["use_identity_as_username", "use_subject_as_username"];
        let mut by_certificate = options.iter().filter(|name| self.flag(name));
        let Some(line) = by_certificate.next().and_then(|name| self.last(name)) else {
            // Without these options, names come from CONNECT there and here.
            return true;
        };
        if !self.flag("require_certificate") {
            report.not_taken(
                line,
                "without require_certificate Mosquitto refuses every client of the listener, so it is left \
                 out",
            );
            return false;
        }
        // The rules would apply to other users, so the listener could allow more.
        if has_rules && self.flag("use_subject_as_username") {
            report.not_taken(
                self.last("use_subject_as_username").unwrap_or(line),
                "the rules are about subjects of certificates, and a user name here is a Common Name, so the \
                 listener is left out; write it with rules of your own",
            );
            return false;
        }
        report.differs(
            Some(&line.place),
            "a client with a certificate that sends a user name too must send the Common Name; Mosquitto \
             ignores what it sends",
        );
        true
    }

    /// Returns the limit of its connections, with its line; `None` if it has none.
    fn connections_max(&self, report: &mut Report) -> Option<(i64, &Line)> {
        let line = self.last("max_connections")?;
        match line.number() {
            Some(number) if number < 0 => None, // no limit
            Some(number) if u32::try_from(number).is_ok_and(|number| number > 0) => {
                Some((number, line))
            }
            _ => {
                report.not_taken(line, "the value is not valid");
                None
            }
        }
    }

    fn take_tls(
        &self,
        address: &str,
        wants_certificate: bool,
        settings: &mut MosquittoSettings,
        report: &mut Report,
    ) {
        let path = |name| Some(self.last(name)?.path().display().to_string());
        let mut tls = Table::new();
        for (key, name) in [("certificate", "certfile"), ("key", "keyfile")] {
            tls.extend(path(name).map(|path| (key.to_owned(), Value::from(path))));
        }
        if let Some(line) = self.last("tls_version") {
            match line.value.as_str() {
                "tlsv1.3" => drop(tls.insert("min_version".to_owned(), "1.3".into())),
                // The default here.
                "tlsv1.2" => {}
                _ => report.not_taken(line, "the oldest version of TLS is 1.2"),
            }
        }
        // Without the demand, a `cafile` has no effect in Mosquitto either.
        if wants_certificate {
            let list = |path: String| Value::from(vec![path]);
            match path("cafile") {
                Some(ca) => drop(tls.insert("client_ca".to_owned(), list(ca))),
                None => report.differs(
                    self.place.as_ref(),
                    "certificates are required, but no cafile was found: name it in client_ca",
                ),
            }
            tls.insert("client_auth".to_owned(), "required".into());
            if let Some(crl) = path("crlfile") {
                tls.insert("crl".to_owned(), list(crl));
                report.differs(
                    self.place.as_ref(),
                    "every authority in the chain of a client needs a revocation list, once there is \
                     one; name all of them in crl",
                );
            }
        } else if let Some(line) = self.last("crlfile") {
            report.not_taken(line, "clients are not asked for a certificate");
        }
        let mut table = Table::new();
        table.insert("address".to_owned(), address.into());
        table.insert("tls".to_owned(), Value::Table(tls));
        // A table of its own, because Mosquitto has TLS files for each listener.
        settings.listeners.push(table);
    }
}
