//! The options in force, for people: with their defaults, and without secrets.

use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::{Config, change::can_change, load::as_table};
use crate::http::OptionInForce;

/// Options that are secrets, or may contain one.
const HIDDEN: [&str; 6] = [
    "auth.http.body",
    "auth.http.headers",
    "auth.http.url",
    "auth.jwt.jwks",
    "auth.postgres.url",
    "tls.crl_urls",
];

impl Config {
    /// Returns all options in the order of their names. Secrets are hidden; of bridges and webhooks
    /// only their names are shown.
    #[must_use]
    pub fn options_in_force(&self) -> Vec<OptionInForce> {
        let mut options = Vec::new();
        let default = Self::default();
        collect("", &as_table(self), &as_table(&default), &mut options);
        // Lists of tables are shown by hand, because their members may be secrets.
        for (name, value) in [
            ("bridges", bridges(self)),
            ("listeners", listeners(self)),
            ("webhook", webhooks(self)),
        ] {
            options.push(OptionInForce {
                name: name.to_owned(),
                is_changed: value != json!([]),
                value,
                default: json!([]),
                is_hidden: false,
                needs_restart: !can_change(name),
            });
        }
        options.sort_by(|one, other| one.name.cmp(&other.name));
        options
    }

    /// Returns the values of these options for the log, without secrets.
    #[must_use]
    pub fn values_for_log(&self, names: &[String]) -> Map<String, Json> {
        let options = self.options_in_force();
        let value = |name: &String| {
            let shown = options.iter().find(|option| option.name == *name);
            let shown = shown.filter(|option| !HIDDEN.contains(&&*option.name));
            shown.map_or_else(|| json!("(not shown)"), |option| option.value.clone())
        };
        names.iter().map(|name| (name.clone(), value(name))).collect()
    }
}

fn listeners(config: &Config) -> Json {
    serde_json::to_value(&config.listeners).unwrap_or(Json::Null)
}

fn bridges(config: &Config) -> Json {
    config.bridges.iter().map(|bridge| bridge.name.clone()).collect()
}

fn webhooks(config: &Config) -> Json {
    config.webhook.iter().map(|webhook| webhook.name.clone()).collect()
}

fn collect(section: &str, values: &Table, defaults: &Table, options: &mut Vec<OptionInForce>) {
    for (key, value) in values {
        let name = format!("{section}{key}");
        let default = defaults.get(key);
        if let Value::Table(inner) = value {
            let defaults = default.and_then(Value::as_table).cloned().unwrap_or_default();
            collect(&format!("{name}."), inner, &defaults, options);
            continue;
        }
        if ["bridges", "listeners", "webhook"].contains(&&*name) {
            continue; // shown apart
        }
        let is_changed = default != Some(value);
        // The default of a secret option is empty, which reveals nothing.
        let is_hidden = HIDDEN.contains(&&*name) && is_changed;
        options.push(OptionInForce {
            value: if is_hidden { Json::Null } else { json_of(value) },
            default: default.map_or(Json::Null, json_of),
            is_changed,
            is_hidden,
            needs_restart: !can_change(&name),
            name,
        });
    }
}

fn json_of(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or(Json::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{keys, schema};

    fn option(config: &Config, name: &str) -> OptionInForce {
        config.options_in_force().into_iter().find(|option| option.name == name).expect(name)
    }

    #[test]
    fn every_option_is_shown() {
        let shown: Vec<_> =
            Config::default().options_in_force().into_iter().map(|option| option.name).collect();
        assert!(shown.is_sorted());
        for key in keys(&schema()) {
            let is_of_list = ["bridges", "listeners"].iter().any(|list| key.starts_with(list))
                || key.starts_with("webhook")
                || key.starts_with("cluster.");
            assert!(is_of_list || shown.contains(&key), "{key}");
        }
        assert!(Config::default().options_in_force().iter().all(|option| !option.is_changed));
    }

    #[test]
    fn what_differs_from_the_default_is_marked() {
        let mut config = Config::default();
        config.http.workers = 3;
        let workers = option(&config, "http.workers");
        assert_eq!((workers.value, workers.default), (json!(3), json!(1)));
        assert!(workers.is_changed && workers.needs_restart && !workers.is_hidden);
        assert!(!option(&config, "limits.connections_max").needs_restart);
    }

    /// A further option that is a secret must be hidden too: its type says that it is one.
    #[test]
    fn no_secret_is_shown() {
        let secret = "s3cr3t";
        let text = format!(
            "[auth.http]\nurl = \"https://a:{secret}@b/\"\nheaders = [\"X-Key: {secret}\"]\n\
             body = '{{\"key\":\"{secret}\",\"u\":\"${{username}}\"}}'\n\
             [auth.jwt]\njwks = \"https://h/?t={secret}\"\n\
             [tls]\ncrl_urls = [\"https://h/?t={secret}\"]\n\
             [auth.postgres]\nurl = \"postgresql://u:{secret}@h/d\"\n\
             [[webhook]]\nname = \"fleet\"\nurl = \"https://h/{secret}\"\nsecrets = [\"{secret}\"]\n"
        );
        let config: Config = toml::from_str(&text).expect("options");
        let shown = serde_json::to_string(&config.options_in_force()).expect("JSON");
        assert!(!shown.contains(secret), "{shown}");
        assert!(shown.contains("fleet"));
        let names = HIDDEN.map(str::to_owned);
        let names: Vec<_> = names.into_iter().chain(["webhook.secrets".to_owned()]).collect();
        let logged = config.values_for_log(&names);
        assert!(logged.values().all(|value| value == "(not shown)"), "{logged:?}");
        for name in HIDDEN {
            let option = option(&config, name);
            assert!(option.is_hidden && option.is_changed && option.value.is_null(), "{name}");
        }
        let sources = [
            include_str!("../auth/postgres/options.rs"),
            include_str!("../auth/callback/options.rs"),
            include_str!("../auth/jwt/options.rs"),
            include_str!("../auth/builtin/authenticator.rs"),
            include_str!("mod.rs"),
        ];
        let fields: usize = sources
            .iter()
            .map(|text| {
                text.matches(": HiddenText,").count() + text.matches("<HiddenText>,").count()
            })
            .sum();
        // The others are plain text that may contain a secret: a template, and two places of files or URLs.
        assert_eq!(fields + 3, HIDDEN.len(), "each field of this type is hidden");
    }
}
