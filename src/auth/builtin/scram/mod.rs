//! SCRAM-SHA-256 over the accounts file: RFC 5802 and RFC 7677, without channel binding.
//!
//! The client proves that it knows the password without sending it, and the broker proves that it
//! knows the account. Knows the steps of the exchange. The [`FileAuthenticator`] has the accounts,
//! counts failures and checks a certificate beside it, as for passwords. A name without an account,
//! or without keys, gets a salt and then a failure like any other name.

mod message;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use self::message::{ClientFinal, ClientFirst, MessageError, server_final, server_first};
use super::{
    FileAuthenticator,
    authenticator::{Presented, ScramLogin},
    keys::MECHANISM,
};
use crate::auth::{
    AuthenticationError, Authenticator, EnhancedAuthenticator, Exchange, ExchangeStart, Identity,
    Standing, Step,
};
use crate::told::cut;

/// Random bytes of the server's nonce; enough to be unique.
const NONCE_BYTES: usize = 18;

/// The method SCRAM-SHA-256 for the accounts of a [`FileAuthenticator`].
///
/// The identity is that of the account. A User Name in CONNECT and a client certificate must name
/// the same user; a Password is ignored.
#[derive(Clone, Debug)]
pub struct ScramSha256 {
    accounts: Arc<FileAuthenticator>,
    is_withdrawn: Arc<AtomicBool>,
}

impl ScramSha256 {
    /// Creates the method for these accounts; those without SCRAM keys cannot log in by it.
    #[must_use]
    pub fn new(accounts: Arc<FileAuthenticator>) -> Self {
        Self { accounts, is_withdrawn: Arc::default() }
    }

    /// Changes, for this method and its clones, whether clients may log in by it.
    /// [`Broker::recheck`] then disconnects clients that have; they may return with another method.
    ///
    /// [`Broker::recheck`]: crate::Broker::recheck
    pub fn set_offered(&self, is_offered: bool) {
        self.is_withdrawn.store(!is_offered, Ordering::Relaxed);
    }
}

impl EnhancedAuthenticator for ScramSha256 {
    fn knows(&self, method: &str) -> bool {
        method == MECHANISM && !self.is_withdrawn.load(Ordering::Relaxed)
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(ScramExchange {
            accounts: Arc::clone(&self.accounts),
            shown: Presented::from(&start.credentials),
            may_pass: start.credentials.may_pass,
            state: State::Begins,
        })
    }

    fn generation(&self) -> u64 {
        Authenticator::generation(&*self.accounts)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        match self.knows(MECHANISM) {
            true => Authenticator::standing(&*self.accounts, identity, since),
            false => Standing::Suspended,
        }
    }
}

/// The state of an exchange.
///
/// ```text
///   Begins ──client-first / server-first──► Challenged ──client-final / server-final──► Over
///     └──nothing / nothing──► Begins
/// ```
///
/// Any other message ends the exchange.
enum State {
    /// The client's first message is expected: in CONNECT, or in answer to an empty AUTH.
    Begins,
    /// The client must prove that it knows the password.
    Challenged(Box<Challenge>),
    Over,
}

/// The data that the client's proof is checked against.
struct Challenge {
    login: ScramLogin,
    gs2_header: String,
    /// The client's nonce followed by the server's.
    nonce: String,
    /// The client's first message without its header, then the server's.
    signed: String,
}

struct ScramExchange {
    accounts: Arc<FileAuthenticator>,
    shown: Presented,
    /// Whether another authenticator may know the user.
    may_pass: bool,
    state: State,
}

#[async_trait]
impl Exchange for ScramExchange {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        match (std::mem::replace(&mut self.state, State::Over), data) {
            (State::Begins, None) => {
                self.state = State::Begins;
                Ok(Step::Continue(None))
            }
            (State::Begins, Some(message)) => self.challenge(message, &server_nonce()),
            (State::Challenged(challenge), Some(message)) => self.verify(&challenge, message).await,
            (State::Challenged(_), None) | (State::Over, _) => {
                Err(AuthenticationError::BadCredentials)
            }
        }
    }
}

impl ScramExchange {
    fn challenge(&mut self, message: &[u8], nonce: &str) -> Result<Step, AuthenticationError> {
        let first = ClientFirst::parse(message)?;
        if first.authorization.is_some_and(|other| other != first.username) {
            return Err(AuthenticationError::NotAllowed); // No user may act as another one.
        }
        // Also answers for names without an account, with a salt that stays the same for each name.
        let login = self.accounts.scram_login(&first.username);
        if self.may_pass && !login.has_account {
            return Err(AuthenticationError::NotMine);
        }
        let nonce = format!("{}{nonce}", first.nonce);
        let answer = server_first(&nonce, &login.keys.salt, login.keys.iterations());
        self.state = State::Challenged(Box::new(Challenge {
            login,
            gs2_header: first.gs2_header.to_owned(),
            nonce,
            signed: format!("{},{answer}", first.bare),
        }));
        Ok(Step::Continue(Some(answer.into_bytes())))
    }

    async fn verify(
        &self,
        challenge: &Challenge,
        message: &[u8],
    ) -> Result<Step, AuthenticationError> {
        let Challenge { login, gs2_header, nonce, signed } = challenge;
        let ScramLogin { name, keys, is_decoy, has_account } = login;
        let last = ClientFinal::parse(message)?;
        let accounts = &self.accounts;
        let who = accounts.wait_for_turn(&self.shown, name).await?;
        // Computed in any case, so that the time does not tell which part of the message is wrong.
        let signature = keys.verify(&format!("{signed},{}", last.without_proof), &last.proof);
        let is_ours = last.nonce == nonce && last.channel_binding == gs2_header.as_bytes();
        let right = signature.filter(|_| is_ours && !is_decoy);
        // Every wrong proof counts, even if the wrong password is the same. A wrong proof cannot be
        // recognized: it contains signatures of this exchange with two keys, and one of them is unknown.
        accounts.write_down(&who, right.is_some());
        if right.is_none() && *is_decoy && (*has_account || accounts.has_stored(name)) {
            // The client gets the answer to a wrong password.
            let (user, why) = (&*cut(name), "the account has no SCRAM keys");
            tracing::debug!(user, why, "{MECHANISM} refused");
        }
        let signature = right.ok_or(AuthenticationError::BadCredentials)?;
        let identity: Identity = accounts.identify(Arc::clone(name), &self.shown)?;
        Ok(Step::Done { identity, data: Some(server_final(&signature).into_bytes()) })
    }
}

fn server_nonce() -> String {
    let mut random = [0; NONCE_BYTES];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    STANDARD.encode(random)
}

impl From<MessageError> for AuthenticationError {
    fn from(error: MessageError) -> Self {
        tracing::debug!(%error, "{MECHANISM} refused");
        match error {
            MessageError::ChannelBinding => Self::NotAllowed,
            MessageError::Malformed | MessageError::MandatoryExtension => Self::BadCredentials,
        }
    }
}
