//! The broker that a command asks, and the account that it uses: from options, environment and a file.
//!
//! A password is never an argument, because other users of the machine see arguments.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde::Deserialize;

use super::http::{Remote, RemoteError};

/// Where a broker listens by default.
const URL: &str = "http://127.0.0.1:8080";
/// Holds the password.
const PASSWORD_VARIABLE: &str = "HEARTHMQ_REMOTE_PASSWORD";
/// Holds an API token, which goes before user and password.
const TOKEN_VARIABLE: &str = "HEARTHMQ_REMOTE_TOKEN";
/// Rights of a file that others have.
const OTHERS: u32 = 0o077;

/// The broker and the account.
#[derive(Args)]
pub(in crate::cli) struct RemoteOptions {
    /// The URL of the REST interface [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "HEARTHMQ_REMOTE_URL", global = true)]
    url: Option<String>,
    /// The user name. The password is that of HEARTHMQ_REMOTE_PASSWORD or of the account file, or is
    /// asked for
    #[arg(long, value_name = "NAME", env = "HEARTHMQ_REMOTE_USER", global = true)]
    user: Option<String>,
    /// A TOML file with url, user, password, token and ca, as far as they are not given otherwise. Only its
    /// owner may have permissions for it [default: ~/.config/hearthmq/remote.toml if it exists]
    #[arg(long, value_name = "FILE", env = "HEARTHMQ_REMOTE_FILE", global = true)]
    account_file: Option<PathBuf>,
    /// A PEM file with the certificates of the CAs that HTTPS trusts [default: those of the system]
    #[arg(long, value_name = "FILE", env = "HEARTHMQ_REMOTE_CA", global = true)]
    ca: Option<PathBuf>,
}

/// The contents of an account file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountFile {
    url: Option<String>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    ca: Option<PathBuf>,
}

impl RemoteOptions {
    /// Returns what asks the broker.
    pub(super) fn remote(&self) -> Result<Remote, RemoteError> {
        let file = match self.file() {
            Some(path) => read(&path)?,
            None => AccountFile::default(),
        };
        let url = self.url.clone().or(file.url).unwrap_or_else(|| URL.to_owned());
        let ca = self.ca.clone().or(file.ca);
        // An account that was named for this command goes before a token of the file.
        let in_file = file.token.filter(|_| self.user.is_none());
        if let Some(token) = std::env::var(TOKEN_VARIABLE).ok().or(in_file) {
            return Remote::new(&url, Some(&format!("Bearer {token}")), ca.as_deref());
        }
        let user = self.user.clone().or_else(|| file.user.clone()).ok_or(RemoteError::NoAccount)?;
        // The password of the file belongs to the account of the file, not to another one.
        let in_file = file.password.filter(|_| file.user.as_deref().is_none_or(|it| it == user));
        let password = match std::env::var(PASSWORD_VARIABLE).ok().or(in_file) {
            Some(password) => password,
            None if io::stdin().is_terminal() => {
                rpassword::prompt_password(format!("Password of {user}: "))?
            }
            None => return Err(RemoteError::NoPassword),
        };
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Remote::new(&url, Some(&basic), ca.as_deref())
    }

    /// Returns what asks the broker without an account. Reads no file, so that a container needs none.
    pub(super) fn stranger(&self) -> Result<Remote, RemoteError> {
        Remote::new(self.url.as_deref().unwrap_or(URL), None, self.ca.as_deref())
    }

    fn file(&self) -> Option<PathBuf> {
        let usual = || {
            let home = std::env::home_dir()?;
            let file = home.join(".config/hearthmq/remote.toml");
            file.exists().then_some(file)
        };
        self.account_file.clone().or_else(usual)
    }
}

fn read(path: &Path) -> Result<AccountFile, RemoteError> {
    let unusable = |why: String| RemoteError::AccountFile { path: path.to_owned(), why };
    let metadata = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if metadata.mode() & OTHERS != 0 {
        return Err(unusable("others have permissions for it; run chmod 600 on it".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    // The error of the parser shows the line, which may have the password.
    toml::from_str(&text).map_err(|error| unusable(error.message().to_owned()))
}
