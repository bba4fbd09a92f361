//! Imports the options on accounts and permissions, for all listeners
//! or, with `per_listener_settings`, for one.

use super::{
    MigrateError,
    accounts::{MigratedAccounts, read_password_file},
    acl::read_acl_file,
    conf::Line,
    dynamic_security::read_dynamic_security,
    listeners::Listening,
    options::without_counterpart,
    report::Report,
    rules::{NewRule, PUBLISH, SUBSCRIBE, priority, unnameable},
    settings::MosquittoSettings,
};

/// Patterns that match the URLs of all listeners of MQTT, and none of HTTP.
const MQTT: [&str; 5] = ["mqtt://*", "mqtts://*", "ws://*", "wss://*", "unix:*"];

/// The file name of the plugin for dynamic security.
const DYNAMIC_SECURITY: &str = "mosquitto_dynamic_security";

/// The options on accounts and permissions of some listeners.
#[derive(Default)]
pub(super) struct Security {
    lines: Vec<Line>,
}

/// Whether an option of this name is one of them.
pub(super) fn is_of_security(name: &str) -> bool {
    matches!(name, "allow_anonymous" | "password_file" | "acl_file" | "psk_file")
        || ["plugin", "auth_plugin", "auth_opt_", "plugin_opt_", "global_plugin"]
            .iter()
            .any(|beginning| name.starts_with(beginning))
}

/// The result of an import of the options of some listeners.
#[derive(Default)]
pub(super) struct SecuredListener {
    pub(super) rules: Vec<NewRule>,
    pub(super) anonymous: bool,
    /// Whether Mosquitto accepts any user name, because it has no accounts.
    pub(super) any_name: bool,
}

impl Security {
    pub(super) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    fn last(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.name == name)
    }

    /// Returns whether rules name users, or the user name is part of their topics.
    pub(super) fn has_rules(&self) -> bool {
        self.lines.iter().any(|line| {
            line.name == "acl_file"
                || (line.name.contains("plugin") && line.value.contains(DYNAMIC_SECURITY))
        })
    }

    /// Returns the line with the file of dynamic security. Reports other plugins.
    fn dynamic_security(&self, report: &mut Report) -> Option<&Line> {
        let is_plugin = |line: &&Line| {
            matches!(line.name.as_str(), "plugin" | "global_plugin" | "auth_plugin")
                && line.value.contains(DYNAMIC_SECURITY)
        };
        // Another plugin has options of the same name, so the plugin itself must be there.
        let is_there = self.lines.iter().any(|line| is_plugin(&line));
        let mut found = None;
        for line in self.lines.iter().filter(|line| !is_plugin(line)) {
            let is_file = line.name.ends_with("plugin_opt_config_file")
                || line.name.ends_with("auth_opt_config_file");
            if is_there && is_file {
                found = Some(line);
            } else if let Some(why) = without_counterpart(&line.name) {
                report.not_taken(line, why);
            }
        }
        found
    }

    /// Takes the options over. `only` has the listeners that they are for; `None`: all.
    pub(super) fn take(
        &self,
        listeners: &[&Listening],
        is_for_all: bool,
        is_local: bool,
        (settings, accounts, report): (&MosquittoSettings, &mut MigratedAccounts, &mut Report),
    ) -> Result<SecuredListener, MigrateError> {
        let only: Vec<String> = match is_for_all {
            true => MQTT.map(str::to_owned).to_vec(),
            false => listeners.iter().map(|one| one.pattern.clone()).collect(),
        };
        let mut users = Vec::new();
        let mut rules = Vec::new();
        // Accounts and rules come from up to three files.
        let dynamic = self.dynamic_security(report);
        let passwords = self.last("password_file");
        if let Some(line) = passwords {
            users = read_password_file(&line.path(), accounts, report)?;
        }
        let acl = self.last("acl_file");
        if let Some(line) = acl {
            rules = read_acl_file(&line.path(), report)?;
        }
        if let Some(line) = dynamic {
            let taken = read_dynamic_security(&line.path(), accounts, report)?;
            users.extend(taken.users);
            rules.extend(taken.rules);
        }
        // Mosquitto's default: anonymous clients only on a local listener without accounts.
        let given = self.last("allow_anonymous").and_then(Line::flag);
        let anonymous =
            given.unwrap_or_else(|| is_local && passwords.is_none() && dynamic.is_none());
        let by_certificate = listeners.iter().any(|one| one.logs_in_by_certificate);
        let any_name = anonymous && passwords.is_none() && dynamic.is_none() && !by_certificate;
        if acl.is_some() || dynamic.is_some() {
            say_differences(report);
        } else {
            rules.push(NewRule::allow(priority::PATTERN_ALLOW, &[PUBLISH, SUBSCRIBE]));
        }
        if any_name && let Some(line) = acl {
            report.differs(
                Some(&line.place),
                "without password_file Mosquitto believes every user name, and the lines of a user hold \
                 for it; here such a client has no user name, and only the lines of anonymous clients and \
                 the patterns without %u hold for it",
            );
        }
        for rule in rules.iter_mut().filter(|rule| !is_for_all && rule.listeners.is_none()) {
            rule.listeners = Some(only.clone());
        }
        // The names that may connect. Those of certificates are not known in advance.
        let with_name = by_certificate || !users.is_empty();
        let named = match is_for_all || by_certificate {
            true => vec!["*".to_owned()],
            false => nameable(&users, report, self.last("password_file").or(dynamic)),
        };
        let named = with_name.then_some(named).into_iter().flatten();
        let who: Vec<_> = named.chain(anonymous.then(String::new)).collect();
        let prefix = settings.client_id_prefix.as_ref();
        if let Some((_, prefix)) = prefix {
            // What a client identifier of dynamic security allows.
            let begins = |ids: &Vec<String>| ids.iter().all(|id| id.starts_with(prefix));
            let is_kept = |rule: &NewRule| rule.clients.as_ref().is_none_or(begins);
            rules.retain(|rule| rule.effect == "deny" || is_kept(rule));
        }
        // At last the rule that lets them connect, with the prefix of their identifiers.
        let fault = prefix.and_then(|(place, text)| Some((place, text, unnameable(text)?)));
        if let Some((place, text, why)) = fault {
            let what = format!("clientid_prefixes {text}");
            report.not_taken_at(place, &what, &format!("{why}; so no rule allows to connect"));
        } else if !who.is_empty() {
            let mut connect =
                NewRule::allow(priority::CONNECT, &["connect"]).users(who).listeners(&only);
            connect.clients = prefix.map(|(_, text)| vec![format!("{text}*")]);
            rules.push(connect);
        }
        Ok(SecuredListener { rules, anonymous, any_name })
    }
}

/// Returns the names that a rule can have.
fn nameable(users: &[String], report: &mut Report, line: Option<&Line>) -> Vec<String> {
    let mut named = Vec::new();
    for user in users {
        match (unnameable(user), line) {
            (Some(why), Some(line)) => report.not_taken(line, &format!("user {user:?}: {why}")),
            _ => named.push(user.clone()),
        }
    }
    named
}

/// Reports the differences in meaning of imported permissions.
fn say_differences(report: &mut Report) {
    for text in [
        "Mosquitto grants every SUBSCRIBE and filters messages at delivery. Here a SUBSCRIBE is refused \
         unless one rule allows all topics of its filter: read on a/b does not allow a/# or #",
        "A line that denies a topic also refuses each subscription that has this topic among others",
        "A client may connect only if a rule allows it. One rule was added for all clients that may log \
         in; it holds for MQTT, not for REST",
        "Nobody can publish to $SYS, $events or $control, whatever the rules say",
    ] {
        report.differs(None, text);
    }
}
