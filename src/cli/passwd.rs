//! `hearthmq passwd`: adds, changes, disables and removes accounts, and lists them.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use hearthmq::auth::{
    Accounts, UserNameError, check_user_name, remove_user, set_disabled, set_password,
};

use super::{
    Failure, Options,
    files::{make_file, make_parent},
    first_start::POLICY,
    print, warn,
};

/// MQTT cannot carry a longer password.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// A shorter password is accepted with a warning.
const PASSWORD_CHARS_ENOUGH: usize = 8;

#[derive(Args)]
#[command(after_help = super::PLACES)]
pub(super) struct Arguments {
    /// The user name
    #[arg(required_unless_present = "list")]
    user: Option<String>,
    /// Remove the account from the file
    #[arg(long, group = "task")]
    delete: bool,
    /// Keep the account, but refuse its logins
    #[arg(long, group = "task")]
    disable: bool,
    /// Let a disabled account log in again
    #[arg(long, group = "task")]
    enable: bool,
    /// List the accounts: name, enabled or disabled, and how they may log in
    #[arg(long, group = "task", conflicts_with = "user")]
    list: bool,
    /// The accounts file [default: as configured]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let the user log in by SCRAM-SHA-256 too [default: if the configuration enables it]
    #[arg(long, conflicts_with = "task")]
    scram: bool,
    #[command(flatten)]
    options: Options,
}

/// Why a password or user name was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordError {
    #[error("the password cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the password is empty; give one")]
    Empty,
    #[error(
        "the password is longer than 65,535 bytes, which MQTT cannot carry; give a shorter one"
    )]
    TooLong,
    #[error("the two passwords differ; nothing was changed")]
    Differ,
    #[error("{name:?} cannot be a user name: {source}")]
    Name { name: String, source: UserNameError },
}

pub(super) fn passwd(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.options.load()?;
    let file = arguments.file.clone().unwrap_or_else(|| config.users_file());
    let Some(user) = &arguments.user else {
        return list(&file);
    };
    let outcome = if arguments.delete {
        remove_user(&file, user)?;
        "was removed"
    } else if arguments.disable {
        set_disabled(&file, user, true)?;
        "is disabled"
    } else if arguments.enable {
        set_disabled(&file, user, false)?;
        "is enabled"
    } else {
        // Before the password is asked for.
        check_user_name(user)
            .map_err(|source| PasswordError::Name { name: user.clone(), source })?;
        make_parent(&file)?;
        // A file of another place belongs to another broker, whose policy is not known.
        if arguments.file.is_none() {
            let policy = config.policy_file();
            make_parent(&policy)?;
            if make_file(&policy, POLICY, 0o644)? {
                print(&format!(
                    "{}: created; it defines what accounts may do\n",
                    policy.display()
                ))?;
            }
        }
        let mut auth = config.auth;
        auth.scram |= arguments.scram;
        let password = read_password(user)?;
        set_password(&file, user, &password, auth.scram_keys())?;
        warn_of_weakness(user, &password);
        "has the new password"
    };
    let is_disabled = Accounts::open(&file)?.get(user).is_some_and(|user| user.is_disabled);
    let still = if is_disabled && !arguments.disable { ", and is still disabled" } else { "" };
    print(&format!(
        "{}: {user} {outcome}{still}; a running broker reads the file at SIGHUP\n",
        file.display(),
    ))
}

/// Prints a line for each account, with tabs between its columns.
fn list(file: &Path) -> Result<(), Failure> {
    let accounts = Accounts::open(file)?;
    let lines = accounts.iter().map(|user| {
        let state = if user.is_disabled { "disabled" } else { "enabled" };
        let logins = if user.scram.is_some() { "password,scram" } else { "password" };
        format!("{}\t{state}\t{logins}\n", user.name)
    });
    print(&lines.collect::<String>())
}

/// Reads the password: twice from a terminal, so that a typing error is noticed, else the first
/// line of standard input.
pub(super) fn read_password(user: &str) -> Result<String, PasswordError> {
    let password = if io::stdin().is_terminal() {
        // The prompt goes to the terminal directly, so text before it must be out.
        io::stdout().flush()?;
        let password = rpassword::prompt_password(format!("Password of {user}: "))?;
        if rpassword::prompt_password("Once more: ")? != password {
            return Err(PasswordError::Differ);
        }
        password
    } else {
        let mut line = String::new();
        // Reads the line end too, and one byte more, to notice a password that is too long.
        io::stdin().lock().take(PASSWORD_BYTES_MAX as u64 + 3).read_line(&mut line)?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    match password.len() {
        0 => Err(PasswordError::Empty),
        1..=PASSWORD_BYTES_MAX => Ok(password),
        _ => Err(PasswordError::TooLong),
    }
}

/// Warns on standard error of properties that cause trouble later.
fn warn_of_weakness(user: &str, password: &str) {
    let chars = password.chars().count();
    if chars < PASSWORD_CHARS_ENOUGH {
        warn(&format!(
            "the password has {chars} characters, which is easy to guess; give a longer one"
        ));
    }
    if password.chars().any(char::is_control) {
        warn("the password contains a control character, which HTTP Basic cannot send");
    }
    if user.contains(['/', '+', '#']) {
        warn(&format!(
            "{user:?} contains / or a wildcard, so it cannot be a level of a topic: a rule with \
             ${{username}} in its topics allows it nothing"
        ));
    }
    // A space is easily overlooked, and a login without it fails.
    if user.trim() != user {
        warn(&format!("{user:?} begins or ends with a space"));
    }
}
