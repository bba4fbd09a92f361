//! Several authenticators as one: each decides about the clients that it knows, and passes on the
//! others.
//!
//! Knows the order and what an answer means. Does not know how a source checks a login, and counts
//! nothing: the source that decides counts the outcome, so each login counts once. An application
//! gives a chain to the broker.

mod generations;
mod methods;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;

use self::{
    generations::{Generations, Member},
    methods::ChainMethods,
};
#[cfg(feature = "accounts")]
use super::Tokens;
use super::{
    AuthenticationError, Authenticator, Credentials, EnhancedAuthenticator, FailedLogins, Identity,
    ListenerLogins, LoginCounts, LoginLedger, Precedence, Standing,
};
use crate::{
    limits::OwnLimits,
    metrics::{SourceAnswer, SourceMetrics},
};

/// Several authenticators as one.
///
/// The sources are asked in the order in which they were added. The first answer other than
/// [`AuthenticationError::NotMine`] is final, and later sources are not asked. This holds for errors,
/// too: while a source cannot check its clients, no later one decides about them.
///
/// **If no source knows the client**, the first source that
/// [decides about strangers](Authenticator::decides_about_strangers) is asked once more, without
/// permission to pass. It may admit the client as anonymous. It refuses an unknown user as it refuses a
/// wrong password: in the same time, with the same answer, and counted once. Without such a source the
/// client is refused immediately.
///
/// How long a source takes until it passes shows whether an earlier source knows a user name. Only sources
/// that answer from memory hide this.
///
/// Methods of enhanced authentication follow the same rule. The sources that know the method of the client
/// get its first data, one after the other, until one does not pass. A source cannot pass after it has
/// sent data to the client.
///
/// The source that has accepted a client remains responsible for it ([`Identity::source`]), also after a
/// restart with a store.
///
/// A source that finds out the user name itself, for example from a token, cannot give the name of a user
/// that an earlier source [has](Authenticator::has_user): such a client is refused.
#[derive(Clone, Default)]
pub struct Chain {
    sources: Vec<Source>,
    takes_no_query: Arc<AtomicBool>,
    generations: Arc<Mutex<Generations>>,
}

/// An authenticator with its name in a [`Chain`].
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    authenticator: Arc<dyn Authenticator>,
    metrics: Arc<SourceMetrics>,
    methods: Option<Arc<dyn EnhancedAuthenticator>>,
}

impl Source {
    /// Creates a source. The name is unique in its chain, and is stored with the sessions of its clients:
    /// after a restart under another name, they queue no messages until their clients have logged in
    /// again.
    #[must_use]
    pub fn new(name: &str, authenticator: impl Authenticator) -> Self {
        let methods = authenticator.methods();
        let name: Arc<str> = name.into();
        let metrics = Arc::new(SourceMetrics::new(Arc::clone(&name)));
        Self { name, authenticator: Arc::new(authenticator), metrics, methods }
    }

    /// Sets the methods of enhanced authentication that the source knows, in place of those of
    /// [`Authenticator::methods`].
    #[must_use]
    pub fn with_methods(mut self, methods: impl EnhancedAuthenticator) -> Self {
        self.methods = Some(Arc::new(methods));
        self
    }
}

impl Chain {
    /// Creates a chain without sources, which refuses every client.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source, which is asked after the others.
    #[must_use]
    pub fn with(mut self, source: Source) -> Self {
        self.sources.push(source);
        self.generations = Arc::default();
        self
    }

    /// Sets whether the user name of an MQTT client is taken up to its first `?`, from now on; off at the
    /// beginning. The SDKs of AWS append a query to it.
    pub fn take_names_without_query(&self, takes: bool) {
        self.takes_no_query.store(takes, Ordering::Relaxed);
    }

    /// Returns the credentials as the sources get them.
    fn given<'c>(&self, credentials: Credentials<'c>) -> Credentials<'c> {
        let is_cut = credentials.client_id.is_some() && self.takes_no_query.load(Ordering::Relaxed);
        let name = |name: &'c str| name.split('?').next().unwrap_or(name);
        let username = credentials.username;
        let username = if is_cut { username.map(name) } else { username };
        Credentials { username, ..credentials }
    }

    /// Returns the sources in the order in which they are asked, each with whether it may pass. The last
    /// one may pass only if `may_pass` is set. The source for strangers is asked again at the end, unless
    /// it is the last one.
    fn in_order(&self, may_pass: bool) -> impl Iterator<Item = (&Source, bool)> {
        let for_strangers = self.for_strangers().filter(|_| !may_pass);
        let last = self.sources.len().saturating_sub(1);
        let again = for_strangers.filter(|at| *at < last).map(|at| (&self.sources[at], false));
        let passes = move |at| may_pass || at < last || again.is_some();
        let first = self.sources.iter().enumerate().map(move |(at, source)| (source, passes(at)));
        first.chain(again)
    }

    fn for_strangers(&self) -> Option<usize> {
        self.sources.iter().position(|source| source.authenticator.decides_about_strangers())
    }

    /// Returns the source that has accepted this identity, with the identity as the source knows it.
    /// Without a source, a session was stored before there was a chain: the source for strangers is
    /// then the one that has accounts.
    fn source_of(&self, identity: &Identity) -> Option<(usize, Option<Identity>)> {
        let Some(path) = &identity.source else {
            return Some((self.for_strangers().unwrap_or(0), None))
                .filter(|_| !self.sources.is_empty());
        };
        self.sources.iter().enumerate().find_map(|(at, source)| {
            let within = path.strip_prefix(&*source.name)?;
            if within.is_empty() {
                return Some((at, None));
            }
            let inner = within.strip_prefix('/')?.into();
            Some((at, Some(Identity { source: Some(inner), ..identity.clone() })))
        })
    }

    /// Returns whether an identity of this source has the name of a user of an earlier source. A token
    /// or a service says itself who its user is, and only earlier sources know their users.
    fn is_of_earlier(&self, source: &Source, identity: &Identity) -> bool {
        let Some(username) = &identity.username else { return false };
        let mut earlier = self.sources.iter().take_while(|other| other.name != source.name);
        let Some(owner) = earlier.find(|other| other.authenticator.has_user(username)) else {
            return false;
        };
        let (source, owner) = (&*source.name, &*owner.name);
        tracing::debug!(source, owner, "refused a user name that belongs to an earlier source");
        true
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the generation of the whole chain.
    fn generation_of_all(&self) -> u64 {
        // Read under the lock, so that no thread notes an older reading after a newer one.
        let mut generations = self.generations();
        let of_methods =
            |source: &Source| source.methods.as_ref().map_or(0, |known| known.generation());
        let now = self.sources.iter().flat_map(|source| {
            let of_source = source.authenticator.generation();
            [of_source, of_methods(source)]
        });
        generations.note(now.collect())
    }
}

impl Source {
    /// Asks the authenticator, and counts its answer and time.
    async fn ask(&self, credentials: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let begun = Instant::now();
        let outcome = self.authenticator.authenticate(credentials).await;
        let answer = match &outcome {
            Ok(_) => SourceAnswer::Allowed,
            Err(AuthenticationError::NotMine) => SourceAnswer::Passed,
            Err(AuthenticationError::Unavailable | AuthenticationError::Failed(_)) => {
                SourceAnswer::Unavailable
            }
            Err(_) => SourceAnswer::Refused,
        };
        // Passed answers count too: a slow source delays the clients of all sources behind it.
        let time = begun.elapsed();
        self.metrics.note(answer, time);
        let (source, answer) = (&*self.name, answer.name());
        tracing::debug!(source, answer, micros = time.as_micros(), "source of identities asked");
        outcome
    }

    /// Marks an identity as one of this source. A chain within the chain has set its own source before.
    fn mark(&self, identity: Identity) -> Identity {
        let path = match &identity.source {
            None => Arc::clone(&self.name),
            Some(inner) => format!("{}/{inner}", self.name).into(),
        };
        Identity { source: Some(path), ..identity }
    }
}

#[async_trait]
impl Authenticator for Chain {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let credentials = self.given(credentials);
        for (source, may_pass) in self.in_order(credentials.may_pass) {
            match source.ask(Credentials { may_pass, ..credentials }).await {
                Err(AuthenticationError::NotMine) => {}
                // A token or a service names its user itself,
                // and must not name one of an earlier source.
                Ok(identity) if self.is_of_earlier(source, &identity) => {
                    return Err(AuthenticationError::NotAllowed);
                }
                Ok(identity) => return Ok(source.mark(identity)),
                Err(error) => return Err(error),
            }
        }
        // Nobody knew the client; for a chain inside a chain this passes, otherwise it refuses.
        Err(unknown(credentials.may_pass))
    }

    /// Returns `Known` if one source knows the caller, otherwise `Failed` if one has counted failures.
    fn precedence(&self, credentials: &Credentials<'_>) -> Precedence {
        let of_source = |source: &Source| source.authenticator.precedence(credentials);
        let all = || self.sources.iter().map(of_source);
        match all().any(|precedence| precedence == Precedence::Known) {
            true => Precedence::Known,
            false => all().max().unwrap_or_default(),
        }
    }

    fn may_be_remembered(&self, identity: &Identity) -> bool {
        let Some((at, inner)) = self.source_of(identity) else { return false };
        self.sources[at].authenticator.may_be_remembered(inner.as_ref().unwrap_or(identity))
    }

    fn generation(&self) -> u64 {
        self.generation_of_all()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        self.standing_at(identity, since, ListenerLogins::default())
    }

    fn standing_at(&self, identity: &Identity, since: u64, rules: ListenerLogins) -> Standing {
        let Some((at, inner)) = self.source_of(identity) else { return Standing::Suspended };
        let since = self.generations().at(since, Member::authenticator(at));
        let identity = inner.as_ref().unwrap_or(identity);
        self.sources[at].authenticator.standing_at(identity, since, rules)
    }

    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        let (at, inner) = self.source_of(identity)?;
        let source = &self.sources[at];
        let identity = inner.unwrap_or_else(|| Identity { source: None, ..identity.clone() });
        Some(source.mark(source.authenticator.renewed(&identity)?))
    }

    fn keep_logins_in(&self, ledger: Arc<dyn LoginLedger>) {
        for source in &self.sources {
            source.authenticator.keep_logins_in(Arc::clone(&ledger));
        }
    }

    fn login_counts(&self) -> LoginCounts {
        let counts = self.sources.iter().map(|source| source.authenticator.login_counts());
        counts.fold(LoginCounts::default(), LoginCounts::and)
    }

    #[cfg(feature = "accounts")]
    fn tokens(&self) -> Option<Arc<Tokens>> {
        self.sources.iter().find_map(|source| source.authenticator.tokens())
    }

    fn failed_logins(&self, address: Option<IpAddr>, username: Option<&str>) -> Vec<FailedLogins> {
        let of_source = |source: &Source| source.authenticator.failed_logins(address, username);
        self.sources.iter().flat_map(of_source).collect()
    }

    fn forget_failures(&self, address: IpAddr, username: Option<&str>) -> bool {
        let forget = |source: &Source| source.authenticator.forget_failures(address, username);
        self.sources.iter().fold(false, |any, source| forget(source) | any)
    }

    fn limits_of(&self, username: &str) -> Option<OwnLimits> {
        self.sources.iter().find_map(|source| source.authenticator.limits_of(username))
    }

    fn has_user(&self, username: &str) -> bool {
        self.sources.iter().any(|source| source.authenticator.has_user(username))
    }

    fn decides_about_strangers(&self) -> bool {
        self.for_strangers().is_some()
    }

    fn source_metrics(&self) -> Vec<Arc<SourceMetrics>> {
        self.sources.iter().map(|source| Arc::clone(&source.metrics)).collect()
    }

    fn methods(&self) -> Option<Arc<dyn EnhancedAuthenticator>> {
        let has_some = self.sources.iter().any(|source| source.methods.is_some());
        has_some.then(|| Arc::new(ChainMethods(self.clone())) as Arc<dyn EnhancedAuthenticator>)
    }
}

/// Returns the answer to a client that no source knows.
const fn unknown(may_pass: bool) -> AuthenticationError {
    if may_pass { AuthenticationError::NotMine } else { AuthenticationError::BadCredentials }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.iter().map(|source| &source.name)).finish()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}
