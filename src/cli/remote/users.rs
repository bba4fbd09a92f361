//! `hearthmq users`: the accounts in the store of a running broker.

mod transfer;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::transfer::{ExportArguments, ImportArguments};
use super::{
    OutputOptions, Remote, RemoteOptions, encoded, query,
    settings::{self, UserSettingsCommand},
    table::{TextTable, field, write_json, write_object},
};
use crate::cli::{Failure, passwd};

/// Number of accounts of one page.
const PAGE: usize = 1_000;

/// Commands about accounts.
#[derive(Subcommand)]
pub(in crate::cli) enum UsersCommand {
    /// List accounts
    List(UserListArguments),
    /// Show an account
    Show(OneUser),
    /// Create an account
    Add(AddArguments),
    /// Set the password of an account (asked for, or read from standard input)
    Password(OneUser),
    /// Make a device secret for an account and print it, or remove one
    Secret(SecretArguments),
    /// Refuse logins with an account; its clients are disconnected
    Disable(OneUser),
    /// Let a disabled account log in again
    Enable(OneUser),
    /// Remove an account; its clients are disconnected, and their sessions end
    Delete(OneUser),
    /// Create accounts from lines of JSON
    Import(ImportArguments),
    /// Write all accounts with their hashes as lines of JSON
    Export(ExportArguments),
    /// Rates, limits and the session expiry of all clients of a user
    #[command(subcommand)]
    Settings(UserSettingsCommand),
}

#[derive(Args)]
pub(in crate::cli) struct UserListArguments {
    /// Stop after this number of accounts
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct OneUser {
    /// The user name
    name: String,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct AddArguments {
    /// The user name
    name: String,
    /// Give the account a password (asked for, or read from standard input)
    #[arg(long)]
    password: bool,
    /// Make a device secret for it and print it
    #[arg(long)]
    secret: bool,
    /// A group of the user; may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// An attribute of the user; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct SecretArguments {
    /// The user name
    name: String,
    /// Remove the secret with this id, and make none
    #[arg(long, value_name = "ID")]
    remove: Option<String>,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("an attribute is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(command: UsersCommand) -> Result<(), Failure> {
    match command {
        UsersCommand::List(arguments) => list(&arguments),
        UsersCommand::Show(user) => show(&user),
        UsersCommand::Add(arguments) => add(&arguments),
        UsersCommand::Password(user) => password(&user),
        UsersCommand::Secret(arguments) => secret(&arguments),
        UsersCommand::Disable(user) => set_disabled(&user, true),
        UsersCommand::Enable(user) => set_disabled(&user, false),
        UsersCommand::Delete(user) => delete(&user),
        UsersCommand::Import(arguments) => transfer::import(&arguments),
        UsersCommand::Export(arguments) => transfer::export(&arguments),
        UsersCommand::Settings(command) => settings::of_users(&command),
    }
}

/// Returns the target of a call about an account; `call` is the rest of its path.
fn target(call: &str, name: &str) -> String {
    format!("/api/v1/user{call}?name={}", encoded(name))
}

/// Returns a body.
fn body(value: &Value) -> super::http::SentBody<'static> {
    Some(("application/json", value.to_string().into_bytes()))
}

fn list(arguments: &UserListArguments) -> Result<(), Failure> {
    let remote = arguments.remote.remote()?;
    let is_json = arguments.output.is_json();
    // JSON is written page by page; a table needs all rows for the widths of its columns.
    let mut table =
        TextTable::new(&["USER", "DISABLED", "PASSWORD", "SECRETS", "GROUPS", "CREATED AT"]);
    let (mut left, mut cursor) = (arguments.limit, None);
    while left > 0 {
        let page = query(&[("cursor", cursor)]);
        let answer = remote.get(&format!("/api/v1/users?limit={}{page}", left.min(PAGE)))?;
        for user in answer["items"].as_array().into_iter().flatten() {
            left = left.saturating_sub(1);
            if is_json {
                write_json(user)?;
                continue;
            }
            let secrets = user["secrets"].as_array().map_or(0, Vec::len).to_string();
            let groups = user["groups"].as_array().into_iter().flatten();
            let groups: Vec<_> = groups.filter_map(Value::as_str).collect();
            let text = |name| field(user, name);
            let columns = [text("name"), text("disabled"), text("password"), secrets];
            table.add(columns.into_iter().chain([groups.join(","), text("created_at")]));
        }
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if !is_json {
        table.write()?;
    }
    Ok(())
}

fn show(user: &OneUser) -> Result<(), Failure> {
    let shown = user.remote.remote()?.get(&target("", &user.name))?;
    write(&shown, &user.output)
}

fn write(value: &Value, output: &OutputOptions) -> Result<(), Failure> {
    match output.is_json() {
        true => write_json(value)?,
        false => write_object(value)?,
    }
    Ok(())
}

fn add(arguments: &AddArguments) -> Result<(), Failure> {
    let mut user = Map::new();
    user.insert("name".into(), arguments.name.as_str().into());
    if arguments.password {
        user.insert("password".into(), passwd::read_password(&arguments.name)?.into());
    }
    user.insert("groups".into(), json!(arguments.group));
    let attributes = arguments.attribute.iter();
    let attributes = attributes.map(|(name, value)| (name.clone(), value.as_str().into()));
    user.insert("attributes".into(), Value::Object(attributes.collect()));
    let remote = arguments.remote.remote()?;
    let created = remote.ask("POST", "/api/v1/users", body(&Value::Object(user)))?;
    if arguments.secret {
        return make_secret(&remote, &arguments.name, &arguments.output);
    }
    write(&created["user"], &arguments.output)
}

fn password(user: &OneUser) -> Result<(), Failure> {
    let remote = user.remote.remote()?;
    let password = json!({ "password": passwd::read_password(&user.name)? });
    let target = target("/password", &user.name);
    let changed = remote.ask("PUT", &target, body(&password))?;
    told(&format!("{} has the new password", user.name), &changed, &user.output)
}

fn secret(arguments: &SecretArguments) -> Result<(), Failure> {
    let remote = arguments.remote.remote()?;
    let Some(id) = &arguments.remove else {
        return make_secret(&remote, &arguments.name, &arguments.output);
    };
    let target = format!("{}&id={}", target("/secret", &arguments.name), encoded(id));
    let changed = remote.ask("DELETE", &target, None)?;
    told(&format!("secret {id} of {} was removed", arguments.name), &changed, &arguments.output)
}

/// Makes a device secret, and writes it alone, so that a script can take it.
fn make_secret(remote: &Remote, name: &str, output: &OutputOptions) -> Result<(), Failure> {
    let made = remote.ask("POST", &target("/secrets", name), None)?;
    if output.json {
        return Ok(write_json(&made)?);
    }
    crate::cli::note(&format!("secret {} of {name}; nobody can show it again", field(&made, "id")));
    crate::cli::print(&format!("{}\n", field(&made, "secret")))
}

fn set_disabled(user: &OneUser, is_disabled: bool) -> Result<(), Failure> {
    let patch = json!({ "disabled": is_disabled });
    let changed = user.remote.remote()?.ask("PATCH", &target("", &user.name), body(&patch))?;
    let state = if is_disabled { "disabled" } else { "enabled" };
    told(&format!("{} is {state}", user.name), &changed, &user.output)
}

fn delete(user: &OneUser) -> Result<(), Failure> {
    let removed = user.remote.remote()?.ask("DELETE", &target("", &user.name), None)?;
    told(&format!("{} was removed", user.name), &removed, &user.output)
}

/// Writes what a change has done.
fn told(what: &str, changed: &Value, output: &OutputOptions) -> Result<(), Failure> {
    if output.is_json() {
        return Ok(write_json(changed)?);
    }
    let touched = changed["sessions_touched"].as_u64().unwrap_or_default();
    crate::cli::print(&format!("{what}; sessions touched: {touched}\n"))
}
