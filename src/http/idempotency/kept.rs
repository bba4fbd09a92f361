//! The answers that are kept under keys of accounts, within bounds; the least recently used leave, first
//! those of the account that keeps the most.
//!
//! Knows no HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{super::calls::AnswerHeaders, ApiError, KEPT_FOR};

/// Maximum number of keys of all accounts.
const KEYS_MAX: usize = 10_000;
/// Maximum number of keys of one account.
const KEYS_PER_ACCOUNT_MAX: usize = 1_000;
/// Maximum bytes of all kept answers.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum bytes of those of one account.
const BYTES_PER_ACCOUNT_MAX: usize = BYTES_MAX / 4;

/// An answer, or its error.
pub(super) type KeptAnswer = Result<KeptText, ApiError>;

/// An answer in JSON.
#[derive(Clone)]
pub(super) struct KeptText {
    pub(super) text: Arc<str>,
    pub(super) headers: AnswerHeaders,
}

/// An account and its key.
#[derive(Clone)]
pub(super) struct AccountKey {
    pub(super) account: Arc<str>,
    pub(super) key: Arc<str>,
}

/// The state of an earlier call.
pub(super) enum EarlierCall {
    /// Nothing: it begins now.
    Unknown,
    /// It was answered.
    Answered(KeptAnswer),
    /// It has not ended.
    Running,
    /// Its key belongs to another call.
    Other,
    /// Nothing, and there is no room for it: too many calls have not ended.
    NoRoom,
}

/// A call with a key.
struct KeyedCall {
    fingerprint: [u8; 32],
    /// The answer, and when it was given; `None` while the call goes on.
    answer: Option<(KeptAnswer, Instant)>,
    /// The number of its last use, once it has ended.
    used: u64,
}

/// The calls of one account.
#[derive(Default)]
struct AccountCalls {
    calls: HashMap<Arc<str>, KeyedCall>,
    /// Those that have ended, by their last use.
    used: BTreeSet<u64>,
    /// The bytes of their answers.
    bytes: usize,
}

/// The calls by accounts and keys.
#[derive(Default)]
pub(super) struct KeptAnswers {
    accounts: HashMap<Arc<str>, AccountCalls>,
    /// Those that have ended, by the number of their last use.
    used: BTreeMap<u64, AccountKey>,
    keys: usize,
    bytes: usize,
    last_use: u64,
}

fn size(answer: &KeptAnswer) -> usize {
    answer.as_ref().map_or(0, |kept| kept.text.len())
}

impl KeptAnswers {
    /// Looks for an earlier call; if nothing is known of one, this call begins.
    pub(super) fn begin(
        &mut self,
        id: &AccountKey,
        fingerprint: [u8; 32],
        now: Instant,
    ) -> EarlierCall {
        let own = self.accounts.get(&id.account);
        if let Some(call) = own.and_then(|own| own.calls.get(&id.key)) {
            let is_old = |at: &Instant| now.duration_since(*at) >= KEPT_FOR;
            match &call.answer {
                Some((_, at)) if is_old(at) => self.forget(call.used),
                // Before the answer: another call under the same key must not see it.
                _ if call.fingerprint != fingerprint => return EarlierCall::Other,
                None => return EarlierCall::Running,
                Some((answer, _)) => {
                    let answer = answer.clone();
                    self.touch(id);
                    return EarlierCall::Answered(answer);
                }
            }
        }
        // Before the entry exists, so that it is not the one that leaves.
        if !self.make_room(&id.account) {
            return EarlierCall::NoRoom;
        }
        let own = self.accounts.entry(id.account.clone()).or_default();
        own.calls.insert(id.key.clone(), KeyedCall { fingerprint, answer: None, used: 0 });
        self.keys += 1;
        EarlierCall::Unknown
    }

    /// Ends a call; without an answer to keep, its key is forgotten.
    pub(super) fn end(&mut self, id: &AccountKey, answer: Option<KeptAnswer>, now: Instant) {
        let Some(own) = self.accounts.get_mut(&id.account) else { return };
        let Some(answer) = answer else {
            self.keys -= usize::from(own.calls.remove(&id.key).is_some());
            if own.calls.is_empty() {
                self.accounts.remove(&id.account);
            }
            return;
        };
        let Some(call) = own.calls.get_mut(&id.key) else { return };
        let added = size(&answer);
        self.bytes += added;
        own.bytes += added;
        call.answer = Some((answer, now));
        self.touch(id);
        // First within the account, so that one account with large answers evicts its own.
        while let Some(own) = self.accounts.get(&id.account)
            && own.bytes > BYTES_PER_ACCOUNT_MAX
            && let Some(oldest) = own.used.first()
        {
            self.forget(*oldest);
        }
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.oldest_of_most(|own| own.bytes)
        {
            self.forget(oldest);
        }
    }

    /// Returns the oldest call of the account that has most of something, so that accounts with many
    /// answers do not push out those of others.
    fn oldest_of_most(&self, of: impl Fn(&AccountCalls) -> usize) -> Option<u64> {
        let have_ended = self.accounts.values().filter(|own| !own.used.is_empty());
        have_ended.max_by_key(|own| of(own))?.used.first().copied()
    }

    /// Makes room for a further key of an account; returns whether there is some.
    fn make_room(&mut self, account: &str) -> bool {
        let own = self.accounts.get(account);
        if let Some(own) = own.filter(|own| own.calls.len() >= KEYS_PER_ACCOUNT_MAX) {
            let Some(oldest) = own.used.first() else { return false };
            self.forget(*oldest);
        }
        if self.keys >= KEYS_MAX {
            let Some(oldest) = self.oldest_of_most(|own| own.used.len()) else { return false };
            self.forget(oldest);
        }
        true
    }

    /// Makes a call that has ended the last one that was used.
    fn touch(&mut self, id: &AccountKey) {
        let Some(own) = self.accounts.get_mut(&id.account) else { return };
        let Some(call) = own.calls.get_mut(&id.key) else { return };
        self.last_use += 1;
        own.used.remove(&call.used);
        self.used.remove(&call.used);
        call.used = self.last_use;
        own.used.insert(call.used);
        self.used.insert(call.used, id.clone());
    }

    /// Forgets the call that has ended and was used with this number.
    fn forget(&mut self, used: u64) {
        let Some(AccountKey { account, key }) = self.used.remove(&used) else { return };
        let Some(own) = self.accounts.get_mut(&account) else { return };
        own.used.remove(&used);
        if let Some(call) = own.calls.remove(&key) {
            self.keys -= 1;
            let bytes = call.answer.map_or(0, |(answer, _)| size(&answer));
            self.bytes -= bytes;
            own.bytes -= bytes;
        }
        if own.calls.is_empty() {
            self.accounts.remove(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(account: &str, key: usize) -> AccountKey {
        AccountKey { account: account.into(), key: key.to_string().into() }
    }

    fn text(bytes: usize) -> Option<KeptAnswer> {
        let text = "x".repeat(bytes).into();
        Some(Ok(KeptText { text, headers: AnswerHeaders::new() }))
    }

    /// Begins a call; returns the state of an earlier call with the same key.
    fn begun(answers: &mut KeptAnswers, id: &AccountKey, now: Instant) -> &'static str {
        match answers.begin(id, [0; 32], now) {
            EarlierCall::Unknown => "unknown",
            EarlierCall::Answered(_) => "answered",
            EarlierCall::Running => "running",
            EarlierCall::Other => "other",
            EarlierCall::NoRoom => "no room",
        }
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_five_minutes() {
        let (mut answers, now) = (KeptAnswers::default(), Instant::now());
        let a = id("ann", 1);
        assert_eq!(begun(&mut answers, &a, now), "unknown");
        assert_eq!(begun(&mut answers, &a, now), "running");
        assert_eq!(begun(&mut answers, &id("bob", 1), now), "unknown", "a key of its own");
        answers.end(&a, text(1), now);
        let later = now + KEPT_FOR - Duration::from_millis(1);
        assert_eq!(begun(&mut answers, &a, later), "answered");
        assert!(matches!(answers.begin(&a, [1; 32], later), EarlierCall::Other));
        assert_eq!(begun(&mut answers, &a, now + KEPT_FOR), "unknown");
        answers.end(&a, None, now);
        answers.end(&id("bob", 1), None, now);
        assert!(answers.accounts.is_empty() && answers.used.is_empty());
        assert_eq!((answers.keys, answers.bytes), (0, 0));
    }

    #[tokio::test]
    async fn the_least_recently_used_answers_of_an_account_leave() {
        let (mut answers, now) = (KeptAnswers::default(), Instant::now());
        for key in 0..KEYS_PER_ACCOUNT_MAX {
            assert_eq!(begun(&mut answers, &id("ann", key), now), "unknown");
            answers.end(&id("ann", key), text(1), now);
        }
        assert_eq!(begun(&mut answers, &id("bob", 0), now), "unknown");
        assert_eq!(begun(&mut answers, &id("ann", 0), now), "answered");
        assert_eq!(begun(&mut answers, &id("ann", KEYS_PER_ACCOUNT_MAX), now), "unknown");
        assert_eq!(begun(&mut answers, &id("ann", 0), now), "answered");
        assert_eq!(begun(&mut answers, &id("ann", 1), now), "unknown", "it has left");
        assert_eq!(begun(&mut answers, &id("bob", 0), now), "running");
    }

    #[tokio::test]
    async fn accounts_with_many_answers_push_out_their_own() {
        let (mut answers, now) = (KeptAnswers::default(), Instant::now());
        let keep = |answers: &mut KeptAnswers, account: &str, key, bytes| {
            begun(answers, &id(account, key), now);
            answers.end(&id(account, key), text(bytes), now);
        };
        keep(&mut answers, "small", 0, 1);
        for key in 0..20 {
            for account in ["a", "b", "c", "d", "e", "f"] {
                keep(&mut answers, account, key, BYTES_MAX / 40);
            }
        }
        assert!(answers.bytes <= BYTES_MAX);
        assert!(answers.accounts.values().all(|own| own.bytes <= BYTES_PER_ACCOUNT_MAX));
        assert_eq!(begun(&mut answers, &id("small", 0), now), "answered");
        assert_eq!(begun(&mut answers, &id("a", 0), now), "unknown");
    }

    #[tokio::test]
    async fn all_answers_together_have_a_bound() {
        let (mut answers, now) = (KeptAnswers::default(), Instant::now());
        for key in 0..6 {
            begun(&mut answers, &id(&key.to_string(), 0), now);
            answers.end(&id(&key.to_string(), 0), text(BYTES_MAX / 5), now);
        }
        assert!(answers.bytes <= BYTES_MAX);
        assert_eq!(answers.keys, 5);
        for account in 0..KEYS_MAX / KEYS_PER_ACCOUNT_MAX {
            for key in 1..=KEYS_PER_ACCOUNT_MAX {
                begun(&mut answers, &id(&account.to_string(), key), now);
            }
        }
        assert_eq!(answers.keys, KEYS_MAX, "those that have ended have left");
        assert_eq!(begun(&mut answers, &id("new", 0), now), "no room");
        assert_eq!(begun(&mut answers, &id("0", KEYS_PER_ACCOUNT_MAX + 1), now), "no room");
    }
}
