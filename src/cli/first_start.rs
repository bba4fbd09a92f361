//! The first start: a data directory, an account, a policy, and what to try first.
//!
//! Called before anything listens, with the data directory locked. Whatever is there already is
//! left as it is.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use hearthmq::{
    auth::{FileError, generate_password, set_password},
    config::Config,
};

/// The account that the first start makes.
const USER: &str = "admin";

/// What that account may do, and examples of more.
const POLICY: &str = include_str!("first_policy.toml");

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FirstStartError {
    #[error(
        "{}: cannot be written: {source}; let the broker write there, or set data_dir",
        path.display()
    )]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Accounts(#[from] FileError),
}

/// Makes an account and a policy if there are no accounts yet; what to tell about them.
pub(super) fn make_account(config: &Config) -> Result<Option<String>, FirstStartError> {
    let (users, policy) = (config.users_file(), config.policy_file());
    if users.exists() {
        return Ok(None);
    }
    if !policy.exists() {
        fs::write(&policy, POLICY)
            .map_err(|source| FirstStartError::Unwritable { path: policy, source })?;
    }
    let password = generate_password();
    set_password(&users, USER, &password, config.auth.scram_keys())?;
    Ok(Some(welcome(config, &password)))
}

fn welcome(config: &Config, password: &str) -> String {
    let mut text = format!(
        "\nThis is the first start. An account was made; its password is shown only now:\n\n    \
         {USER}  {password}\n\n"
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
