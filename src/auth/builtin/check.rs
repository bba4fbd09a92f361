//! The check of one password, for all sources with accounts. They share the counts of failures, and the turns
//! of hashes.
//!
//! Does not know where accounts are. Called by the authenticators of the file and of the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use super::{
    AuthenticationConfig,
    attempts::{Applicant, Attempts, Verdict},
    hashing::{Hashing, TurnedAway},
    password::{StoredPassword, hash_of_nobody, hash_password},
    verified::DigestKey,
};
use crate::auth::{AuthenticationError, LoginCounts, Precedence, origin::Origin};

/// The part of a login that is the same for all sources of accounts.
pub(super) struct PasswordCheck {
    pub(super) attempts: Arc<Attempts>,
    hashing: Hashing,
    digest_key: DigestKey,
    /// The decoy hash of a broker without accounts.
    nobody: StoredPassword,
    /// Whether a source checks device secrets.
    has_secrets: AtomicBool,
}

/// The stored password that a login is compared with.
pub(super) struct Compared<'a> {
    pub(super) stored: &'a StoredPassword,
    /// Whether the account exists. If not, `stored` is a decoy, and the password is wrong in any case.
    pub(super) account_exists: bool,
    /// Called with a new hash if the password is right and its stored hash is weak.
    pub(super) on_weak: Option<Box<dyn FnOnce(String) + Send>>,
}

impl PasswordCheck {
    pub(super) fn new(config: &AuthenticationConfig) -> Self {
        Self {
            attempts: Arc::new(Attempts::new(config)),
            hashing: Hashing::new(hashes_at_once(config), config.hashes_waiting_max),
            digest_key: DigestKey::generate(),
            nobody: hash_of_nobody(),
            has_secrets: AtomicBool::new(false),
        }
    }

    pub(super) fn configure(&self, former: &AuthenticationConfig, now: &AuthenticationConfig) {
        self.attempts.configure(former, now);
        self.hashing.set_at_once_max(hashes_at_once(now));
    }

    /// Returns a hash that no password has, to be compared with where there is no other decoy.
    pub(super) const fn nobody(&self) -> &StoredPassword {
        &self.nobody
    }

    /// Notes that a source checks device secrets. Other sources then pass on a password that looks like one.
    pub(super) fn expect_secrets(&self) {
        self.has_secrets.store(true, Ordering::Relaxed);
    }

    /// Returns whether this password looks like a device secret, so that another source decides about it.
    pub(super) fn is_for_secrets(&self, password: Option<&[u8]>) -> bool {
        self.has_secrets.load(Ordering::Relaxed)
            && password.is_some_and(super::secret::looks_like_one)
    }

    /// Returns its counts, for the metrics.
    pub(super) fn counts(&self) -> LoginCounts {
        let (waiting, turned_away) = self.hashing.counts();
        LoginCounts { waiting: waiting as u64, turned_away, ..self.attempts.counts() }
    }

    /// Returns whether the password is right.
    pub(super) async fn verify(
        &self,
        who: Applicant,
        password: &[u8],
        compared: Compared<'_>,
    ) -> Result<bool, AuthenticationError> {
        let Compared { stored, account_exists, on_weak } = compared;
        // With the stored hash in it: after a change of
        // the password, a remembered digest fits no more.
        let digest = self.digest_key.digest(who.name(), stored.as_str(), password);
        let (delay, _open) = match self.attempts.judge(&who, &digest)? {
            Verdict::Right => return Ok(true),
            Verdict::Wrong(delay) => {
                tokio::time::sleep(delay).await;
                return Ok(false);
            }
            Verdict::Open(delay, open) => (delay, open),
        };
        // Before the queue for a hash, so that a guesser waits without taking a place there.
        wait(delay).await;
        // After the delay, because other logins of the pair may have changed it.
        let precedence = self.attempts.precedence(&who);
        let turn = self.hashing.turn(precedence, who.origin()).await;
        let turn = turn.map_err(|TurnedAway| AuthenticationError::Unavailable)?;
        // Other logins may have finished meanwhile: a fleet that shares one credential is hashed
        // once, and a volley of guesses is cut short.
        if let Some(right) = self.attempts.judge_again(&who, &digest)? {
            return Ok(right);
        }
        let (attempts, stored) = (Arc::clone(&self.attempts), stored.clone());
        let (password, nobody) = (Box::<[u8]>::from(password), self.nobody.clone());
        let hashed = self.hashing.run(turn, precedence, move || {
            let right = stored.verify(&password) && account_exists;
            if !right && stored.is_weak() {
                // So that a wrong password takes no less time than where there is no account.
                let _ = nobody.verify(&password);
            }
            // Counted in this thread, so that a client cannot avoid it by hanging up early.
            attempts.write_down(&who, Some(&digest), right);
            if let Some(on_weak) = on_weak.filter(|_| right && stored.is_weak()) {
                on_weak(hash_password(&password));
            }
            right
        });
        hashed.await.ok_or(AuthenticationError::Unavailable)
    }

    /// Refuses a wrong device secret: counts it as a failure, and waits for the delay of earlier ones.
    pub(super) async fn refuse_secret(&self, who: Applicant, secret: &[u8]) -> AuthenticationError {
        // No stored hash takes part: a device secret is compared by itself.
        let digest = self.digest_key.digest(who.name(), "", secret);
        match self.attempts.judge(&who, &digest) {
            Err(error) => error,
            Ok(Verdict::Wrong(delay)) => {
                tokio::time::sleep(delay).await;
                AuthenticationError::BadCredentials
            }
            Ok(Verdict::Right | Verdict::Open(..)) => {
                // Counted before the wait, so that a client cannot avoid it by hanging up early.
                let delay = self.attempts.admit(&who).unwrap_or_default();
                self.attempts.refused_secret(&who, &digest);
                wait(delay).await;
                AuthenticationError::BadCredentials
            }
        }
    }

    /// Hashes the password of an account that is created or changed; `None` if too many logins wait.
    pub(super) async fn hash(&self, password: Box<[u8]>, origin: Origin) -> Option<String> {
        let precedence = Precedence::Known;
        let turn = self.hashing.turn(precedence, origin).await.ok()?;
        self.hashing.run(turn, precedence, move || hash_password(&password)).await
    }
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn hashes_at_once(config: &AuthenticationConfig) -> usize {
    match config.hashes_at_once_max {
        0 => available_parallelism().map_or(1, usize::from),
        at_once => at_once,
    }
}
