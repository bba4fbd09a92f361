//! Tokens: keys, algorithms, times, claims; and what happens to a connection when a token expires.

use std::{fs, path::PathBuf};

use hearthmq::{
    auth::{
        AllowAll, AuthenticationError, Authenticator, Chain, Credentials, Identity, JWT_METHOD,
        JwtAuthenticator, JwtConfig, Login, Source, Standing, TokenPlace,
    },
    mqtt::{Connect, Packet, ReasonCode, Timestamp},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Signer, now, shown};
use crate::{
    pki::rcgen,
    riddle::{auth_by, connect_by},
    support::{Client, packets::*, pass, secs, world_with},
};

type Outcome = Result<Identity, AuthenticationError>;

const BAD: Outcome = Err(AuthenticationError::BadCredentials);
const NOT_MINE: Outcome = Err(AuthenticationError::NotMine);
const SECRET: &str = "a secret of at least thirty-two bytes";

/// A directory with the files of a configuration.
struct Files {
    directory: TempDir,
    config: JwtConfig,
}

impl Files {
    fn new(algorithms: &[&str]) -> Self {
        let algorithms = algorithms.iter().map(ToString::to_string).collect();
        let config = JwtConfig { algorithms, ..JwtConfig::default() };
        Self { directory: TempDir::new().unwrap(), config }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn with_secret(mut self, text: &str) -> Self {
        self.config.secrets = vec![self.write("secret", text)];
        self
    }

    fn open(&self) -> JwtAuthenticator {
        JwtAuthenticator::open(&self.config).unwrap()
    }

    fn mistake(&self) -> String {
        JwtAuthenticator::open(&self.config).unwrap_err().to_string()
    }
}

fn by_secret(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn hs256() -> Files {
    Files::new(&["HS256"]).with_secret(&format!("{SECRET}\n"))
}

/// Claims of `ann` that hold for a minute, with further ones.
fn ann(more: Value) -> Value {
    let mut claims = json!({"sub": "ann", "exp": now() + 60});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

async fn log_in(authenticator: &JwtAuthenticator, token: &str) -> Outcome {
    authenticator.authenticate(shown("name", token.as_bytes())).await
}

#[actix_rt::test]
async fn a_token_of_each_kind_of_key_is_checked_by_its_key() {
    let signers = [
        ("ES256", Signer::new(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256)),
        ("ES384", Signer::new(Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384)),
        ("EdDSA", Signer::new(Algorithm::EdDSA, &rcgen::PKCS_ED25519)),
        ("RS256", Signer::new(Algorithm::RS256, &rcgen::PKCS_RSA_SHA256)),
        ("PS256", Signer::new(Algorithm::PS256, &rcgen::PKCS_RSA_SHA256)),
    ];
    for (name, signer) in &signers {
        let mut files = Files::new(&[name]);
        files.config.keys = vec![files.write("key.pem", &signer.public)];
        let authenticator = files.open();
        let identity = log_in(&authenticator, &signer.sign(&ann(json!({})))).await.unwrap();
        assert_eq!(identity.username.as_deref(), Some("ann"), "{name}");
        assert_eq!(identity.login, Login::Other);
        for (other, signer) in signers.iter().filter(|(other, _)| other != name) {
            let token = signer.sign(&ann(json!({})));
            assert_eq!(log_in(&authenticator, &token).await, BAD, "{other} by {name}");
        }
    }
    // With all keys and algorithms, the right one of several is found.
    let names: Vec<_> = signers.iter().map(|(name, _)| *name).collect();
    let mut files = Files::new(&names);
    let write = |(name, signer): &(&str, Signer)| files.write(name, &signer.public);
    files.config.keys = signers.iter().map(write).collect();
    let authenticator = files.open();
    for (name, signer) in &signers {
        assert!(log_in(&authenticator, &signer.sign(&ann(json!({})))).await.is_ok(), "{name}");
    }
}

/// A public key is not secret: anybody could sign with it, if the token chose the algorithm.
#[actix_rt::test]
async fn the_algorithm_is_that_of_the_configuration() {
    let signer = Signer::new(Algorithm::RS256, &rcgen::PKCS_RSA_SHA256);
    let mut files = Files::new(&["RS256"]);
    files.config.keys = vec![files.write("key.pem", &signer.public)];
    let by_public_key = EncodingKey::from_secret(signer.public.as_bytes()).unwrap();
    let forged = encode(&Header::new(Algorithm::HS256), &ann(json!({})), &by_public_key).unwrap();
    assert_eq!(log_in(&files.open(), &forged).await, BAD);
    // {"alg":"none"} and {"sub":"ann"}, without a signature.
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.";
    assert_eq!(log_in(&files.open(), unsigned).await, BAD);
    // The right key, by another algorithm of its kind.
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let other = encode(&Header::new(algorithm), &ann(json!({})), &signer.key).unwrap();
        assert_eq!(log_in(&files.open(), &other).await, BAD, "{algorithm:?}");
    }
    let mut both = Files::new(&["RS256", "HS256"]);
    both.config.keys = files.config.keys.clone();
    assert_eq!(log_in(&both.open(), &forged).await, BAD, "the key is not one for HMAC");
}

#[actix_rt::test]
async fn times_issuer_and_audience_are_checked() {
    let mut files = hs256();
    files.config.issuers = vec!["https://id.example".into()];
    files.config.audiences = vec!["mqtt".into(), "rest".into()];
    let authenticator = files.open();
    let right = json!({"iss": "https://id.example", "aud": ["other", "rest"]});
    let with = |more: Value| {
        let mut claims = ann(right.clone());
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        all.retain(|_, value| !value.is_null());
        by_secret(&claims)
    };
    for (more, is_right) in [
        (json!({}), true),
        (json!({"exp": now() - 10}), false), // the leeway is not for it
        (json!({"exp": now() - 120}), false),
        (json!({"exp": null}), false),
        (json!({"exp": "soon"}), false),
        (json!({"nbf": now() - 10}), true),
        (json!({"nbf": now() + 10}), true), // within the leeway
        (json!({"nbf": now() + 120}), false),
        (json!({"iss": "https://other.example"}), false),
        (json!({"iss": null}), false),
        (json!({"aud": "mqtt"}), true),
        (json!({"aud": "other"}), false),
        (json!({"aud": null}), false),
        (json!({"sub": null}), false),
        (json!({"sub": ""}), false),
        (json!({"sub": {"name": "ann"}}), false),
    ] {
        let outcome = log_in(&authenticator, &with(more.clone())).await;
        assert_eq!(outcome.is_ok(), is_right, "{more} {outcome:?}");
    }
    files.config.exp_required = false;
    let forever = log_in(&files.open(), &with(json!({"exp": null}))).await.unwrap();
    assert_eq!(forever.expires_at, None);
}

#[actix_rt::test]
async fn an_identity_expires_with_its_token() {
    let authenticator = hs256().open();
    let exp = now() + 60;
    let identity = log_in(&authenticator, &by_secret(&ann(json!({"exp": exp})))).await.unwrap();
    assert_eq!(identity.expires_at, Some(Timestamp(exp * 1_000)));
}

#[actix_rt::test]
async fn required_claims_have_variables() {
    let mut files = hs256();
    files.config.claims = vec!["device.id=${clientId}".into(), "name=${username}".into()];
    let authenticator = files.open();
    for (claims, is_right) in [
        (json!({"device": {"id": "car"}, "name": "name"}), true),
        (json!({"device": {"id": ["van", "car"]}, "name": "name"}), true),
        (json!({"device": {"id": "van"}, "name": "name"}), false),
        (json!({"device": {"id": "car"}, "name": "other"}), false),
        (json!({"device": {"id": "car"}}), false),
        (json!({"name": "name"}), false),
    ] {
        let outcome = log_in(&authenticator, &by_secret(&ann(claims.clone()))).await;
        assert_eq!(outcome.is_ok(), is_right, "{claims}");
    }
    // A caller over REST has no client identifier.
    let token = by_secret(&ann(json!({"device": {"id": ""}, "name": ""})));
    let credentials = Credentials { client_id: None, ..bearer(&token) };
    assert_eq!(authenticator.authenticate(credentials).await, BAD);
}

fn bearer(token: &str) -> Credentials<'_> {
    Credentials { username: None, password: None, bearer: Some(token.as_bytes()), ..shown("", b"") }
}

#[actix_rt::test]
async fn claims_become_attributes_groups_and_rules() {
    let mut files = hs256();
    files.config.attributes = vec!["plan".into(), "site=place.site".into(), "absent".into()];
    let authenticator = files.open();
    let claims = json!({
        "plan": 7, "place": {"site": "north"}, "groups": ["field", "night"],
        "acl": [{"effect": "allow", "actions": ["publish"], "topics": ["v/${clientId}"]}],
    });
    let identity = log_in(&authenticator, &by_secret(&ann(claims))).await.unwrap();
    let attributes: Vec<_> = identity.attributes.iter().collect();
    assert_eq!(attributes, [("plan", "7"), ("site", "north")]);
    assert!(identity.groups.contains("field") && identity.groups.contains("night"));
    assert!(identity.rules.as_json().unwrap().contains("v/${clientId}"));
    for wrong in [
        json!({"acl": [{"effect": "allow", "topic": "a"}]}),
        json!({"acl": "everything"}),
        json!({"groups": (0..40).map(|number| number.to_string()).collect::<Vec<_>>()}),
        json!({"plan": "x".repeat(5_000)}),
    ] {
        assert_eq!(log_in(&authenticator, &by_secret(&ann(wrong.clone()))).await, BAD, "{wrong}");
    }
}

#[actix_rt::test]
async fn a_token_is_in_the_password_or_the_user_name_or_the_header_and_all_else_passes() {
    let token = by_secret(&ann(json!({})));
    let in_password = hs256().open();
    assert!(log_in(&in_password, &token).await.is_ok());
    assert!(in_password.authenticate(bearer(&token)).await.is_ok());
    assert_eq!(in_password.authenticate(shown(&token, b"x")).await, NOT_MINE);
    for password in ["secret", "hmq_d_abc", "ey.x", "a.b.c", ""] {
        assert_eq!(log_in(&in_password, password).await, NOT_MINE, "{password}");
    }
    assert_eq!(log_in(&in_password, &format!("{token}x")).await, BAD);
    assert_eq!(log_in(&in_password, &format!("ey{}", "x.".repeat(2))).await, BAD);
    let mut files = hs256();
    files.config.from = TokenPlace::Username;
    let in_username = files.open();
    assert!(in_username.authenticate(shown(&token, b"x")).await.is_ok());
    assert_eq!(log_in(&in_username, &token).await, NOT_MINE);
    let off = JwtAuthenticator::open(&JwtConfig::default()).unwrap();
    assert_eq!(log_in(&off, &token).await, NOT_MINE);
}

#[actix_rt::test]
async fn a_token_and_a_certificate_are_of_one_user() {
    let authenticator = hs256().open();
    let token = by_secret(&ann(json!({})));
    for (name, expected) in
        [("ann", None), ("ben", Some(AuthenticationError::OtherThanCertificate))]
    {
        let certificate = hearthmq::auth::ClientCertificate {
            common_name: name.into(),
            serial_number: "1".into(),
        };
        let shown =
            Credentials { certificate: Some(&certificate), ..shown("name", token.as_bytes()) };
        assert_eq!(authenticator.authenticate(shown).await.err(), expected);
    }
}

#[actix_rt::test]
async fn a_key_that_is_taken_away_ends_what_rests_on_tokens() {
    let mut files = hs256();
    let authenticator = files.open();
    let token = by_secret(&ann(json!({})));
    let identity = log_in(&authenticator, &token).await.unwrap();
    let since = Authenticator::generation(&authenticator);
    let standing = || Authenticator::standing(&authenticator, &identity, since);
    let other = files.write("other", &"x".repeat(40));
    files.config.secrets.push(other);
    authenticator.set_config(&files.config).unwrap();
    assert_eq!(standing(), Standing::Good, "a key is added");
    files.config.secrets.remove(0);
    authenticator.set_config(&files.config).unwrap();
    assert_eq!(standing(), Standing::Changed);
    assert_eq!(log_in(&authenticator, &token).await, BAD);
    files.write("other", "short");
    assert!(authenticator.set_config(&files.config).is_err());
    assert_eq!(standing(), Standing::Changed, "the former keys stay");
    authenticator.set_config(&JwtConfig::default()).unwrap();
    assert_eq!(standing(), Standing::Suspended);
}

#[test]
fn a_mistake_is_named_with_its_option() {
    let why = |change: fn(&mut Files)| {
        let mut files = hs256();
        change(&mut files);
        files.mistake()
    };
    let begins = |text: String, expected: &str| assert!(text.starts_with(expected), "{text}");
    begins(why(|files| files.config.algorithms.clear()), "auth.jwt.algorithms: it is empty");
    begins(
        why(|files| files.config.algorithms = vec!["none".into()]),
        "auth.jwt.algorithms: \"none\" is unknown",
    );
    begins(why(|files| drop(files.write("secret", "short"))), "auth.jwt.secrets: ");
    begins(why(|files| files.config.keys = vec!["absent.pem".into()]), "auth.jwt.keys: absent.pem");
    begins(why(|files| files.config.claims = vec!["a".into()]), "auth.jwt.claims: ");
    begins(why(|files| files.config.claims = vec!["a=${b}".into()]), "auth.jwt.claims: ");
    begins(
        why(|files| files.config.jwks = "http://id.example/".into()),
        "auth.jwt.jwks: http to id",
    );
    begins(why(|files| files.config.jwks = "absent.json".into()), "auth.jwt.jwks: absent.json");
    let private = why(|files| {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        files.config.keys = vec![files.write("key.pem", &pem)];
    });
    assert!(private.contains("has no public key"), "{private}");
}

fn with_token<'a>(connect: Connect<'a>, token: &'a str) -> Connect<'a> {
    Connect { username: Some("name"), password: Some(token.as_bytes()), ..connect }
}

/// Virtual time, which has passed since the broker started, comes on top of that of the clock. Tokens end
/// at the beginning of a second.
struct Elapsed(Instant);

impl Elapsed {
    fn token_for(&self, user: &str, secs: u64) -> String {
        let exp = now() + self.0.elapsed().as_secs() + secs;
        by_secret(&ann(json!({"sub": user, "exp": exp})))
    }
}

/// The Will is published, and the session stays.
#[actix_rt::test]
async fn a_connection_ends_at_exp() {
    let chain = Chain::new().with(Source::new("jwt", hs256().open()));
    let broker = world_with(|builder| builder.authenticator(chain).authorizer(AllowAll)).await;
    let elapsed = Elapsed(Instant::now());
    for version in VERSIONS {
        let client_id = format!("{version:?}");
        let (long, short) = (elapsed.token_for("ann", 600), elapsed.token_for("ann", 30));
        let mut other = Client::connected(&broker, with_token(connect("other"), &long)).await;
        other.subscribe("will", QOS_0).await;
        let connect = connect_lasting(&client_id, version);
        let connect = Connect { will: Some(will("will", "gone")), ..with_token(connect, &short) };
        let mut client = Client::connected(&broker, connect).await;
        client.expect_nothing_for(secs(28)).await;
        pass(secs(3)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
        other.expect_publish(publish("will", "gone")).await;
        let again = with_token(connect_lasting(&client_id, version), &long);
        let (client, session_present) = Client::connected_with(&broker, again).await;
        assert!(session_present);
        client.leave().await;
        other.leave().await;
    }
}

#[actix_rt::test]
async fn a_client_stays_that_sends_a_new_token_by_auth() {
    let chain = Chain::new().with(Source::new("jwt", hs256().open()));
    let broker = world_with(|builder| builder.authenticator(chain).authorizer(AllowAll)).await;
    let elapsed = Elapsed(Instant::now());
    let (first, second) = (elapsed.token_for("ann", 30), elapsed.token_for("ann", 90));
    let connect_with = |id, token| connect_by(connect(id), JWT_METHOD, Some(str::as_bytes(token)));
    let again = |token| auth_by(ReasonCode::ReAuthenticate, JWT_METHOD, Some(str::as_bytes(token)));
    let mut client = Client::connected(&broker, connect_with("c", &first)).await;
    client.expect_nothing_for(secs(20)).await;
    client.send(again(&second)).await;
    client.expect(auth_by(ReasonCode::Success, JWT_METHOD, None)).await;
    client.expect_nothing_for(secs(68)).await;
    pass(secs(3)).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
    // A wrong token, and the right one of another user.
    let (ben, long) = (elapsed.token_for("ben", 300), elapsed.token_for("ann", 300));
    for token in ["eyJ.x.y", &*ben] {
        let mut client = Client::connected(&broker, connect_with("d", &long)).await;
        client.send(again(token)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
    }
    let mut refused = Client::new(&broker, V5);
    refused.send(Packet::Connect(Box::new(connect_with("e", "eyJ.x.y")))).await;
    refused.expect_refused(ReasonCode::BadUserNameOrPassword).await;
}
