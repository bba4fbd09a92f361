//! Several authenticators as one: which of them decides, and what it costs the others.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator, Chain, ClientCertificate,
    Credentials, EnhancedAuthenticator, Exchange, ExchangeStart, FileAuthenticator, Identity,
    Login, ScramSha256, Source, Standing, Step, ThrottleConfig, hash_password, set_password,
};

use crate::scram::{SCRAM, ScramClient};

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);

fn accounts(names: &[&str]) -> Accounts {
    let hash = hash_password(b"secret");
    let account = |name| format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\n");
    let text: String = names.iter().map(account).collect();
    Accounts::parse(Path::new("users.toml"), &text).unwrap()
}

/// An authenticator that knows `zoe`, with the password `own`, and counts questions.
#[derive(Clone, Default)]
struct Own {
    asked: Arc<AtomicU64>,
    generation: Arc<AtomicU64>,
}

#[async_trait]
impl Authenticator for Own {
    async fn authenticate(&self, shown: Credentials<'_>) -> Outcome {
        self.asked.fetch_add(1, Relaxed);
        match (shown.username, shown.password) {
            (Some("zoe"), Some(b"own")) => Ok(named("zoe")),
            (Some("zoe"), _) => BAD,
            (Some("absent"), _) => Err(AuthenticationError::Unavailable),
            _ => Err(AuthenticationError::NotMine),
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn standing(&self, _: &Identity, since: u64) -> Standing {
        match since < self.generation() {
            true => Standing::Changed,
            false => Standing::Good,
        }
    }
}

/// A chain of a file with the account `ann` and of [`Own`], in one of the two orders.
struct World {
    file: Arc<FileAuthenticator>,
    own: Own,
    chain: Chain,
}

fn world(config: AuthenticationConfig, is_file_first: bool) -> World {
    let file = Arc::new(FileAuthenticator::new(accounts(&["ann"]), config));
    let own = Own::default();
    let mut sources = [Source::new("accounts", Arc::clone(&file)), Source::new("own", own.clone())];
    if !is_file_first {
        sources.reverse();
    }
    World { file, own, chain: sources.into_iter().fold(Chain::new(), Chain::with) }
}

impl World {
    async fn login(&self, name: &str, password: &str) -> Outcome {
        self.chain.authenticate(shown(name, password)).await
    }

    /// Returns how often the own authenticator was asked, and how many passwords were hashed.
    fn counts(&self) -> (u64, u64) {
        (self.own.asked.load(Relaxed), self.chain.login_counts().hashed)
    }
}

fn nobody() -> Credentials<'static> {
    let peer = "192.0.2.1:40000".parse().unwrap();
    Credentials { client_id: Some("client"), ..Credentials::new(peer, "mqtt://127.0.0.1:1883") }
}

fn shown<'a>(name: &'a str, password: &'a str) -> Credentials<'a> {
    Credentials { username: Some(name), password: Some(password.as_bytes()), ..nobody() }
}

fn named(name: &str) -> Identity {
    Identity { username: Some(name.into()), ..Identity::default() }
}

fn of_file(name: &str) -> Identity {
    Identity { login: Login::Password, source: Some("accounts".into()), ..named(name) }
}

fn of_own(name: &str) -> Identity {
    Identity { source: Some("own".into()), ..named(name) }
}

fn without_delays() -> AuthenticationConfig {
    // Long enough for hashes on a machine that is busy with other work.
    let throttle = ThrottleConfig {
        first_delay_ms: 0,
        window_secs: 3_600,
        refusal_secs: 3_600,
        ..ThrottleConfig::default()
    };
    AuthenticationConfig { throttle, ..AuthenticationConfig::default() }
}

#[tokio::test]
async fn the_first_source_that_does_not_pass_decides_and_later_ones_are_not_asked() {
    let world = world(without_delays(), true);
    assert_eq!(world.login("ann", "secret").await, Ok(of_file("ann")));
    assert_eq!(world.login("ann", "own").await, BAD);
    assert_eq!(world.counts(), (0, 2));
    assert_eq!(world.login("zoe", "own").await, Ok(of_own("zoe")));
    assert_eq!(world.login("zoe", "secret").await, BAD);
    assert_eq!(world.counts(), (2, 2), "the file passes without a hash");
}

#[tokio::test]
async fn while_a_source_is_unavailable_no_later_one_decides() {
    let world = world(without_delays(), false);
    world.file.replace(accounts(&["absent"]));
    assert_eq!(world.login("absent", "secret").await, Err(AuthenticationError::Unavailable));
    assert_eq!(world.counts(), (1, 0));
}

#[tokio::test]
async fn a_user_that_no_source_knows_costs_one_hash_as_a_wrong_password_does() {
    for is_file_first in [true, false] {
        for name in ["ann", "cleo"] {
            let config = AuthenticationConfig {
                hashes_at_once_max: 1,
                hashes_waiting_max: 1,
                ..without_delays()
            };
            let world = world(config, is_file_first);
            let logins = (0..3).map(|_| world.login(name, "wrong"));
            let outcomes = futures_util::future::join_all(logins).await;
            let busy = Err(AuthenticationError::Unavailable);
            assert_eq!(outcomes, [BAD, BAD, busy], "{name} {is_file_first}");
        }
    }
}

#[tokio::test]
async fn a_failure_counts_once_however_many_sources_there_are() {
    for is_file_first in [true, false] {
        for name in ["ann", "cleo"] {
            let world = world(without_delays(), is_file_first);
            for number in 0..10 {
                let outcome = world.login(name, &format!("guess {number}")).await;
                assert_eq!(outcome, BAD, "{name} {number} {is_file_first}");
            }
            let refused = world.login(name, "another").await;
            let is_refused = matches!(refused, Err(AuthenticationError::TooManyAttempts { .. }));
            assert!(is_refused, "{refused:?}");
            assert_eq!((world.counts().1, world.chain.login_counts().user_lockouts), (10, 1));
            assert_eq!(world.login("zoe", "own").await, Ok(of_own("zoe")), "another user");
        }
    }
}

#[tokio::test]
async fn a_chain_without_accounts_refuses_a_client_that_no_source_knows() {
    let chain = Chain::new().with(Source::new("own", Own::default()));
    assert_eq!(chain.authenticate(shown("cleo", "x")).await, BAD);
    assert_eq!(Chain::new().authenticate(nobody()).await, BAD);
}

#[tokio::test]
async fn a_client_is_anonymous_only_if_no_source_knows_it() {
    let config =
        AuthenticationConfig { anonymous: true, anonymous_with_name: true, ..without_delays() };
    for is_file_first in [true, false] {
        let world = world(config.clone(), is_file_first);
        let anonymous = Identity {
            login: Login::Anonymous,
            source: Some("accounts".into()),
            ..Identity::default()
        };
        assert_eq!(world.chain.authenticate(nobody()).await, Ok(anonymous.clone()));
        assert_eq!(world.counts().0, 1, "the other source was asked first");
        assert_eq!(world.login("cleo", "x").await, Ok(anonymous));
        assert_eq!(world.login("zoe", "own").await, Ok(of_own("zoe")));
        assert_eq!(world.login("zoe", "x").await, BAD);
        assert_eq!(world.login("ann", "x").await, BAD);
    }
}

#[tokio::test]
async fn a_certificate_that_needs_an_account_may_have_it_at_another_source() {
    let certificate = ClientCertificate { common_name: "zoe".into(), serial_number: "1".into() };
    let login = |needs_account, password| {
        let config =
            AuthenticationConfig { certificate_needs_account: needs_account, ..without_delays() };
        let (world, certificate) = (world(config, true), certificate.clone());
        async move {
            let shown = Credentials { certificate: Some(&certificate), ..shown("zoe", password) };
            world.chain.authenticate(shown).await
        }
    };
    assert_eq!(login(true, "own").await, Ok(of_own("zoe")));
    assert_eq!(login(true, "x").await, BAD);
    let by_certificate = login(false, "x").await.unwrap();
    assert_eq!(by_certificate.login, Login::Certificate, "it suffices");
}

#[tokio::test]
async fn the_source_that_let_a_client_in_is_asked_what_has_become_of_it() {
    let world = world(without_delays(), true);
    let (chain, own) = (&world.chain, &world.own);
    let standing = |identity: &Identity, since| chain.standing(identity, since);
    let (ann, zoe) = (of_file("ann"), of_own("zoe"));
    let begun = chain.generation();
    for identity in [&ann, &zoe] {
        assert_eq!(standing(identity, begun), Standing::Good);
    }
    // Many changes of one source say nothing of the clients of another one.
    own.generation.store(5, Relaxed);
    let own_changed = chain.generation();
    assert!(own_changed > begun);
    assert_eq!(standing(&zoe, begun), Standing::Changed);
    assert_eq!(standing(&zoe, own_changed), Standing::Good);
    assert_eq!(standing(&ann, begun), Standing::Good);

    world.file.replace(accounts(&["ann"])); // with another hash
    let file_changed = chain.generation();
    assert!(file_changed > own_changed);
    assert_eq!(standing(&ann, begun), Standing::Changed);
    assert_eq!(standing(&ann, own_changed), Standing::Changed);
    assert_eq!(standing(&ann, file_changed), Standing::Good);
    assert_eq!(standing(&zoe, own_changed), Standing::Good);

    world.file.replace(accounts(&["zoe"]));
    assert_eq!(standing(&ann, file_changed), Standing::Gone);
    assert_eq!(standing(&zoe, file_changed), Standing::Good);
    let of_former = Identity { source: Some("former".into()), ..named("ann") };
    assert_eq!(standing(&of_former, file_changed), Standing::Suspended);
    let before_chains = Identity { source: None, ..ann };
    assert_eq!(standing(&before_chains, file_changed), Standing::Gone, "it is the file's");
}

#[tokio::test]
async fn a_chain_may_be_a_source_of_another_one() {
    let World { file, chain, .. } = world(without_delays(), true);
    let outer = Chain::new()
        .with(Source::new("first", Own::default()))
        .with(Source::new("inner", chain))
        .with(Source::new("last", Own::default()));
    let begun = outer.generation();
    let ann = outer.authenticate(shown("ann", "secret")).await.unwrap();
    assert_eq!(ann, Identity { source: Some("inner/accounts".into()), ..of_file("ann") });
    assert_eq!(outer.authenticate(shown("cleo", "secret")).await, BAD);
    assert_eq!(outer.login_counts().hashed, 2, "one of them for cleo");
    assert_eq!(outer.standing(&ann, begun), Standing::Good);
    file.replace(accounts(&["ann"]));
    assert_eq!(outer.standing(&ann, begun), Standing::Changed);
    file.replace(accounts(&[]));
    assert_eq!(outer.standing(&ann, outer.generation()), Standing::Gone);
}

/// SCRAM-SHA-256 for `zoe` alone: the challenge is `own`, and any answer is right.
struct OwnScram {
    is_asking: bool,
}

impl EnhancedAuthenticator for OwnScram {
    fn knows(&self, method: &str) -> bool {
        [SCRAM, "OWN"].contains(&method)
    }

    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(Self { is_asking: false })
    }
}

#[async_trait]
impl Exchange for OwnScram {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        if self.is_asking {
            return match data {
                Some(b"pass") => Err(AuthenticationError::NotMine), // too late
                _ => Ok(Step::Done { identity: named("zoe"), data: None }),
            };
        }
        self.is_asking = data.is_some_and(|data| data.starts_with(b"n,,n=zoe,"));
        match (self.is_asking, data) {
            (true, _) => Ok(Step::Continue(Some(b"own".to_vec()))),
            (false, None) => Ok(Step::Continue(None)),
            (false, Some(_)) => Err(AuthenticationError::NotMine),
        }
    }
}

/// Returns a chain with SCRAM at both sources, and the withdrawable one.
fn with_scram(is_file_first: bool) -> (Arc<dyn EnhancedAuthenticator>, Chain, ScramSha256) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    set_password(&path, "ann", "secret", std::num::NonZeroU32::new(4_096)).unwrap();
    let file = Arc::new(FileAuthenticator::open(&path, without_delays()).unwrap());
    let scram = ScramSha256::new(Arc::clone(&file));
    let mut sources = [
        Source::new("accounts", file).with_methods(scram.clone()),
        Source::new("own", Own::default()).with_methods(OwnScram { is_asking: false }),
    ];
    if !is_file_first {
        sources.reverse();
    }
    let chain = sources.into_iter().fold(Chain::new(), Chain::with);
    (chain.methods().unwrap(), chain, scram)
}

fn begin(methods: &Arc<dyn EnhancedAuthenticator>) -> Box<dyn Exchange> {
    methods.begin(ExchangeStart { method: SCRAM, credentials: nobody(), identity: None })
}

#[tokio::test]
async fn the_sources_that_know_a_method_get_its_first_data_one_after_the_other() {
    for is_file_first in [true, false] {
        let (methods, chain, _) = with_scram(is_file_first);
        assert!(methods.knows("OWN") && methods.knows(SCRAM) && !methods.knows("OTHER"));
        for starts_empty in [true, false] {
            let (zoe, ann) = (
                ScramClient { name: "zoe", password: "" },
                ScramClient { name: "ann", password: "secret" },
            );
            let [mut of_zoe, mut of_ann] = [(); 2].map(|()| begin(&methods));
            if starts_empty {
                for exchange in [&mut of_zoe, &mut of_ann] {
                    assert_eq!(exchange.step(None).await, Ok(Step::Continue(None)));
                }
            }
            let asked = of_zoe.step(Some(&zoe.first())).await;
            assert_eq!(asked, Ok(Step::Continue(Some(b"own".to_vec()))));
            let done = of_zoe.step(Some(b"x")).await;
            assert_eq!(done, Ok(Step::Done { identity: of_own("zoe"), data: None }));

            let Ok(Step::Continue(Some(challenge))) = of_ann.step(Some(&ann.first())).await else {
                panic!("a challenge is expected")
            };
            let (last, expected) = ann.last(&challenge);
            let identity = Identity { login: Login::Scram, ..of_file("ann") };
            let done = of_ann.step(Some(&last)).await;
            assert_eq!(done, Ok(Step::Done { identity, data: Some(expected) }));
        }
        assert_eq!(chain.login_counts().user_lockouts, 0);
    }
}

#[tokio::test]
async fn a_name_that_no_source_knows_is_challenged_like_any_other_and_fails_once() {
    for is_file_first in [true, false] {
        let (methods, chain, _) = with_scram(is_file_first);
        let cleo = ScramClient { name: "cleo", password: "secret" };
        for _ in 0..10 {
            let mut exchange = begin(&methods);
            let Ok(Step::Continue(Some(challenge))) = exchange.step(Some(&cleo.first())).await
            else {
                panic!("a challenge is expected")
            };
            let refused = exchange.step(Some(&cleo.last(&challenge).0)).await;
            assert_eq!(refused, Err(AuthenticationError::BadCredentials));
        }
        assert_eq!(chain.login_counts().user_lockouts, 1);
    }
}

#[tokio::test]
async fn a_source_cannot_pass_after_it_has_sent_data() {
    let (methods, ..) = with_scram(false);
    let mut exchange = begin(&methods);
    let zoe = ScramClient { name: "zoe", password: "" };
    exchange.step(Some(&zoe.first())).await.unwrap();
    let refused = exchange.step(Some(b"pass")).await;
    assert_eq!(refused, Err(AuthenticationError::BadCredentials));
}

#[tokio::test]
async fn a_login_by_a_method_that_its_source_has_withdrawn_is_suspended() {
    let (methods, _, scram) = with_scram(true);
    let (ann, zoe) = (of_file("ann"), of_own("zoe"));
    let since = methods.generation();
    scram.set_offered(false);
    assert!(methods.knows(SCRAM), "the other source has it");
    assert_eq!(methods.standing(&ann, since), Standing::Suspended);
    assert_eq!(methods.standing(&zoe, since), Standing::Good);
}
