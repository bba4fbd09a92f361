//! Sessions of browsers: what a login on a page has proven, behind a cookie.
//!
//! The cookie has the secret of a session, and the table its hash. Knows no HTTP; time is an argument.
//! Calls about sessions begin and end them, `admission` finds them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::{ClientCertificate, Identity},
    mqtt::Timestamp,
};

/// Maximum number of sessions of all accounts.
const SESSIONS_MAX: usize = 1_000;
/// Maximum number of sessions of one account.
const SESSIONS_PER_ACCOUNT_MAX: usize = 16;

/// How long a session lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionTimes {
    /// Without a call that a person has caused.
    pub(super) idle: Duration,
    /// In all.
    pub(super) whole: Duration,
}

/// The secret of a session, as it is in the cookie.
pub(super) struct SessionSecret([u8; 32]);

impl SessionSecret {
    fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        Self(bytes)
    }

    /// Parses the text of a cookie.
    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Returns the text for a cookie.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Returns the key of the session.
    pub(super) fn key(&self) -> SessionKey {
        SessionKey(Sha256::digest(self.0).into())
    }
}

/// The hash of a secret. The cookie cannot be made from it, even by a reader of the broker's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionKey([u8; 32]);

/// The result of a login on a page.
#[derive(Clone)]
pub(super) struct ProvenLogin {
    /// The caller.
    pub(super) identity: Identity,
    /// The certificate that the connection has shown.
    pub(super) certificate: Option<ClientCertificate>,
    /// The generation of the accounts when the password was checked.
    pub(super) admitted_at: u64,
    /// The generation of the accounts at the last check.
    pub(super) checked_at: u64,
}

struct BrowserSession {
    login: ProvenLogin,
    began: Timestamp,
    used: Timestamp,
}

impl BrowserSession {
    fn ends_at(&self, times: SessionTimes) -> Timestamp {
        let after = |from: Timestamp, time: Duration| {
            from.plus_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        after(self.used, times.idle).min(after(self.began, times.whole))
    }

    fn is_of(&self, account: Option<&Arc<str>>) -> bool {
        self.login.identity.username.as_ref() == account
    }
}

/// The sessions of all browsers.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<SessionKey, BrowserSession>>);

impl Sessions {
    /// Begins a session. If its account, or all together, have as many as there may be, it takes the
    /// place of the one that was used the longest ago: of its own account, or of the account with the
    /// most.
    pub(super) fn begin(
        &self,
        login: ProvenLogin,
        now: Timestamp,
        times: SessionTimes,
    ) -> SessionSecret {
        let secret = SessionSecret::random();
        let mut all = self.all();
        all.retain(|_, session| session.ends_at(times) > now);
        make_room(&mut all, login.identity.username.as_ref());
        all.insert(secret.key(), BrowserSession { login, began: now, used: now });
        secret
    }

    /// Returns what the login of a session has proven, and notes its use if a person has caused it;
    /// `None` if there is no such session.
    pub(super) fn find(
        &self,
        key: &SessionKey,
        is_caused_by_person: bool,
        now: Timestamp,
        times: SessionTimes,
    ) -> Option<ProvenLogin> {
        let mut all = self.all();
        let session = all.get_mut(key)?;
        // The times may have been shortened since the login, so the end is computed each time.
        if session.ends_at(times) <= now {
            all.remove(key);
            return None;
        }
        if is_caused_by_person {
            session.used = now;
        }
        Some(session.login.clone())
    }

    /// Returns when a session ends, unless it is used; `None` if there is no such session.
    pub(super) fn ends_at(
        &self,
        key: &SessionKey,
        now: Timestamp,
        times: SessionTimes,
    ) -> Option<Timestamp> {
        let ends_at = self.all().get(key)?.ends_at(times);
        (ends_at > now).then_some(ends_at)
    }

    /// Replaces what a session stands for, unless it has ended.
    pub(super) fn renew(&self, key: &SessionKey, login: ProvenLogin) {
        if let Some(session) = self.all().get_mut(key) {
            session.login = login;
        }
    }

    /// Ends a session.
    pub(super) fn end(&self, key: &SessionKey) {
        self.all().remove(key);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SessionKey, BrowserSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(all: &mut HashMap<SessionKey, BrowserSession>, account: Option<&Arc<str>>) {
    let own = all.values().filter(|session| session.is_of(account)).count();
    // First within the account: repeated logins must not end sessions of others.
    let from = if own >= SESSIONS_PER_ACCOUNT_MAX {
        account.cloned()
    } else if all.len() >= SESSIONS_MAX {
        account_with_most(all)
    } else {
        return;
    };
    let its = all.iter().filter(|(_, session)| session.is_of(from.as_ref()));
    let first = its.min_by_key(|(_, session)| session.used).map(|(key, _)| *key);
    if let Some(key) = first {
        all.remove(&key);
    }
}

/// Returns the account with the most sessions; of several the one whose session was used the longest
/// ago.
fn account_with_most(all: &HashMap<SessionKey, BrowserSession>) -> Option<Arc<str>> {
    let mut counts: HashMap<_, (usize, std::cmp::Reverse<Timestamp>)> = HashMap::new();
    for session in all.values() {
        let used = std::cmp::Reverse(session.used);
        let name = session.login.identity.username.as_ref();
        let (count, oldest) = counts.entry(name).or_insert((0, used));
        (*count, *oldest) = (*count + 1, used.max(*oldest));
    }
    counts.into_iter().max_by_key(|(_, rank)| *rank).and_then(|(name, _)| name.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: SessionTimes =
        SessionTimes { idle: Duration::from_secs(60), whole: Duration::from_secs(600) };

    fn at(secs: u64) -> Timestamp {
        Timestamp(secs * 1_000)
    }

    fn of(name: &str) -> ProvenLogin {
        let identity = Identity { username: Some(name.into()), ..Identity::default() };
        ProvenLogin { identity, certificate: None, admitted_at: 0, checked_at: 0 }
    }

    fn begin(sessions: &Sessions, name: &str, secs: u64) -> SessionKey {
        sessions.begin(of(name), at(secs), TIMES).key()
    }

    #[test]
    fn a_session_is_found_by_the_text_of_its_cookie_alone() {
        let sessions = Sessions::default();
        let text = sessions.begin(of("ann"), at(0), TIMES).text();
        assert_eq!(text.len(), 43);
        let key = SessionSecret::parse(&text).unwrap().key();
        let found = sessions.find(&key, true, at(1), TIMES).unwrap();
        assert_eq!(found.identity.username.as_deref(), Some("ann"));
        let other = SessionSecret::random().key();
        assert!(sessions.find(&other, true, at(1), TIMES).is_none());
        for text in ["", "x", &text[1..], &format!("{text}x"), "a b", &"/".repeat(43)] {
            assert!(SessionSecret::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_after_its_whole_time() {
        let sessions = Sessions::default();
        let key = begin(&sessions, "ann", 0);
        assert!(sessions.find(&key, false, at(59), TIMES).is_some());
        assert!(
            sessions.find(&key, false, at(60), TIMES).is_none(),
            "the page alone does not count"
        );
        let key = begin(&sessions, "ann", 0);
        for secs in (0..600).step_by(59) {
            assert!(sessions.find(&key, true, at(secs), TIMES).is_some(), "{secs}");
        }
        assert_eq!(sessions.ends_at(&key, at(599), TIMES), Some(at(600)));
        assert_eq!(sessions.ends_at(&key, at(600), TIMES), None);
        assert!(sessions.find(&key, true, at(600), TIMES).is_none());
        assert!(sessions.all().is_empty());
    }

    #[test]
    fn a_session_that_has_ended_does_not_come_back() {
        let sessions = Sessions::default();
        let key = begin(&sessions, "ann", 0);
        sessions.end(&key);
        sessions.renew(&key, of("ann"));
        assert!(sessions.find(&key, true, at(1), TIMES).is_none());
    }

    #[test]
    fn an_account_replaces_its_own_oldest_session() {
        let sessions = Sessions::default();
        let other = begin(&sessions, "bob", 0);
        let own: Vec<_> = (1..=16).map(|secs| begin(&sessions, "ann", secs)).collect();
        assert!(sessions.find(&own[0], true, at(20), TIMES).is_some());
        let next = begin(&sessions, "ann", 21);
        let lives = |key: &SessionKey| sessions.ends_at(key, at(22), TIMES).is_some();
        assert!(lives(&other) && lives(&next) && lives(&own[0]));
        assert!(!lives(&own[1]), "it was used the longest ago");
        assert_eq!(own.iter().filter(|key| lives(key)).count(), 15);
    }

    #[test]
    fn all_accounts_together_have_a_bound_and_the_one_with_most_gives_way() {
        let sessions = Sessions::default();
        let first = begin(&sessions, "first", 0);
        let greedy = [begin(&sessions, "greedy", 1), begin(&sessions, "greedy", 2)];
        for number in 3..SESSIONS_MAX {
            begin(&sessions, &format!("user-{number}"), 3);
        }
        assert_eq!(sessions.all().len(), SESSIONS_MAX);
        begin(&sessions, "late", 4);
        let lives = |key: &SessionKey| sessions.ends_at(key, at(5), TIMES).is_some();
        assert!(lives(&first) && !lives(&greedy[0]) && lives(&greedy[1]));
        begin(&sessions, "later", 4);
        assert!(!lives(&first), "all have one, and this is the oldest");
        assert_eq!(sessions.all().len(), SESSIONS_MAX);
    }
}
