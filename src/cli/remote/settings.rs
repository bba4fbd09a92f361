//! `hearthmq clients settings` and `hearthmq users settings`: how fast clients are read, how much may
//! wait for them, and how long their sessions last.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{common::Common, encoded, table::field};
use crate::cli::Failure;

/// Commands about settings of clients.
#[derive(Subcommand)]
pub(in crate::cli) enum ClientSettingsCommand {
    /// List the clients with sticky settings
    List(SettingsListArguments),
    /// Show the sticky settings of a client
    Show(SettingsOwner),
    /// Change settings of a client
    Set(ClientSettingsArguments),
    /// Remove the sticky settings of a client
    Remove(SettingsOwner),
}

/// Commands about settings of all clients of a user.
#[derive(Subcommand)]
pub(in crate::cli) enum UserSettingsCommand {
    /// List the users with settings
    List(SettingsListArguments),
    /// Show the settings of a user
    Show(SettingsOwner),
    /// Change settings of all clients of a user, also of later ones
    Set(UserSettingsArguments),
    /// Remove the settings of a user
    Remove(SettingsOwner),
}

#[derive(Args)]
pub(in crate::cli) struct SettingsListArguments {
    /// Stop after this number of items
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct SettingsOwner {
    /// The client identifier or the user name
    name: String,
    #[command(flatten)]
    common: Common,
}

/// A number, or `none`, which removes the setting.
#[derive(Clone, Copy)]
struct SettingValue(Option<u64>);

fn setting(text: &str) -> Result<SettingValue, &'static str> {
    match text {
        "none" => Ok(SettingValue(None)),
        _ => text
            .parse()
            .map(|number| SettingValue(Some(number)))
            .map_err(|_| "a setting is a number or none"),
    }
}

/// The settings to change. Each value is a number, or `none`, which removes the setting.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct SettingValues {
    /// Session Expiry Interval in seconds, or none
    #[arg(long, value_name = "SECONDS", value_parser = setting)]
    session_expiry_interval: Option<SettingValue>,
    /// PUBLISH packets that are read in a second, or none
    #[arg(long, value_name = "NUMBER", value_parser = setting)]
    message_rate: Option<SettingValue>,
    /// Bytes of PUBLISH packets that are read in a second, or none
    #[arg(long, value_name = "BYTES", value_parser = setting)]
    byte_rate: Option<SettingValue>,
    /// Maximum number of messages that wait, or none
    #[arg(long, value_name = "NUMBER", value_parser = setting)]
    queue_messages_max: Option<SettingValue>,
    /// Maximum bytes of messages that wait, or none
    #[arg(long, value_name = "BYTES", value_parser = setting)]
    queue_bytes_max: Option<SettingValue>,
    /// Maximum number of unacknowledged messages, or none
    #[arg(long, value_name = "NUMBER", value_parser = setting)]
    in_flight_max: Option<SettingValue>,
}

#[derive(Args)]
pub(in crate::cli) struct ClientSettingsArguments {
    /// The client identifier
    client_id: String,
    #[command(flatten)]
    values: SettingValues,
    /// Also for later connections; the client may be absent
    #[arg(long)]
    sticky: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct UserSettingsArguments {
    /// The user name
    name: String,
    #[command(flatten)]
    values: SettingValues,
    #[command(flatten)]
    common: Common,
}

impl SettingValues {
    /// Returns the members of a JSON merge patch.
    fn patch(&self) -> Map<String, Value> {
        let all = [
            ("session_expiry_interval", self.session_expiry_interval),
            ("message_rate", self.message_rate),
            ("byte_rate", self.byte_rate),
            ("queue_messages_max", self.queue_messages_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("in_flight_max", self.in_flight_max),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((name, value?.0)));
        given.map(|(name, number)| (name.to_owned(), number.into())).collect()
    }
}

/// Runs a command about settings of clients.
pub(super) fn of_clients(command: &ClientSettingsCommand) -> Result<(), Failure> {
    match command {
        ClientSettingsCommand::List(arguments) => {
            list(arguments, "/api/v1/settings", &["CLIENT ID", "SETTINGS", "BY", "SET AT"])
        }
        ClientSettingsCommand::Show(owner) => show(owner, "/api/v1/client/settings?id"),
        ClientSettingsCommand::Set(arguments) => {
            let mut patch = arguments.values.patch();
            if arguments.sticky {
                patch.insert("sticky".into(), true.into());
            }
            let target = format!("/api/v1/client?id={}", encoded(&arguments.client_id));
            arguments.common.make("PATCH", &target, Some(&patch.into()))
        }
        ClientSettingsCommand::Remove(owner) => remove(owner, "/api/v1/client/settings?id"),
    }
}

/// Runs a command about settings of users.
pub(super) fn of_users(command: &UserSettingsCommand) -> Result<(), Failure> {
    match command {
        UserSettingsCommand::List(arguments) => {
            list(arguments, "/api/v1/user-settings", &["USER", "SETTINGS", "BY", "SET AT"])
        }
        UserSettingsCommand::Show(owner) => show(owner, "/api/v1/user/settings?username"),
        UserSettingsCommand::Set(arguments) => {
            let target = format!("/api/v1/user/settings?username={}", encoded(&arguments.name));
            arguments.common.make("PATCH", &target, Some(&arguments.values.patch().into()))
        }
        UserSettingsCommand::Remove(owner) => remove(owner, "/api/v1/user/settings?username"),
    }
}

fn list(
    arguments: &SettingsListArguments,
    path: &str,
    head: &'static [&'static str],
) -> Result<(), Failure> {
    arguments.common.list(path, arguments.limit, head, |item| {
        let owner = if item["username"].is_null() { "client_id" } else { "username" };
        let settings = item["settings"].as_object().into_iter().flatten();
        let settings = settings.map(|(name, value)| format!("{name}={value}"));
        let settings = settings.collect::<Vec<_>>().join(" ");
        vec![field(item, owner), settings, field(item, "by"), field(item, "set_at")]
    })
}

fn show(owner: &SettingsOwner, target: &str) -> Result<(), Failure> {
    owner.common.make("GET", &format!("{target}={}", encoded(&owner.name)), None)
}

fn remove(owner: &SettingsOwner, target: &str) -> Result<(), Failure> {
    owner.common.make("DELETE", &format!("{target}={}", encoded(&owner.name)), None)
}
