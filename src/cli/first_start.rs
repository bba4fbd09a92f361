//! The first start: creates a data directory, an account and a policy, and shows what to try first.
//!
//! Existing files are left alone. If only a part of the files is missing, the broker does not
//! create that part: a file system that is mounted late must not give the broker a new account with
//! all rights.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use hearthmq::{
    auth::{FileError, generate_password, set_password},
    config::Config,
    net::tls::ClientAuth,
    store::DirectoryStore,
};

use super::files::{Unwritable, make_file, make_parent, put_private};

/// The account that the first start creates.
const USER: &str = "admin";

/// The permissions of that account, and examples of more.
pub(super) const POLICY: &str = include_str!("first_policy.toml");

/// An accounts file for a broker that needs no accounts.
const NO_ACCOUNTS: &str = "# No accounts yet: `hearthmq passwd NAME` adds one.\n";

/// Environment variables for the first password, or for the name of a file that contains it.
const PASSWORD: &str = "HEARTHMQ_ADMIN_PASSWORD";
const PASSWORD_FILE: &str = "HEARTHMQ_ADMIN_PASSWORD_FILE";

/// File in the data directory for a generated password, which must not appear in the journal.
const GENERATED: &str = "admin-password";

/// MQTT cannot carry a longer one.
const PASSWORD_BYTES_MAX: u64 = 65_535;

/// Why the broker has no accounts or policy to start with.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirstStartError {
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    #[error(
        "{}: cannot be examined: {source}; let the broker read the directory",
        path.display()
    )]
    Unknown { path: PathBuf, source: io::Error },
    #[error(
        "{}: the accounts file is missing, but {} exists, so this is not a first start; restore \
         the file, see data_dir and auth.users, or create an account with `hearthmq passwd NAME`",
        users.display(), found.display()
    )]
    NoAccounts { users: PathBuf, found: PathBuf },
    #[error(
        "{policy}: the permissions file is missing, but {} exists, so this is not a first start; \
         restore the file, see data_dir and auth.policy, or create one: `hearthmq example-policy > \
         {policy}`",
        found.display(), policy = policy.display()
    )]
    NoPolicy { policy: PathBuf, found: PathBuf },
    #[error("{variable}: {problem}; give the password of the first account, or unset it")]
    Password { variable: &'static str, problem: String },
    #[error(transparent)]
    Accounts(#[from] FileError),
}

/// The files that a start must create before it can go on.
pub(super) enum Missing {
    Nothing,
    /// Only the accounts file, as clients may connect without an account.
    Accounts,
    /// All files: this is the first start.
    All(Password),
}

/// The password of the first account.
pub(super) enum Password {
    Given { password: String, variable: &'static str },
    ToBeMade,
}

/// Finds the missing files; creates nothing.
pub(super) fn examine(config: &Config) -> Result<Missing, FirstStartError> {
    let (users, policy) = (config.users_file(), config.policy_file());
    let there = |path: &Path| match path.try_exists() {
        // The store reports a data directory that is not a directory, in better words.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|source| FirstStartError::Unknown { path: path.to_owned(), source }),
    };
    let store = config.data_dir.clone();
    let has_store = DirectoryStore::exists(&store);
    match (there(&users)?, there(&policy)?) {
        (true, true) => Ok(Missing::Nothing),
        // A missing part is not created: it may be on a file system that is not mounted yet.
        (true, false) => Err(FirstStartError::NoPolicy { policy, found: users }),
        (false, true) if needs_no_accounts(config) => Ok(Missing::Accounts),
        (false, true) => Err(FirstStartError::NoAccounts { users, found: policy }),
        // Sessions without accounts: the files were lost, or the options name other ones.
        (false, false) if has_store => {
            let found = store.join("store");
            Err(FirstStartError::NoAccounts { users, found })
        }
        (false, false) => first_password().map(Missing::All),
    }
}

fn needs_no_accounts(config: &Config) -> bool {
    let by_certificate =
        config.tls.client_auth != ClientAuth::None && config.auth.certificate_is_enough;
    config.auth.anonymous || by_certificate
}

pub(super) fn first_password() -> Result<Password, FirstStartError> {
    let fault = |variable, problem: &dyn ToString| FirstStartError::Password {
        variable,
        problem: problem.to_string(),
    };
    let (variable, text) = match (env::var_os(PASSWORD_FILE), env::var_os(PASSWORD)) {
        (None, None) => return Ok(Password::ToBeMade),
        // With two, it would be open which password the account gets.
        (Some(_), Some(_)) => {
            return Err(fault(PASSWORD_FILE, &format!("{PASSWORD} is also set")));
        }
        (Some(path), None) => {
            let named = |error: io::Error| {
                fault(PASSWORD_FILE, &format!("{} cannot be read: {error}", path.display()))
            };
            let mut text = String::new();
            let file = fs::File::open(&path).map_err(named)?;
            // The line end too, and one byte more, to notice a password that is too long.
            file.take(PASSWORD_BYTES_MAX + 2).read_to_string(&mut text).map_err(named)?;
            (PASSWORD_FILE, text)
        }
        (None, Some(text)) => {
            (PASSWORD, text.into_string().map_err(|_| fault(PASSWORD, &"it is not UTF-8"))?)
        }
    };
    // An editor ends the file with a line end, which is not part of the password.
    let password = text.lines().next().unwrap_or_default();
    match password.len() as u64 {
        0 => Err(fault(variable, &"the password is empty")),
        1..=PASSWORD_BYTES_MAX => Ok(Password::Given { password: password.to_owned(), variable }),
        _ => Err(fault(variable, &"the password is longer than 65,535 bytes")),
    }
}

/// Creates the missing files. Returns what to print about them, if anything.
pub(super) fn make(config: &Config, missing: Missing) -> Result<Option<String>, FirstStartError> {
    let (users, policy) = (config.users_file(), config.policy_file());
    let password = match missing {
        Missing::Nothing => return Ok(None),
        Missing::Accounts => {
            make_parent(&users)?;
            make_file(&users, NO_ACCOUNTS, 0o600)?;
            tracing::warn!(
                users = %users.display(),
                "created an accounts file without accounts; only clients that need none can connect"
            );
            return Ok(None);
        }
        Missing::All(password) => password,
    };
    make_parent(&policy)?;
    make_parent(&users)?;
    // Before the account: a crash in between leaves a state that the next start refuses.
    make_file(&policy, POLICY, 0o644)?;
    let (password, variable) = match password {
        Password::Given { password, variable } => (password, Some(variable)),
        Password::ToBeMade => (generate_password(), None),
    };
    // A journal keeps what is printed, and other users
    // may read it, so the password goes into a file.
    let is_journal = env::var_os("JOURNAL_STREAM").is_some() && !io::stdout().is_terminal();
    let kept = config.data_dir.join(GENERATED);
    if variable.is_none() && is_journal {
        // Before the account exists, so that it never has a password that nobody knows.
        put_private(&kept, &format!("{password}\n"))?;
    }
    set_password(&users, USER, &password, config.auth.scram_keys())?;
    let (users, policy) = (users.display(), policy.display());
    match variable {
        Some(variable) => tracing::info!(
            %users, %policy,
            "first start: created the account {USER} with the password of {variable}"
        ),
        None if is_journal => tracing::info!(
            %users, %policy,
            "first start: created the account {USER}; its password is in {}: read it, then delete \
             the file",
            kept.display()
        ),
        None => return Ok(Some(welcome(config, &password))),
    }
    Ok(None)
}

fn welcome(config: &Config, password: &str) -> String {
    let mut text = format!(
        "\nThis is the first start. An account was created; its password is shown only now:\n\n    \
         {USER}  {password}\n\n\
         Accounts are in {}: `hearthmq passwd NAME` adds one.\n\
         Their permissions are in {}.\n\n",
        config.users_file().display(),
        config.policy_file().display(),
    );
    let usable = |addresses: &[SocketAddr]| addresses.iter().find(|at| at.port() != 0).copied();
    // Examples need both, with ports that are known in advance.
    if let (Some(mqtt), Some(http)) = (usable(&config.mqtt.tcp), usable(&config.http.listen)) {
        let mqtt = reachable(mqtt);
        let url = format!("http://{}", reachable(http));
        let login = format!("-u '{USER}:{password}'");
        text.push_str(&format!(
            "Connect a client, ask whether it is online, and change its Keep Alive:\n\n    \
             mosquitto_sub -h {host} -p {port} -i demo -u {USER} -P '{password}' -t 'hello/#' -v & \
             sleep 1\n    \
             curl {login} '{url}/client-id/demo/status'\n    \
             curl {login} -X POST '{url}/keep-alive?client-id=demo&interval=120'\n\n",
            host = mqtt.ip(),
            port = mqtt.port(),
        ));
        // Over plain HTTP, the console has a login on this machine only.
        if reachable(http).ip().is_loopback() {
            text.push_str(&format!("Or log in to the console: {url}/console\n\n"));
        }
    }
    text
}

/// Returns the address at which a caller on this machine reaches a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listener.port())
}
