//! `hearthmq passwd`: adds an account, or changes its password.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use clap::Args;
use hearthmq::auth::set_password;

use super::{Failure, Options, print};

#[derive(Args)]
pub(super) struct Arguments {
    /// The user name
    user: String,
    /// The file of accounts [default: what the configuration says]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let the user log in by SCRAM-SHA-256 too [default: if the configuration enables it]
    #[arg(long)]
    scram: bool,
    #[command(flatten)]
    options: Options,
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordError {
    #[error("the password cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the password is empty; give one")]
    Empty,
    #[error("the two passwords differ; nothing was changed")]
    Differ,
}

pub(super) fn passwd(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = arguments.options.load()?;
    config.auth.scram |= arguments.scram;
    let file = arguments.file.clone().unwrap_or_else(|| config.users_file());
    let password = read_password(&arguments.user)?;
    set_password(&file, &arguments.user, &password, config.auth.scram_keys())?;
    print(&format!(
        "{}: {} has this password now; a running broker reads the file at SIGHUP\n",
        file.display(),
        arguments.user,
    ))
}

/// Twice from a terminal, so that a slip shows; else the first line of standard input.
fn read_password(user: &str) -> Result<String, PasswordError> {
    let password = if io::stdin().is_terminal() {
        io::stdout().flush()?;
        let password = rpassword::prompt_password(format!("Password of {user}: "))?;
        if rpassword::prompt_password("Once more: ")? != password {
            return Err(PasswordError::Differ);
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    Ok(password)
}
