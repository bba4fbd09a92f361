//! Logins by SCRAM-SHA-256 with an accounts file: which succeed, and what an attacker cannot learn.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use hearthmq::auth::{
    AuthenticationConfig, AuthenticationError, Authenticator as _, ClientCertificate, Credentials,
    EnhancedAuthenticator as _, Exchange, ExchangeStart, FileAuthenticator, Identity,
    ListenerLogins, Login, SCRAM_ITERATIONS_DEFAULT, ScramSha256, Step, add_user, hash_password,
    set_password,
};

use crate::scram::{Challenge, SCRAM, ScramClient};

const ANN: ScramClient<'_> = ScramClient { name: "ann", password: "secret" };

fn iterations(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

/// Accounts in a file: ann with SCRAM keys, ben without.
struct World {
    _directory: tempfile::TempDir,
    path: PathBuf,
    accounts: Arc<FileAuthenticator>,
    method: ScramSha256,
}

fn world(config: AuthenticationConfig) -> World {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    set_password(&path, "ann", "secret", iterations(4_096)).unwrap();
    set_password(&path, "ben", "other", None).unwrap();
    let accounts = Arc::new(FileAuthenticator::open(&path, config).unwrap());
    let method = ScramSha256::new(Arc::clone(&accounts));
    World { _directory: directory, path, accounts, method }
}

fn nobody() -> Credentials<'static> {
    Credentials {
        client_id: Some("client"),
        username: None,
        password: None,
        bearer: None,
        certificate: None,
        peer: "192.0.2.1:40000".parse().unwrap(),
        listener: "mqtt://127.0.0.1:1883",
        rules: ListenerLogins::default(),
        proven: false,
        may_pass: false,
    }
}

impl World {
    fn begin(&self, credentials: Credentials<'_>) -> Box<dyn Exchange> {
        assert!(self.method.knows(SCRAM));
        self.method.begin(ExchangeStart { method: SCRAM, credentials, identity: None })
    }

    /// Runs the whole exchange; returns its result, after checking the broker's last message.
    async fn login(
        &self,
        client: &ScramClient<'_>,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let mut exchange = self.begin(credentials);
        let Step::Continue(Some(challenge)) = exchange.step(Some(&client.first())).await? else {
            panic!("a challenge is expected");
        };
        let (last, expected) = client.last(&challenge);
        match exchange.step(Some(&last)).await? {
            Step::Done { identity, data } => {
                assert_eq!(data, Some(expected));
                Ok(identity)
            }
            Step::Continue(_) => panic!("the end is expected"),
        }
    }

    /// Returns the salt and iterations that a name gets.
    async fn told(&self, name: &str) -> (String, u32) {
        let client = ScramClient { name, password: "" };
        let step = self.begin(nobody()).step(Some(&client.first())).await;
        let Ok(Step::Continue(Some(challenge))) = step else { panic!("{step:?}") };
        let Challenge { salt, iterations, .. } = Challenge::read(&challenge);
        (salt, iterations)
    }
}

fn user(name: &str) -> Identity {
    Identity { username: Some(name.into()), login: Login::Scram, ..Identity::default() }
}

const BAD: Result<Identity, AuthenticationError> = Err(AuthenticationError::BadCredentials);

#[tokio::test]
async fn the_password_of_an_account_with_keys_is_shown_without_being_sent() {
    let world = world(AuthenticationConfig::default());
    assert_eq!(world.login(&ANN, nobody()).await, Ok(user("ann")));
    let shown = Credentials { password: Some(b"secret"), ..nobody() };
    let username = Credentials { username: Some("ann"), ..shown };
    let by_password = Identity { login: Login::Password, ..user("ann") };
    assert_eq!(world.accounts.authenticate(username).await, Ok(by_password), "and the old way");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_has_one_answer() {
    let world = world(AuthenticationConfig::default());
    for (name, password) in
        [("ann", "Secret"), ("ann", ""), ("ben", "other"), ("cleo", "secret"), ("ANN", "secret")]
    {
        assert_eq!(world.login(&ScramClient { name, password }, nobody()).await, BAD, "{name}");
    }
}

#[tokio::test]
async fn nobody_learns_which_names_have_accounts_not_even_over_time() {
    let world = world(AuthenticationConfig::default());
    let names = ["ann", "ben", "cleo", "d,=ö"];
    let mut before = Vec::new();
    for name in names {
        before.push(world.told(name).await);
    }
    assert!(before.iter().all(|(salt, iterations)| salt.len() == 24 && *iterations == 4_096));
    let same = async |world: &World| {
        for (name, before) in names.into_iter().zip(&before) {
            assert_eq!(world.told(name).await, *before, "{name}");
        }
    };
    same(&world).await;
    // One user gets an account, one another password, one its first keys; then the broker is
    // restarted.
    set_password(&world.path, "cleo", "new", iterations(4_096)).unwrap();
    set_password(&world.path, "ann", "new", iterations(4_096)).unwrap();
    set_password(&world.path, "ben", "new", iterations(4_096)).unwrap();
    world.accounts.reload().unwrap();
    same(&world).await;
    let accounts = FileAuthenticator::open(&world.path, AuthenticationConfig::default()).unwrap();
    let restarted = World { method: ScramSha256::new(Arc::new(accounts)), ..world };
    same(&restarted).await;
    let cleo = ScramClient { name: "cleo", password: "new" };
    assert_eq!(restarted.login(&cleo, nobody()).await, Ok(user("cleo")));
    // They lose their keys.
    for name in ["ann", "ben", "cleo"] {
        add_user(&restarted.path, name, &hash_password(b"new")).unwrap();
    }
    set_password(&restarted.path, "somebody else", "x", iterations(4_096)).unwrap();
    restarted.accounts.reload().unwrap();
    same(&restarted).await;
}

#[tokio::test]
async fn iterations_of_names_without_keys_are_those_of_others() {
    let world = world(AuthenticationConfig::default());
    set_password(&world.path, "dora", "x", iterations(5_000)).unwrap();
    world.accounts.reload().unwrap();
    let mut told = Vec::new();
    for number in 0..32 {
        told.push(world.told(&format!("nobody-{number}")).await.1);
    }
    assert!(told.contains(&4_096) && told.contains(&5_000), "{told:?}");
    fs::write(&world.path, "").unwrap();
    world.accounts.reload().unwrap();
    assert_eq!(world.told("ann").await.1, SCRAM_ITERATIONS_DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn a_user_name_beside_it_must_be_the_same() {
    let world = world(AuthenticationConfig::default());
    let as_ann = Credentials { username: Some("ann"), password: Some(b"?"), ..nobody() };
    assert_eq!(world.login(&ANN, as_ann).await, Ok(user("ann")));
    let as_ben = Credentials { username: Some("ben"), ..nobody() };
    assert_eq!(world.login(&ANN, as_ben).await, BAD);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_beside_it_must_be_of_the_same_user_and_stays_with_the_identity() {
    let config =
        AuthenticationConfig { client_id_is_common_name: true, ..AuthenticationConfig::default() };
    let world = world(config);
    let certificate = |name: &str| ClientCertificate {
        common_name: name.to_owned(),
        serial_number: "01".to_owned(),
    };
    let (anns, bens) = (certificate("ann"), certificate("ben"));
    let shown = Credentials { client_id: Some("ann"), certificate: Some(&anns), ..nobody() };
    let identity = world.login(&ANN, shown).await.unwrap();
    assert_eq!(identity.certificate.as_deref(), Some(&anns));
    let other = Credentials { certificate: Some(&bens), ..shown };
    assert_eq!(world.login(&ANN, other).await, BAD);
    let other = Credentials { client_id: Some("ben"), ..shown };
    assert_eq!(world.login(&ANN, other).await, Err(AuthenticationError::NotAllowed));
}

/// Section 6 of RFC 5802: a client that knows channel binding says `y` to a server that does not
/// offer it; one that insists on it says `p=` and is refused.
#[tokio::test]
async fn channel_binding_is_refused_and_a_client_that_can_do_without_is_not() {
    let world = world(AuthenticationConfig::default());
    let begun = async |message: &[u8]| world.begin(nobody()).step(Some(message)).await;
    assert!(begun(b"y,,n=ann,r=abc").await.is_ok());
    let refused = Err(AuthenticationError::NotAllowed);
    assert_eq!(begun(b"p=tls-exporter,,n=ann,r=abc").await, refused);
    // No client may act as another one; acting as itself is allowed.
    assert!(begun(b"n,a=ann,n=ann,r=abc").await.is_ok());
    assert_eq!(begun(b"n,a=ben,n=ann,r=abc").await, refused);
    assert_eq!(begun(b"\0").await, Err(AuthenticationError::BadCredentials));
}

#[tokio::test]
async fn a_name_is_found_however_it_is_typed() {
    let world = world(AuthenticationConfig::default());
    set_password(&world.path, "r\u{E9}n\u{E9}", "secret", iterations(4_096)).unwrap();
    world.accounts.reload().unwrap();
    let decomposed = ScramClient { name: "re\u{301}ne\u{301}", password: "secret" };
    assert_eq!(world.login(&decomposed, nobody()).await, Ok(user("r\u{E9}n\u{E9}")));
}

#[tokio::test(start_paused = true)]
async fn failures_count_together_with_those_of_passwords() {
    let world = world(AuthenticationConfig::default());
    let start = tokio::time::Instant::now();
    let guess = ScramClient { password: "guess", ..ANN };
    for number in 0..5_u8 {
        assert_eq!(world.login(&guess, nobody()).await, BAD);
        let password = [b"guess", &[number][..]].concat();
        let shown = Credentials { username: Some("ann"), password: Some(&password), ..nobody() };
        assert_eq!(world.accounts.authenticate(shown).await, BAD);
    }
    // 0.25 + 0.5 + 1 + 2 + 4 + 4 + 4 seconds of delay.
    assert!(start.elapsed().as_millis() >= 15_750);
    let refused = world.login(&ANN, nobody()).await;
    assert_eq!(refused, Err(AuthenticationError::TooManyAttempts { retry_after_secs: 60 }));
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    for _ in 0..30 {
        assert_eq!(world.login(&guess, nobody()).await, BAD);
        assert_eq!(world.login(&ANN, nobody()).await, Ok(user("ann")), "which clears the count");
    }
}

/// SASLprep removes a soft hyphen.
#[tokio::test(start_paused = true)]
async fn failures_of_all_spellings_of_a_name_count_together() {
    let world = world(AuthenticationConfig::default());
    let too_many = Err(AuthenticationError::TooManyAttempts { retry_after_secs: 60 });
    for name in ["ann", "ben", "nobody"] {
        for hyphens in 1..=10 {
            let spelling = format!("{}{name}", "\u{AD}".repeat(hyphens));
            let guess = ScramClient { name: &spelling, password: "guess" };
            assert_eq!(world.login(&guess, nobody()).await, BAD, "{name} {hyphens}");
        }
        let hyphenated = format!("{name}\u{AD}");
        for spelling in [name, &hyphenated] {
            let right = ScramClient { name: spelling, password: "secret" };
            assert_eq!(world.login(&right, nobody()).await, too_many, "{spelling:?}");
        }
        let shown = Credentials { username: Some(name), password: Some(b"secret"), ..nobody() };
        assert_eq!(world.accounts.authenticate(shown).await, too_many, "{name} by password");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volley_of_guesses_is_cut_short() {
    let world = world(AuthenticationConfig::default());
    let guess = ScramClient { password: "guess", ..ANN };
    let guesses = (0..40).map(|_| world.login(&guess, nobody()));
    let outcomes = futures_util::future::join_all(guesses).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == BAD).count(), 10);
}

#[test]
fn a_new_password_without_keys_takes_the_old_keys_away_and_the_rest_stays() {
    let world = world(AuthenticationConfig::default());
    let read = || fs::read_to_string(&world.path).unwrap();
    let secret = |text: &str| text.split("[scram]").nth(1).unwrap()[..60].to_owned();
    let before = read();
    assert_eq!(before.matches("scram = \"SCRAM-SHA-256$4096:").count(), 1);
    add_user(&world.path, "ann", &hash_password(b"new")).unwrap();
    let between = read();
    assert_eq!(between.matches("scram = \"\"").count(), 1);
    set_password(&world.path, "ann", "newer", iterations(4_096)).unwrap();
    let after = read();
    assert_eq!(after.matches("scram = \"SCRAM-SHA-256$4096:").count(), 1);
    assert_eq!([secret(&between), secret(&after)], [secret(&before), secret(&before)]);
    set_password(&world.path, "ben", "other", iterations(5_000)).unwrap();
    assert_eq!(read().matches("scram = \"SCRAM-SHA-256$5000:").count(), 1);
    assert!(read().ends_with('\n'));
}

#[test]
fn accounts_in_one_line_get_their_keys_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    let hash = hash_password(b"old");
    let line = format!("users = [{{ name = 'ann', password_hash = '{hash}' }}] # all of them\n");
    fs::write(&path, line).unwrap();
    set_password(&path, "ann", "new", iterations(4_096)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().next().unwrap().ends_with("\" }] # all of them"), "{text}");
    FileAuthenticator::open(&path, AuthenticationConfig::default()).unwrap();
}

#[test]
fn what_is_wrong_in_the_file_is_named_with_its_line() {
    let hash = hash_password(b"x");
    let user = format!("[[users]]\nname = \"ann\"\npassword_hash = \"{hash}\"\n");
    for (text, said) in [
        (format!("{user}scram = \"x\"\n"), "users.toml:4: not SCRAM keys; `hearthmq passwd"),
        (
            format!(
                "{user}scram = \"SCRAM-SHA-256$1:{0}AA==${1}=:{1}=\"\n",
                "A".repeat(20),
                "A".repeat(43)
            ),
            "users.toml:4: SCRAM iterations are out of range; 4096 to",
        ),
        (format!("{user}[scram]\nsecret = \"x\"\n"), "users.toml:5: not 32 bytes in base64"),
        (format!("{user}[scram]\nsalt = \"x\"\n"), "users.toml:5: unknown field `salt`"),
    ] {
        let error = hearthmq::auth::Accounts::parse(Path::new("users.toml"), &text).unwrap_err();
        assert!(error.to_string().starts_with(said), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    set_password(&path, "ann", "x", iterations(4_095)).unwrap_err();
    assert!(!path.exists());
}
