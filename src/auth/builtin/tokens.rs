//! API tokens: a source for REST callers that send `Authorization: Bearer hmq_t_…`.
//!
//! A secret has 256 random bits, so its SHA-256 is enough: there is nothing to guess, and a check costs
//! microseconds. The broker has the tokens in its store and gives them to the source; the source
//! answers from memory. MQTT clients cannot log in with a token.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::policy::own_rules;
use crate::{
    auth::{AuthenticationError, Authenticator, Credentials, Identity, Login, OwnRules, Standing},
    mqtt::Timestamp,
};

/// The beginning of every secret.
const PREFIX: &str = "hmq_t_";
/// The beginning of the user names of callers with a token. No account has a colon in its name.
const USER_PREFIX: &str = "token:";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Time after which a further use of a token is noted.
const NOTE_AFTER_MILLIS: u64 = 600_000;

/// Stores when the token of this name was used, in milliseconds since the Unix epoch.
type UseLedger = Box<dyn Fn(&str, u64) + Send + Sync>;

/// The SHA-256 of a secret.
pub type TokenHash = [u8; 32];

/// The tokens of a broker, in memory.
#[derive(Default)]
pub struct Tokens {
    known: RwLock<KnownTokens>,
    generation: AtomicU64,
    ledger: OnceLock<UseLedger>,
}

#[derive(Default)]
struct KnownTokens {
    by_hash: HashMap<TokenHash, Arc<KnownToken>>,
    by_name: HashMap<Arc<str>, Arc<KnownToken>>,
}

struct KnownToken {
    name: Arc<str>,
    hash: TokenHash,
    rules: OwnRules,
    expires_at: Option<Timestamp>,
    /// When it was last noted that it was used; 0 if never.
    used: AtomicU64,
    /// The generation in which it was added.
    since: u64,
}

/// A secret that was made, and its hash.
pub struct NewTokenSecret {
    /// The secret.
    pub secret: String,
    /// Its SHA-256.
    pub hash: TokenHash,
}

impl fmt::Debug for NewTokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTokenSecret").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Makes a secret.
    #[must_use]
    pub fn new_secret() -> NewTokenSecret {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        NewTokenSecret { hash: hash_of(secret.as_bytes()), secret }
    }

    /// Returns the rules of a token from their JSON, a list: what they do not allow is denied.
    ///
    /// # Errors
    /// A rule is not valid, or there are too many: the text says which.
    pub fn rules(json: &str) -> Result<OwnRules, String> {
        let mut rules: Vec<serde_json::Value> = serde_json::from_slice(json.as_bytes())
            .map_err(|_| "they are not a list of objects".to_owned())?;
        // Evaluated last: the rules of the policy are not asked.
        rules.push(serde_json::json!({ "effect": "deny", "priority": i64::MAX }));
        own_rules(&rules.into()).map_err(|error| error.to_string())
    }

    /// Adds or replaces a token, which was used last at this time.
    pub fn insert(
        &self,
        name: &str,
        hash: TokenHash,
        rules: OwnRules,
        (expires_at, used): (Option<Timestamp>, Option<Timestamp>),
    ) {
        let since = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let used = AtomicU64::new(used.map_or(0, Timestamp::millis));
        let token =
            Arc::new(KnownToken { name: name.into(), hash, rules, expires_at, used, since });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = known.by_name.insert(Arc::clone(&token.name), Arc::clone(&token)) {
            // The former secret of this name must not find the token any more.
            known.by_hash.remove(&former.hash);
        }
        known.by_hash.insert(hash, token);
    }

    /// Removes a token; returns whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let Some(former) = known.by_name.remove(name) else { return false };
        known.by_hash.remove(&former.hash);
        drop(known);
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Returns whether there is a token of this name with this hash.
    #[must_use]
    pub fn has(&self, name: &str, hash: &TokenHash) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.get(name).is_some_and(|token| token.hash == *hash)
    }

    /// Returns the names of all tokens.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.keys().cloned().collect()
    }

    /// Returns when a token was used last, to ten minutes.
    #[must_use]
    pub fn last_used(&self, name: &str) -> Option<Timestamp> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let used = known.by_name.get(name)?.used.load(Ordering::Relaxed);
        (used > 0).then_some(Timestamp(used))
    }

    /// Takes the function that stores when a token was used. A broker calls it once.
    pub fn note_uses_in(&self, ledger: impl Fn(&str, u64) + Send + Sync + 'static) {
        let _ = self.ledger.set(Box::new(ledger)); // The first broker that uses the tokens has them.
    }

    fn find(&self, secret: &[u8]) -> Option<Arc<KnownToken>> {
        // Looked up by the hash: how long that takes says nothing about a secret.
        let hash = hash_of(secret);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_hash.get(&hash).cloned()
    }

    fn note_use(&self, token: &KnownToken) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let noted = token.used.load(Ordering::Relaxed);
        if noted.saturating_add(NOTE_AFTER_MILLIS) > now {
            return;
        }
        token.used.store(now, Ordering::Relaxed);
        if let Some(ledger) = self.ledger.get() {
            ledger(&token.name, now);
        }
    }
}

fn hash_of(secret: &[u8]) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest(&SHA256, secret).as_ref());
    hash
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("names", &self.names()).finish_non_exhaustive()
    }
}

/// The source of callers with API tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenAuthenticator(Arc<Tokens>);

impl TokenAuthenticator {
    /// Creates the source, without tokens: the broker gives it those of its store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let secret = credentials.bearer.filter(|secret| secret.starts_with(PREFIX.as_bytes()));
        // Tokens are for REST alone: an MQTT client that shows one is left to other sources.
        let Some(secret) = secret.filter(|_| credentials.client_id.is_none()) else {
            return Err(AuthenticationError::NotMine);
        };
        let token = self.0.find(secret).ok_or(AuthenticationError::BadCredentials)?;
        self.0.note_use(&token);
        Ok(Identity {
            username: Some(format!("{USER_PREFIX}{}", token.name).into()),
            login: Login::Other,
            expires_at: token.expires_at,
            rules: token.rules.clone(),
            ..Identity::default()
        })
    }

    fn may_be_remembered(&self, _: &Identity) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let name = identity.username.as_deref().and_then(|name| name.strip_prefix(USER_PREFIX));
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        match name.and_then(|name| known.by_name.get(name)) {
            Some(token) if token.since <= since => Standing::Good,
            Some(_) | None => Standing::Gone,
        }
    }

    /// All names that the broker gives to tokens, also those of tokens that are gone.
    fn has_user(&self, username: &str) -> bool {
        username.starts_with(USER_PREFIX)
    }

    fn tokens(&self) -> Option<Arc<Tokens>> {
        Some(Arc::clone(&self.0))
    }
}
