//! Answers the question of a NATS server for a login, from files that are read for each connection.
//!
//! Knows the forms of the files; does not know when a connection is made. Called by `link`.

use std::{fs, io, path::Path};

use async_nats::Auth;
use nkeys::KeyPair;

use super::settings::NatsLogin;

/// Why there is no login. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum NatsLoginError {
    /// The file cannot be read.
    #[error("read {0}: {1}")]
    Unreadable(String, io::Error),
    /// The file does not have the form that its option names.
    #[error("use {0}: it has no {1}")]
    Malformed(String, &'static str),
}

impl NatsLogin {
    /// Returns the login that proves itself by this nonce of the server.
    pub(super) fn answer(&self, nonce: &[u8]) -> Result<Auth, NatsLoginError> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::Password { user, password_file } => {
                auth.username = Some(user.clone());
                auth.password = Some(secret(password_file)?);
            }
            Self::Token(file) => auth.token = Some(secret(file)?),
            Self::Nkey(file) => {
                let key = key(file, &secret(file)?)?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(signature(file, &key, nonce)?);
            }
            Self::Credentials(file) => {
                let text = secret(file)?;
                let missing = |what| NatsLoginError::Malformed(name(file), what);
                // The token says which user it is; the seed proves it.
                let token = block(&text, "NATS USER JWT").ok_or_else(|| missing("user token"))?;
                let seed = block(&text, "USER NKEY SEED").ok_or_else(|| missing("seed"))?;
                auth.jwt = Some(token.to_owned());
                auth.signature = Some(signature(file, &key(file, seed)?, nonce)?);
            }
        }
        Ok(auth)
    }
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn secret(file: &Path) -> Result<String, NatsLoginError> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| NatsLoginError::Unreadable(name(file), error))?;
    let text = text.trim();
    match text.is_empty() {
        true => Err(NatsLoginError::Malformed(name(file), "content")),
        false => Ok(text.to_owned()),
    }
}

fn key(file: &Path, seed: &str) -> Result<KeyPair, NatsLoginError> {
    KeyPair::from_seed(seed).map_err(|_| NatsLoginError::Malformed(name(file), "seed of an NKey"))
}

fn signature(file: &Path, key: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, NatsLoginError> {
    key.sign(nonce).map_err(|_| NatsLoginError::Malformed(name(file), "key that signs"))
}

/// Returns the line between the marks of a block of a credentials file.
fn block<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains(&format!("BEGIN {title}")))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"))
}

#[cfg(test)]
mod tests;
