//! The order of logins when more passwords come than can be hashed, and what survives a restart.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{join, join_all, select};
use hearthmq::auth::{
    Accounts, AuthenticationConfig, AuthenticationError, Authenticator, Chain, Credentials,
    FileAuthenticator, LoginKey, LoginLedger, Precedence, Source, hash_password,
};

fn authenticator(config: AuthenticationConfig) -> FileAuthenticator {
    let hash = hash_password(b"secret");
    let text = format!("[[users]]\nname = \"ann\"\npassword_hash = \"{hash}\"\n");
    FileAuthenticator::new(Accounts::parse(Path::new("users.toml"), &text).unwrap(), config)
}

/// One hash at a time, no remembered logins, no refusals.
fn slow() -> AuthenticationConfig {
    let mut config = AuthenticationConfig {
        hashes_at_once_max: 1,
        verified_secs: 0,
        ..AuthenticationConfig::default()
    };
    config.throttle.address_failures_max = 0;
    config
}

fn from(address: [u8; 4]) -> Credentials<'static> {
    Credentials {
        client_id: Some("client"),
        ..Credentials::new(SocketAddr::from((address, 40_000)), "mqtt://127.0.0.1:1883")
    }
}

/// Guesses with made-up names, without end.
async fn guess_without_end(authenticator: &FileAuthenticator, address: [u8; 4], number: usize) {
    for turn in 0.. {
        let name = format!("u{number}.{turn}");
        let guess = Credentials { username: Some(&name), password: Some(b"nope"), ..from(address) };
        if authenticator.authenticate(guess).await != Err(AuthenticationError::BadCredentials) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

const GOOD: [u8; 4] = [10, 0, 0, 1];

/// Returns how many other passwords are hashed after a good client has come.
async fn hashes_before_the_good_client(authenticator: &FileAuthenticator) -> u64 {
    let good = Credentials { username: Some("ann"), password: Some(b"secret"), ..from(GOOD) };
    let before = authenticator.login_counts().hashed;
    assert!(authenticator.authenticate(good).await.is_ok());
    authenticator.login_counts().hashed - before
}

#[tokio::test]
async fn a_good_client_gets_in_at_once_however_many_others_guess() {
    for addresses in [1, 20, 1_200] {
        let authenticator = authenticator(slow());
        let strangers = (0..1_200).map(|number| {
            let address = number % addresses;
            let address = [127, 7, (address / 250) as u8, (address % 250) as u8];
            guess_without_end(&authenticator, address, number)
        });
        let good = async {
            tokio::task::yield_now().await;
            for _ in 0..8 {
                let hashes = hashes_before_the_good_client(&authenticator).await;
                assert!(hashes <= 10, "after {hashes} others, from {addresses} addresses");
            }
        };
        select(Box::pin(join_all(strangers)), Box::pin(good)).await;
    }
}

/// `verified_secs` of 0 forgets the password, but not that the user logged in from there. The REST
/// interface asks an authenticator of any type.
#[tokio::test]
async fn a_login_ranks_by_what_was_right_and_wrong_at_its_address() {
    let authenticator: Arc<dyn Authenticator> = Arc::new(authenticator(slow()));
    let shown = |address, password: &'static [u8]| Credentials {
        client_id: None,
        username: Some("ann"),
        password: Some(password),
        ..from(address)
    };
    let precedence = |shown: &Credentials<'_>| Authenticator::precedence(&authenticator, shown);
    assert_eq!(precedence(&shown(GOOD, b"secret")), Precedence::Fresh);
    authenticator.authenticate(shown(GOOD, b"secret")).await.unwrap();
    assert_eq!(precedence(&shown(GOOD, b"secret")), Precedence::Known);
    assert_eq!(precedence(&shown([10, 0, 0, 2], b"secret")), Precedence::Fresh);
    let other = Credentials { username: Some("bob"), ..shown(GOOD, b"secret") };
    assert_eq!(precedence(&other), Precedence::Fresh);
    authenticator.authenticate(other).await.unwrap_err();
    assert_eq!(precedence(&other), Precedence::Failed);
    assert_eq!(precedence(&shown(GOOD, b"secret")), Precedence::Known);
}

/// Stores pairs in memory.
#[derive(Default)]
struct Book(Mutex<Vec<LoginKey>>);

impl LoginLedger for Book {
    fn read(&self) -> Vec<LoginKey> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, key: LoginKey) {
        let mut pairs = self.0.lock().unwrap();
        pairs.retain(|other| *other != key);
        pairs.push(key);
    }

    fn remove(&self, key: LoginKey) {
        self.0.lock().unwrap().retain(|other| *other != key);
    }
}

#[tokio::test]
async fn who_was_right_before_a_restart_comes_before_strangers_after_it() {
    let book = Arc::new(Book::default());
    let first = authenticator(slow());
    first.keep_logins_in(Arc::<Book>::clone(&book));
    let ann = Credentials { username: Some("ann"), password: Some(b"secret"), ..from(GOOD) };
    assert!(first.authenticate(ann).await.is_ok());
    let wrong = Credentials { password: Some(b"wrong"), ..ann };
    assert!(first.authenticate(wrong).await.is_err());
    assert_eq!(book.read().len(), 1, "of what is wrong nothing is kept");
    drop(first);

    let second = authenticator(slow());
    second.keep_logins_in(Arc::<Book>::clone(&book));
    assert_eq!(second.login_counts().known, 1);
    // Strangers of the same network, without failures, came first and fill the room.
    let strangers = (1..=250).map(|number| guess_without_end(&second, [10, 0, 0, number], 0));
    let good = async {
        tokio::task::yield_now().await;
        let hashes = hashes_before_the_good_client(&second).await;
        assert!(hashes <= 3, "after {hashes} others");
    };
    select(Box::pin(join_all(strangers)), Box::pin(good)).await;
}

#[tokio::test]
async fn pairs_that_are_too_many_leave_the_ledger_too() {
    let book = Arc::new(Book::default());
    let config = AuthenticationConfig { known_logins_max: 2, ..slow() };
    let authenticator = authenticator(config);
    authenticator.keep_logins_in(Arc::<Book>::clone(&book));
    for number in 1..=3 {
        let ann = Credentials {
            username: Some("ann"),
            password: Some(b"secret"),
            ..from([10, 0, 0, number])
        };
        assert!(authenticator.authenticate(ann).await.is_ok());
    }
    assert_eq!(book.read().len(), 1, "a user has a share");
    assert_eq!(authenticator.login_counts().known, 1);
}

#[tokio::test]
async fn a_fleet_with_one_credential_is_hashed_once() {
    let mut config = slow();
    config.verified_secs = 300;
    let authenticator = authenticator(config);
    let ann = Credentials { username: Some("ann"), password: Some(b"secret"), ..from(GOOD) };
    let all = join_all((0..40).map(|_| authenticator.authenticate(ann)));
    let (outcomes, ()) = join(all, async {}).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(authenticator.login_counts().hashed, 1);
}

#[tokio::test]
async fn a_user_is_known_to_an_authenticator_behind_any_number_of_pointers() {
    let shared = Arc::new(authenticator(AuthenticationConfig::default()));
    let good = Credentials { username: Some("ann"), password: Some(b"secret"), ..from(GOOD) };
    let twice: Arc<dyn Authenticator> = Arc::new(Arc::clone(&shared));
    assert_eq!(twice.precedence(&good), Precedence::Fresh);
    assert!(twice.authenticate(good).await.is_ok());
    assert_eq!(shared.precedence(&good), Precedence::Known);
    assert_eq!(twice.precedence(&good), Precedence::Known);
    let chain = Chain::new().with(Source::new("accounts", twice));
    assert_eq!(chain.precedence(&good), Precedence::Known);
}
