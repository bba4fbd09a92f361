//! Remembers earlier logins, and decides by them about the next one.
//!
//! Four memories: passwords that were right a moment ago ([`verified`](super::verified)), failures
//! ([`throttle`](crate::auth::throttle)), clients that logged in a moment ago
//! ([`recent`](super::recent)), and pairs of user and address that logged in at any time
//! ([`known`](super::known)). MQTT and REST count failures separately: guesses over one do not
//! cause refusals over the other.
//!
//! An attempt is judged in this order: refused because of failures; wrong a moment ago; one of too
//! many different guesses at the same time; right a moment ago; open. So a volley of guesses
//! reveals no more than guesses one after the other. Does not know how a password is checked.
//! Called by the authenticator.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    AuthenticationConfig,
    known::{self, KnownLogins, ToKeep},
    recent::{RecentKey, RecentPlaces},
    verified::{LoginDigest, VerifiedCredentials},
};
use crate::{
    auth::{
        AuthenticationError, Credentials, FailedLogins, LoginCounts, LoginKey, LoginLedger,
        Precedence,
        origin::Origin,
        throttle::{FailureThrottle, Guess, Lockout, PairKey, now},
    },
    told::{LockOut, LockOuts},
};

/// The memory of earlier logins, shared by all logins of an authenticator.
pub(super) struct Attempts {
    memory: Mutex<Memory>,
    client_ids: RandomState,
    ledger: OnceLock<Arc<dyn LoginLedger>>,
    lock_outs: LockOuts,
}

struct Memory {
    verified: VerifiedCredentials,
    /// The failures over MQTT, and those over REST.
    failures: [FailureThrottle; 2],
    recent: RecentPlaces,
    known: KnownLogins,
    /// The different passwords of each pair that are being checked, with the number of attempts for
    /// each.
    open: HashMap<PairKey, SmallVec<[(Guess, usize); 2]>>,
    counts: LoginCounts,
}

/// The client or caller that attempts to log in.
#[derive(Clone)]
pub(super) struct Applicant {
    address: IpAddr,
    name: Arc<str>,
    listener: Box<str>,
    is_rest: bool,
    /// Whether the same credentials were accepted before on the same connection.
    is_proven: bool,
    pair: PairKey,
    place: RecentKey,
}

/// The decision about an attempt before its password is hashed.
pub(super) enum Verdict {
    /// The password was right a moment ago.
    Right,
    /// The password was wrong a moment ago; the answer is delayed by this time.
    Wrong(Duration),
    /// The password must be checked, after this delay.
    Open(Duration, OpenGuess),
}

impl Attempts {
    pub(super) fn new(config: &AuthenticationConfig) -> Self {
        let time_to_live = Duration::from_secs(config.verified_secs.into());
        let entries_max = config.verified_entries_max;
        let memory = Memory {
            verified: VerifiedCredentials::new(entries_max, time_to_live),
            // One for MQTT and one for REST.
            failures: [(); 2].map(|()| FailureThrottle::new(config.throttle.clone())),
            recent: RecentPlaces::new(entries_max, time_to_live),
            known: KnownLogins::new(config.known_logins_max),
            open: HashMap::new(),
            counts: LoginCounts::default(),
        };
        Self {
            memory: Mutex::new(memory),
            client_ids: RandomState::new(),
            ledger: OnceLock::new(),
            lock_outs: LockOuts::default(),
        }
    }

    /// Applies a changed configuration. Counts are kept, as far as there is room.
    pub(super) fn configure(&self, former: &AuthenticationConfig, now: &AuthenticationConfig) {
        let mut memory = self.memory();
        if former.verified_secs != now.verified_secs {
            // Passwords that were right a moment ago are hashed once more.
            let time_to_live = Duration::from_secs(now.verified_secs.into());
            memory.verified = VerifiedCredentials::new(now.verified_entries_max, time_to_live);
            memory.recent = RecentPlaces::new(now.verified_entries_max, time_to_live);
        }
        for failures in &mut memory.failures {
            failures.set_config(now.throttle.clone());
        }
        // Removed from the store after the lock is given back; writing must not delay logins.
        let removed = memory.known.set_max(now.known_logins_max);
        drop(memory);
        if let Some(ledger) = self.ledger.get() {
            removed.into_iter().for_each(|key| ledger.remove(key));
        }
    }

    /// Returns the applicant with these credentials for the user `name`.
    pub(super) fn applicant(&self, shown: &Credentials<'_>, name: &str) -> Applicant {
        let is_rest = shown.client_id.is_none();
        let address = shown.peer.ip();
        let pair = self.memory().failures[usize::from(is_rest)].key(address, name);
        let client = shown.client_id.map_or(0, |client_id| self.client_ids.hash_one(client_id));
        Applicant {
            address,
            name: name.into(),
            listener: shown.listener.into(),
            is_rest,
            is_proven: shown.proven,
            pair,
            place: (pair, client),
        }
    }

    /// Returns the failed logins: those of one user at an address, those of an address, or all.
    pub(super) fn failed(
        &self,
        address: Option<IpAddr>,
        username: Option<&str>,
    ) -> Vec<FailedLogins> {
        let (memory, now) = (self.memory(), now());
        // MQTT and REST count apart: guesses over one cause no refusals over the other.
        let both = memory.failures.iter().zip([false, true]);
        both.flat_map(|(failures, is_rest)| match (address, username) {
            (Some(address), Some(name)) => {
                vec![failures.failures_of_pair(&failures.key(address, name), is_rest, now)]
            }
            (address, _) => {
                let mut all = failures.failing(is_rest, now);
                // An IPv6 address counts with its /64, so any address of that finds the failures.
                let origin = address.map(Origin::of);
                all.retain(|one| origin.is_none_or(|origin| Origin::of(one.address) == origin));
                all
            }
        })
        .collect()
    }

    /// Forgets the failed logins of an address, of one user there or of all; returns whether there were
    /// any.
    pub(super) fn forget(&self, address: IpAddr, username: Option<&str>) -> bool {
        let (mut memory, now) = (self.memory(), now());
        let mut there_were = false;
        for (failures, is_rest) in memory.failures.iter_mut().zip([false, true]) {
            there_were |= match username {
                None => failures.forget(address, now),
                Some(name) => {
                    let key = failures.key(address, name);
                    // Read before `was_right` clears them.
                    let failed = failures.failures_of_pair(&key, is_rest, now);
                    failures.was_right(&key);
                    failed.failures > 0 || failed.refused_secs > 0
                }
            };
        }
        there_were
    }

    /// Loads the pairs stored in `ledger`, and stores those of later logins there.
    pub(super) fn keep_in(&self, ledger: Arc<dyn LoginLedger>) {
        let removed = self.memory().known.read(ledger.read());
        for key in removed {
            ledger.remove(key);
        }
        drop(self.ledger.set(ledger)); // Only the first broker of an authenticator keeps them.
    }

    /// Judges an attempt before anything is computed for it.
    pub(super) fn judge(
        self: &Arc<Self>,
        who: &Applicant,
        digest: &LoginDigest,
    ) -> Result<Verdict, AuthenticationError> {
        let (now, guess) = (now(), guess_of(digest));
        let mut memory = self.memory();
        // A remembered answer costs no hash, and opens no guess.
        if let Some(verdict) = memory.recall(who, digest, now)? {
            return Ok(verdict);
        }
        let guesses = memory.open.entry(who.pair).or_default();
        // The same password from many devices is one guess, as it is one failure.
        match guesses.iter_mut().find(|(other, _)| *other == guess) {
            Some((_, attempts)) => *attempts += 1,
            None => guesses.push((guess, 1)),
        }
        let delay = memory.failures(who).delay_of(&who.pair, now);
        let open = OpenGuess { attempts: Arc::clone(self), pair: who.pair, guess };
        Ok(Verdict::Open(delay, open))
    }

    /// Judges an attempt again after it has waited; `None` if it is still open.
    pub(super) fn judge_again(
        &self,
        who: &Applicant,
        digest: &LoginDigest,
    ) -> Result<Option<bool>, AuthenticationError> {
        let verdict = self.memory().recall(who, digest, now())?;
        Ok(verdict.map(|verdict| matches!(verdict, Verdict::Right)))
    }

    /// Returns the delay of an attempt without a password.
    pub(super) fn admit(&self, who: &Applicant) -> Result<Duration, AuthenticationError> {
        let now = now();
        let mut memory = self.memory();
        memory.check_refusal(who, now)?;
        Ok(memory.failures(who).delay_of(&who.pair, now))
    }

    /// Returns the precedence of the attempt.
    pub(super) fn precedence(&self, who: &Applicant) -> Precedence {
        let now = now();
        let memory = self.memory();
        let key = known::key(&who.name, who.pair.0);
        let of_pair = memory.failures(who);
        let goes_on = who.is_proven || memory.recent.may_go_on(&who.place, now);
        if goes_on || memory.known.contains(&key) && of_pair.guesses_left(&who.pair, now) > 0 {
            return Precedence::Known;
        }
        let other = &memory.failures[usize::from(!who.is_rest)];
        // Failures over the other protocol do not refuse, but they do cost the better place.
        let in_other = other.key(who.address, &who.name);
        match of_pair.has_failed(&who.pair, now) || other.has_failed(&in_other, now) {
            true => Precedence::Failed,
            false => Precedence::Fresh,
        }
    }

    /// Records the outcome of an attempt; `digest` is that of its password, if it had one.
    pub(super) fn write_down(&self, who: &Applicant, digest: Option<&LoginDigest>, right: bool) {
        let now = now();
        let mut memory = self.memory();
        memory.counts.hashed += u64::from(digest.is_some());
        if right {
            // SCRAM has no digest: its proof is of one exchange and cannot be recognized later.
            if let Some(digest) = digest {
                memory.verified.insert(*digest, now);
            }
            memory.was_right(who, now);
            let key = known::key(&who.name, who.pair.0);
            // The store is written without the lock, which every login needs.
            let to_keep = memory.known.was_right(key, now);
            drop(memory);
            self.keep(key, &to_keep);
            return;
        }
        drop(memory);
        self.note_wrong(who, digest.map(guess_of));
    }

    /// Records a wrong device secret. It was not hashed, and does not show from where its user logs in.
    pub(super) fn refused_secret(&self, who: &Applicant, digest: &LoginDigest) {
        self.note_wrong(who, Some(guess_of(digest)));
    }

    /// Counts a failure, and logs a refusal if one begins with it.
    fn note_wrong(&self, who: &Applicant, guess: Option<Guess>) {
        let now = now();
        let mut memory = self.memory();
        // Also for a client that was right a moment ago,
        // so that its exemption is no free way to guess.
        memory.recent.was_wrong(&who.place, now);
        let lockout = memory.failures_mut(who).guessed(who.pair, guess, now);
        match lockout {
            None => {}
            Some(Lockout::User) => memory.counts.user_lockouts += 1,
            Some(Lockout::Address) => memory.counts.address_lockouts += 1,
        }
        let secs = memory.failures(who).refused_for(&who.pair, now).unwrap_or(0);
        // The log line is written without the lock: a slow log must not hold up logins.
        drop(memory);
        if let Some(lockout) = lockout {
            self.lock_outs.tell(&LockOut {
                address: who.address.to_canonical(),
                listener: &who.listener,
                over: if who.is_rest { "REST" } else { "MQTT" },
                user: &who.name,
                secs,
                is_whole_address: lockout == Lockout::Address,
            });
        }
    }

    fn keep(&self, key: LoginKey, to_keep: &ToKeep) {
        let Some(ledger) = self.ledger.get() else { return };
        if to_keep.note {
            ledger.note(key);
        }
        if let Some(removed) = to_keep.remove {
            ledger.remove(removed);
        }
    }

    /// Returns the counts, except for waiting logins, which `hashing` knows.
    pub(super) fn counts(&self) -> LoginCounts {
        let memory = self.memory();
        LoginCounts { known: memory.known.len() as u64, ..memory.counts }
    }

    /// Locks the memory. A panic of another thread leaves counts that are at most one off.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn failures(&self, who: &Applicant) -> &FailureThrottle {
        &self.failures[usize::from(who.is_rest)]
    }

    fn failures_mut(&mut self, who: &Applicant) -> &mut FailureThrottle {
        &mut self.failures[usize::from(who.is_rest)]
    }

    fn check_refusal(&mut self, who: &Applicant, now: Instant) -> Result<(), AuthenticationError> {
        let goes_on = who.is_proven || self.recent.may_go_on(&who.place, now);
        match self.failures(who).refused_for(&who.pair, now).filter(|_| !goes_on) {
            None => Ok(()),
            Some(secs) => Err(self.refuse(secs)),
        }
    }

    const fn refuse(&mut self, retry_after_secs: u32) -> AuthenticationError {
        self.counts.refused += 1;
        AuthenticationError::TooManyAttempts { retry_after_secs }
    }

    /// Returns the remembered result of an attempt; `None` if its password must be checked.
    fn recall(
        &mut self,
        who: &Applicant,
        digest: &LoginDigest,
        now: Instant,
    ) -> Result<Option<Verdict>, AuthenticationError> {
        let guess = guess_of(digest);
        // First: a refused pair learns nothing, not even from a remembered answer.
        self.check_refusal(who, now)?;
        // A device that repeats one wrong password makes no
        // progress, so it is neither hashed nor counted.
        if self.failures(who).is_repeated(&who.pair, guess) {
            self.counts.repeated += 1;
            return Ok(Some(Verdict::Wrong(self.failures(who).delay_of_repeated())));
        }
        let goes_on = who.is_proven || self.recent.may_go_on(&who.place, now);
        if let Some(open) = self.open.get(&who.pair)
            && !goes_on
            && open.iter().all(|(other, _)| *other != guess)
            // Guesses under way count as failures: otherwise
            // a volley could try more than the limit allows.
            && open.len() >= self.failures(who).guesses_left(&who.pair, now)
        {
            return Err(self.refuse(SECS_UNTIL_GUESSES_ARE_CHECKED));
        }
        // After all refusals, so that the memory never lets in a client that a hash would not.
        if self.verified.contains(digest, now) {
            self.was_right(who, now);
            return Ok(Some(Verdict::Right));
        }
        Ok(None)
    }

    fn was_right(&mut self, who: &Applicant, now: Instant) {
        self.recent.was_right(who.place, now);
        // A refusal of the name stays in force for other clients, although this one may log in.
        if self.failures(who).refused_for(&who.pair, now).is_none() {
            self.failures_mut(who).was_right(&who.pair);
        }
    }
}

/// Seconds until a retry while other guesses at the name are being checked.
const SECS_UNTIL_GUESSES_ARE_CHECKED: u32 = 1;

impl Applicant {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn origin(&self) -> Origin {
        self.pair.0
    }
}

/// Marks a password as being checked, until it is dropped.
pub(super) struct OpenGuess {
    attempts: Arc<Attempts>,
    pair: PairKey,
    guess: Guess,
}

impl Drop for OpenGuess {
    fn drop(&mut self) {
        let mut memory = self.attempts.memory();
        let Some(guesses) = memory.open.get_mut(&self.pair) else { return };
        if let Some(at) = guesses.iter().position(|(guess, _)| *guess == self.guess) {
            guesses[at].1 -= 1;
            if guesses[at].1 == 0 {
                guesses.swap_remove(at);
            }
        }
        if guesses.is_empty() {
            memory.open.remove(&self.pair);
        }
    }
}

/// Returns eight bytes of a keyed hash; 0 stands for no password.
fn guess_of(digest: &LoginDigest) -> Guess {
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    Guess::from_le_bytes(*first).max(1)
}
