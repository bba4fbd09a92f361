//! Fills a [`Config`]: defaults, then the file, then the environment, then the command line.
//!
//! The serialized default is the schema: it defines the keys and their types. Each key remembers
//! where it was last given, so that a mistake found later is reported where the user can correct
//! it. Called by the command line; reads one file and nothing else.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, Error as TomlError},
};

use super::{
    BridgeConfig, Config, ConfigError, ListenerConfig, Place, WebhookConfig, check::check,
    problem::Problem,
};

/// Prefix of all environment variables that this program reads.
const VARIABLE_PREFIX: &str = "HEARTHMQ_";

/// Variables with our prefix that are not options: the name of the configuration file and the first
/// password, which the command line reads, the account of commands that ask a running broker, and
/// those that Kubernetes sets in each pod beside a
/// service called `hearthmq`.
const OTHER_VARIABLES: [&str; 5] = [
    "HEARTHMQ_CONFIG",
    "HEARTHMQ_ADMIN_PASSWORD",
    "HEARTHMQ_REMOTE_",
    "HEARTHMQ_SERVICE_",
    "HEARTHMQ_PORT",
];

/// Sections that are arrays of tables: only a file can give them.
const LISTS: [&str; 3] = ["bridges", "listeners", "webhook"];

/// The section that only a program with the feature of this name has.
const CLUSTER: &str = "cluster";
const WITHOUT_CLUSTER: &str =
    "this program is built without it: `cargo build --release --features cluster`";

/// Similarity, from 0 to 1, from which a valid key is suggested for an unknown one.
const ALIKE_ENOUGH: f64 = 0.6;

impl Config {
    /// Returns the configuration of `file` (the defaults without one), changed by those `variables`
    /// that begin with `HEARTHMQ_` and then by `settings`, each of the form `section.key=value`.
    ///
    /// The variable of `limits.connections_max` is `HEARTHMQ_LIMITS__CONNECTIONS_MAX`, and so on
    /// for every key. Lists are written with commas, or as in TOML.
    ///
    /// # Errors
    /// The first mistake, with its place and the correction.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let mut loader = Loader { config: Self::default(), places: HashMap::new() };
        if let Some(path) = file {
            loader.apply_file(path)?;
        }
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            // Variables of the commands and tests begin with the same prefix.
            .filter(|(name, _)| !OTHER_VARIABLES.iter().any(|other| name.starts_with(other)))
            .collect();
        variables.sort(); // so that the first mistake is always the same one
        // In this order each later source replaces values of the earlier ones.
        for (name, value) in variables {
            loader.apply_variable(&name, &value)?;
        }
        for setting in settings {
            loader.apply_setting(setting)?;
        }
        loader.finish()
    }
}

struct Loader {
    config: Config,
    /// Where each key (`section.name`) was last given.
    places: HashMap<String, Place>,
}

impl Loader {
    fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError {
            place: Place::File(path.to_path_buf()),
            what: format!("cannot be read: {error}"),
            remedy: "name a TOML file that can be read (UTF-8)".into(),
        })?;
        let file = File { path, text: &text };
        let table = DeTable::parse(&text).map_err(|error| file.syntax_error(&error))?;
        file.check_keys("", table.get_ref(), &schema(), &mut self.places)?;
        self.config = toml::from_str(&text).map_err(|error| file.value_error(&error))?;
        Ok(())
    }

    fn apply_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let place = Place::Variable(name.into());
        let keys = keys(&as_table(&Config::default()));
        let Some(key) = keys.iter().find(|key| variable_name(key) == name) else {
            let known: Vec<_> = keys.iter().map(|key| variable_name(key)).collect();
            return Err(ConfigError {
                place,
                what: "there is no such option".into(),
                remedy: remedy_for(name, known.iter().map(String::as_str)),
            });
        };
        self.apply_value(key, value, place)
    }

    fn apply_setting(&mut self, setting: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(ConfigError {
                place: Place::Setting(setting.into()),
                what: "has no value".into(),
                remedy: "write --set section.key=value".into(),
            });
        };
        let place = Place::Setting(key.into());
        let keys = keys(&as_table(&Config::default()));
        // Before the value is set: a key that is not known has no type to parse by.
        if !keys.iter().any(|known| known == key) {
            return Err(ConfigError {
                place,
                what: "there is no such option".into(),
                remedy: remedy_for(key, keys.iter().map(String::as_str)),
            });
        }
        self.apply_value(key, value, place)
    }

    /// Sets one existing key to `text`, parsed as the type of the key requires.
    fn apply_value(&mut self, key: &str, text: &str, place: Place) -> Result<(), ConfigError> {
        let mut table = as_table(&self.config);
        let slot = slot(&mut table, key);
        let value = match slot {
            Value::String(_) => Some(Value::String(text.into())),
            Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
            Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
            Value::Array(_) => list(text),
            // A section has no text of its own, and no option is a float or a date.
            Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
        };
        let Some(value) = value else {
            return Err(ConfigError {
                place,
                what: format!("{text:?} is not {}", type_in_words(slot)),
                remedy: format!("write {}", example_in_words(slot)),
            });
        };
        *slot = value;
        // Through the whole configuration, because only its types know the words of an option.
        self.config = from_table(&table).map_err(|error| {
            let (what, remedy) = in_plain_words(error.message());
            ConfigError { place: place.clone(), what, remedy }
        })?;
        self.places.insert(key.into(), place);
        Ok(())
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        match check(&self.config, &as_table(&self.config)) {
            Ok(()) => Ok(self.config),
            Err(Problem { keys, what, remedy }) => {
                let given = keys.iter().find_map(|key| self.places.remove(key));
                let place = given
                    .unwrap_or_else(|| Place::Default(keys.into_iter().next().unwrap_or_default()));
                Err(ConfigError { place, what, remedy })
            }
        }
    }
}

/// The file that is being read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// Refuses keys that are not in `schema`, and notes where the others are.
    fn check_keys(
        &self,
        section: &str,
        table: &DeTable<'_>,
        schema: &Table,
        places: &mut HashMap<String, Place>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{section}{}", name.get_ref());
            let place = self.place(Some(name.span()));
            match (schema.get(name.get_ref().as_ref()), value.get_ref()) {
                (Some(Value::Table(schema)), DeValue::Table(inner)) => {
                    // Inner keys have places too, so that a later
                    // error names the line of the option itself.
                    self.check_keys(&format!("{key}."), inner, schema, places)?;
                    places.insert(key, place);
                }
                (Some(Value::Array(schema)), DeValue::Array(items)) => {
                    // Arrays of tables, such as `[[listeners]]`; the others contain strings.
                    let schema = schema.first().and_then(Value::as_table);
                    for (number, item) in items.iter().enumerate() {
                        if let (Some(schema), DeValue::Table(inner)) = (schema, item.get_ref()) {
                            self.check_keys(&format!("{key}.{number}."), inner, schema, places)?;
                        }
                    }
                    places.insert(key, place);
                }
                // A value of the wrong type is refused later,
                // when the table becomes a configuration.
                (Some(_), _) => drop(places.insert(key, place)),
                (None, _) => return Err(unknown_key(place, section, name, schema)),
            }
        }
        Ok(())
    }

    fn syntax_error(&self, error: &TomlError) -> ConfigError {
        ConfigError {
            place: self.place(error.span()),
            what: error.message().replace('\n', ", "),
            remedy: "correct the TOML".into(),
        }
    }

    fn value_error(&self, error: &TomlError) -> ConfigError {
        let (what, remedy) = in_plain_words(error.message());
        ConfigError { place: self.place(error.span()), what, remedy }
    }

    fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        Place::in_text(PathBuf::from(self.path), self.text, span)
    }
}

fn unknown_key(
    place: Place,
    section: &str,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    schema: &Table,
) -> ConfigError {
    let name = name.get_ref().as_ref();
    let all = keys(&as_table(&Config::default()));
    // Most unknown options are known ones in the wrong section.
    let elsewhere = all.iter().filter_map(|key| key.rsplit_once('.'));
    let elsewhere = elsewhere.filter(|(_, known)| *known == name);
    let elsewhere: Vec<_> = elsewhere.map(|(section, _)| format!("[{section}]")).collect();
    // A program without the feature has no such section, and the name needs no correction.
    let remedy = if section.is_empty() && name == CLUSTER {
        WITHOUT_CLUSTER.to_owned()
    } else if !elsewhere.is_empty() {
        format!("write it in {}", elsewhere.join(" or "))
    } else if let Some(known) = nearest(name, schema.keys().map(String::as_str)) {
        format!("did you mean {known}?")
    } else {
        let known: Vec<_> = schema.keys().map(String::as_str).collect();
        format!("there are {}", known.join(", "))
    };
    let section = section.trim_end_matches('.');
    let what = match section.split_once('.') {
        _ if section.is_empty() => format!("there is no option or section {name}"),
        Some((list, inner)) if LISTS.contains(&list) => {
            // The number of the table in its list is left out: the place names the line.
            let inner = inner.split_once('.').map_or(String::new(), |(_, of)| format!("{of} of "));
            format!("there is no option {name} in {inner}[[{list}]]")
        }
        _ => format!("there is no option {name} in [{section}]"),
    };
    ConfigError { place, what, remedy }
}

pub(super) fn as_table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration is made of TOML's types")
}

/// Returns the configuration that a table has. The way through text costs nothing here, and leaves one
/// deserializer to compile for all options: that of the file.
pub(super) fn from_table(table: &Table) -> Result<Config, TomlError> {
    toml::from_str(&table.to_string())
}

/// Returns every option with a value of its type, those of the arrays of tables included.
pub(super) fn schema() -> Table {
    as_table(&Config {
        listeners: vec![ListenerConfig::with_every_option()],
        bridges: vec![BridgeConfig::with_every_option()],
        webhook: vec![WebhookConfig::with_every_option()],
        #[cfg(feature = "cluster")]
        cluster: Some(super::ClusterOptions::default()),
        ..Config::default()
    })
}

/// Returns the correction of `wrong`, which is not the name of an option.
fn remedy_for<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> String {
    let key = wrong.trim_start_matches(VARIABLE_PREFIX).to_lowercase();
    // Lists of tables cannot be given by a variable or on the command line.
    let list = LISTS.iter().find(|list| key.starts_with(*list));
    if let Some(list) = list {
        return format!("write [[{list}]] in the configuration file");
    }
    if key.starts_with(CLUSTER) {
        return match cfg!(feature = "cluster") {
            true => "write [cluster] in the configuration file".to_owned(),
            false => WITHOUT_CLUSTER.to_owned(),
        };
    }
    match nearest(wrong, known) {
        Some(known) => format!("did you mean {known}?"),
        None => "`hearthmq example-config` lists all options".into(),
    }
}

/// Returns every key of `table`, with its section: `limits.connections_max`.
pub(super) fn keys(table: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value.as_table() {
            Some(section) => all.extend(keys(section).iter().map(|key| format!("{name}.{key}"))),
            None => all.push(name.clone()),
        }
    }
    all
}

fn slot<'t>(table: &'t mut Table, key: &str) -> &'t mut Value {
    match key.split_once('.') {
        Some((section, rest)) => {
            let inner = table[section].as_table_mut();
            slot(inner.expect("a key with a dot leads through a section"), rest)
        }
        None => &mut table[key],
    }
}

fn variable_name(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Returns the key that is most similar to `wrong`, letter by letter or with its words in another
/// order (`max_connections`), if one is similar enough.
fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let alike = |key: &str| {
        let by_letter = strsim::normalized_damerau_levenshtein(wrong, key);
        let in_order = strsim::normalized_damerau_levenshtein(&sorted(wrong), &sorted(key));
        by_letter.max(in_order)
    };
    known
        .map(|key| (alike(key), key))
        .filter(|(alike, _)| *alike >= ALIKE_ENOUGH)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, key)| key)
}

/// Returns `key` with the words of each part in alphabetical order.
fn sorted(key: &str) -> String {
    let part = |part: &str| {
        let mut words: Vec<_> = part.split('_').filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        words.join("_")
    };
    key.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Parses a list of strings: `a,b`, or as in TOML. All lists of the configuration hold strings. An
/// IPv6 address, `[::]:1883`, begins like a list but is not one.
fn list(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.starts_with('[') && text.ends_with(']') {
        return text.parse().ok().filter(Value::is_array);
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(Value::Array(items.map(Value::from).collect()))
}

fn type_in_words(value: &Value) -> &'static str {
    match value {
        Value::String(_) | Value::Datetime(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) | Value::Table(_) => "a list",
    }
}

fn example_in_words(value: &Value) -> String {
    match value {
        Value::Boolean(_) => "true or false".into(),
        Value::Array(_) => "items with commas between them".into(),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Datetime(_)
        | Value::Table(_) => format!("{} such as {value}", type_in_words(value)),
    }
}

/// The words of Serde for what it expected, and those for a user. Tables in place of branches: the compiler
/// takes six minutes to select the instructions of comparisons with that number of constant texts.
const EXPECTED: [(&str, &str); 7] = [
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number from 0"),
    ("a boolean", "true or false"),
    ("a sequence", "a list: [\"…\", \"…\"]"),
    ("a string", "a text in quotes"),
    ("path string", "a text in quotes"),
];

/// Returns the fault and its remedy, from a message of the TOML parser.
fn in_plain_words(message: &str) -> (String, String) {
    let message = message.trim().replace('\n', ", ");
    if message.contains("socket address") {
        let remedy = "write address:port, for example \"127.0.0.1:1883\" or \"[::1]:1883\"";
        return ("not an address with a port".into(), remedy.into());
    }
    if message.contains("cannot be resolved") {
        return (message, "correct the name, or write the address".into());
    }
    let Some((what, expected)) = message.split_once(", expected ") else {
        return (message, "see `hearthmq example-config`".into());
    };
    (what.replace('`', ""), format!("write {}", form_of(expected)))
}

fn form_of(expected: &str) -> String {
    let expected = expected.trim_start_matches("one of ").trim();
    if let Some((_, form)) = EXPECTED.iter().find(|(name, _)| *name == expected) {
        return (*form).to_owned();
    }
    // Serde calls our own types `struct MqttConfig` and the like.
    match expected.starts_with("struct ") {
        true => "a section with options".to_owned(),
        false => expected.replace('`', "\"").replace("\", \"", "\" or \""),
    }
}
