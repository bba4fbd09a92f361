//! The first start: a data directory, an account, a policy, and what to try first.
//!
//! Whatever is there already is left as it is, and where something is missing beside what is there
//! nothing is made up for it: a file system that is mounted late must not give the broker a new
//! account with all rights.

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

use super::files::{make_file, make_parent, put_private};

/// The account that the first start makes.
const USER: &str = "admin";

/// What that account may do, and examples of more.
pub(super) const POLICY: &str = include_str!("first_policy.toml");

/// A file of accounts for a broker that needs none.
const NO_ACCOUNTS: &str = "# No accounts yet: `hearthmq passwd NAME` adds one.\n";

/// Variables that may hold the first password, or name the file that does.
const PASSWORD: &str = "HEARTHMQ_ADMIN_PASSWORD";
const PASSWORD_FILE: &str = "HEARTHMQ_ADMIN_PASSWORD_FILE";

/// Where a generated password goes instead of the journal, in the data directory.
const GENERATED: &str = "admin-password";

/// MQTT carries no longer ones.
const PASSWORD_BYTES_MAX: u64 = 65_535;

/// Why there is nothing to start with.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirstStartError {
    #[error(
        "{}: cannot be written: {source}; let the broker write there, or set data_dir",
        path.display()
    )]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "{}: cannot be looked for: {source}; let the broker read the directory",
        path.display()
    )]
    Unknown { path: PathBuf, source: io::Error },
    #[error(
        "{}: there is no file of accounts, but {} is there, so this is no first start; put the file \
         back, see data_dir and auth.users, or make an account with `hearthmq passwd NAME`",
        users.display(), found.display()
    )]
    NoAccounts { users: PathBuf, found: PathBuf },
    #[error(
        "{policy}: there is no file of permissions, but {} is there, so this is no first start; put \
         the file back, see data_dir and auth.policy, or write one: `hearthmq example-policy > \
         {policy}`",
        found.display(), policy = policy.display()
    )]
    NoPolicy { policy: PathBuf, found: PathBuf },
    #[error("{variable}: {problem}; give the password of the first account, or unset it")]
    Password { variable: &'static str, problem: String },
    #[error(transparent)]
    Accounts(#[from] FileError),
}

/// What a start has to make before it can go on.
pub(super) enum Missing {
    Nothing,
    /// A file without accounts, as clients come in without them.
    Accounts,
    /// Everything: this is the first start.
    All(Password),
}

/// The password of the first account.
pub(super) enum Password {
    Given { password: String, variable: &'static str },
    ToBeMade,
}

/// Looks at what is there; makes nothing.
pub(super) fn examine(config: &Config) -> Result<Missing, FirstStartError> {
    let (users, policy) = (config.users_file(), config.policy_file());
    let there = |path: &Path| match path.try_exists() {
        // The store says more of a data directory that is none.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|source| FirstStartError::Unknown { path: path.to_owned(), source }),
    };
    let store = config.data_dir.clone();
    let has_store = DirectoryStore::exists(&store);
    match (there(&users)?, there(&policy)?) {
        (true, true) => Ok(Missing::Nothing),
        (true, false) => Err(FirstStartError::NoPolicy { policy, found: users }),
        (false, true) if needs_no_accounts(config) => Ok(Missing::Accounts),
        (false, true) => Err(FirstStartError::NoAccounts { users, found: policy }),
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

fn first_password() -> Result<Password, FirstStartError> {
    let fault = |variable, problem: &dyn ToString| FirstStartError::Password {
        variable,
        problem: problem.to_string(),
    };
    let (variable, text) = match (env::var_os(PASSWORD_FILE), env::var_os(PASSWORD)) {
        (None, None) => return Ok(Password::ToBeMade),
        (Some(_), Some(_)) => {
            return Err(fault(PASSWORD_FILE, &format!("{PASSWORD} is given as well")));
        }
        (Some(path), None) => {
            let named = |error: io::Error| {
                fault(PASSWORD_FILE, &format!("{} cannot be read: {error}", path.display()))
            };
            let mut text = String::new();
            let file = fs::File::open(&path).map_err(named)?;
            file.take(PASSWORD_BYTES_MAX + 2).read_to_string(&mut text).map_err(named)?;
            (PASSWORD_FILE, text)
        }
        (None, Some(text)) => {
            (PASSWORD, text.into_string().map_err(|_| fault(PASSWORD, &"it is no UTF-8"))?)
        }
    };
    let password = text.lines().next().unwrap_or_default();
    match password.len() as u64 {
        0 => Err(fault(variable, &"the password is empty")),
        1..=PASSWORD_BYTES_MAX => Ok(Password::Given { password: password.to_owned(), variable }),
        _ => Err(fault(variable, &"the password is longer than 65,535 bytes")),
    }
}

/// Makes what is missing. What to print about it, once.
pub(super) fn make(config: &Config, missing: Missing) -> Result<Option<String>, FirstStartError> {
    let (users, policy) = (config.users_file(), config.policy_file());
    let password = match missing {
        Missing::Nothing => return Ok(None),
        Missing::Accounts => {
            make_parent(&users)?;
            make_file(&users, NO_ACCOUNTS, 0o600)?;
            tracing::warn!(
                users = %users.display(),
                "there were no accounts; only clients that need none can come in"
            );
            return Ok(None);
        }
        Missing::All(password) => password,
    };
    make_parent(&policy)?;
    make_parent(&users)?;
    make_file(&policy, POLICY, 0o644)?;
    let (password, variable) = match password {
        Password::Given { password, variable } => (password, Some(variable)),
        Password::ToBeMade => (generate_password(), None),
    };
    let is_journal = env::var_os("JOURNAL_STREAM").is_some() && !io::stdout().is_terminal();
    let kept = config.data_dir.join(GENERATED);
    if variable.is_none() && is_journal {
        put_private(&kept, &format!("{password}\n"))?;
    }
    set_password(&users, USER, &password, config.auth.scram_keys())?;
    let (users, policy) = (users.display(), policy.display());
    match variable {
        Some(variable) => tracing::info!(
            %users, %policy,
            "first start: the account {USER} was made with the password of {variable}"
        ),
        None if is_journal => tracing::info!(
            %users, %policy,
            "first start: the account {USER} was made; its password is in {}: read it, then delete \
             the file",
            kept.display()
        ),
        None => return Ok(Some(welcome(config, &password))),
    }
    Ok(None)
}

fn welcome(config: &Config, password: &str) -> String {
    let mut text = format!(
        "\nThis is the first start. An account was made; its password is shown only now:\n\n    \
         {USER}  {password}\n\n\
         Accounts are in {}: `hearthmq passwd NAME` adds one.\n\
         What they may do is in {}.\n\n",
        config.users_file().display(),
        config.policy_file().display(),
    );
    let usable = |addresses: &[SocketAddr]| addresses.iter().find(|at| at.port() != 0).copied();
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
    }
    text
}

/// Where a caller on this machine reaches a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listener.port())
}
