//! The exchange of RFC 7677, and invalid messages.

use std::{num::NonZeroU32, path::Path};

use proptest::prelude::*;

use super::{message::MessageError as Error, *};
use crate::auth::{
    Accounts, AuthenticationConfig, Credentials, ListenerLogins, Login,
    builtin::keys::{Digest, SCRAM_ITERATIONS_DEFAULT, SaltSecret, ScramKeys, ScramKeysError},
    hash_password,
};

/// Section 3 of RFC 7677: user name `user`, password `pencil`.
const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
const KEYS: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                    $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=\
                    :wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn exchange() -> ScramExchange {
    let hash = hash_password(b"pencil");
    let text = format!("[[users]]\nname = 'user'\npassword_hash = '{hash}'\nscram = '{KEYS}'\n");
    let accounts = Accounts::parse(Path::new("users.toml"), &text).unwrap();
    let credentials = Credentials {
        client_id: None,
        username: None,
        password: None,
        bearer: None,
        certificate: None,
        peer: "192.0.2.1:4711".parse().unwrap(),
        listener: "mqtt://127.0.0.1:1883",
        rules: ListenerLogins::default(),
        proven: false,
        may_pass: false,
    };
    ScramExchange {
        accounts: Arc::new(FileAuthenticator::new(accounts, AuthenticationConfig::default())),
        shown: Presented::from(&credentials),
        may_pass: false,
        state: State::Begins,
    }
}

#[tokio::test]
async fn the_exchange_of_rfc_7677_goes_as_it_is_printed_there() {
    let mut exchange = exchange();
    let challenge = exchange.challenge(FIRST.as_bytes(), SERVER_NONCE);
    assert_eq!(challenge, Ok(Step::Continue(Some(CHALLENGE.into()))));
    let done = exchange.step(Some(FINAL.as_bytes())).await;
    let username = Some("user".into());
    let identity = Identity { username, login: Login::Scram, ..Identity::default() };
    assert_eq!(done, Ok(Step::Done { identity, data: Some(SIGNATURE.into()) }));
    let after = exchange.step(Some(FINAL.as_bytes())).await;
    assert_eq!(after, Err(AuthenticationError::BadCredentials), "once");
}

#[tokio::test]
async fn a_last_message_that_differs_anywhere_is_a_failure() {
    let (proof, other) = ("p=dHzb", "p=eHzb");
    for (what, wrong) in [
        ("proof", FINAL.replace(proof, other)),
        ("nonce", FINAL.replace("%hvY", "%hvX")),
        ("header", FINAL.replace("c=biws", "c=eSws")),
        ("extension that was not signed", FINAL.replace(",p=", ",x=y,p=")),
    ] {
        assert_ne!(wrong, FINAL, "{what}");
        let mut exchange = exchange();
        exchange.challenge(FIRST.as_bytes(), SERVER_NONCE).unwrap();
        let outcome = exchange.step(Some(wrong.as_bytes())).await;
        assert_eq!(outcome, Err(AuthenticationError::BadCredentials), "{what}");
    }
}

#[tokio::test]
async fn a_client_that_only_begins_is_asked_for_its_first_message() {
    let mut exchange = exchange();
    assert_eq!(exchange.step(None).await, Ok(Step::Continue(None)));
    let step = exchange.step(Some(FIRST.as_bytes())).await;
    assert!(matches!(step, Ok(Step::Continue(Some(_)))));
    assert_eq!(exchange.step(None).await, Err(AuthenticationError::BadCredentials));
}

#[tokio::test]
async fn nonces_are_new_each_time() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..8 {
        let Ok(Step::Continue(Some(answer))) = exchange().step(Some(FIRST.as_bytes())).await else {
            panic!("a challenge is expected");
        };
        assert!(answer.starts_with(b"r=rOprNGfwEbeRWgbNEkqO"));
        assert!(seen.insert(answer));
    }
}

#[test]
fn keys_are_derived_as_rfc_7677_has_them_and_keep_their_text() {
    let keys: ScramKeys = KEYS.parse().unwrap();
    let derived = ScramKeys::derive("pencil", keys.salt, NonZeroU32::new(4_096).unwrap());
    assert_eq!((keys.to_string(), derived.to_string()), (KEYS.to_owned(), KEYS.to_owned()));
    assert_eq!(format!("{keys:?}"), "ScramKeys { iterations: 4096, .. }");
}

/// Uses the examples of preparation in RFC 4013, section 3.
#[test]
fn a_password_is_the_same_however_it_is_typed() {
    let keys = |password| {
        ScramKeys::derive(password, [7; 16], NonZeroU32::new(4_096).unwrap()).to_string()
    };
    assert_eq!(keys("I\u{AD}X"), keys("IX"));
    assert_eq!(keys("\u{2168}"), keys("IX"));
    assert_eq!(keys("e\u{301}"), keys("é"));
    assert_ne!(keys("USER"), keys("user"));
    assert_ne!(keys("\u{7}"), keys(""), "what cannot be prepared is taken as it is");
}

#[test]
fn texts_that_are_no_keys_are_told_apart_from_bad_iterations() {
    for (text, error) in [
        ("", ScramKeysError::Malformed),
        ("SCRAM-SHA-1$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d:wfPL", ScramKeysError::Malformed),
        (&*KEYS.replace("6gQ==", "6g=="), ScramKeysError::Malformed),
        (&*KEYS.replace("4096", "-1"), ScramKeysError::Malformed),
        (&*KEYS.replace("4096", "4095"), ScramKeysError::Iterations),
        (&*KEYS.replace("4096", "10000001"), ScramKeysError::Iterations),
    ] {
        assert_eq!(text.parse::<ScramKeys>().unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_salt_belongs_to_its_name_and_secret_and_to_all_spellings_of_the_name() {
    let secret = SaltSecret::generate();
    assert_eq!(secret.salt("ann"), secret.salt("ann"));
    assert_ne!(secret.salt("ann"), secret.salt("ben"));
    assert_ne!(secret.salt("ann"), SaltSecret::generate().salt("ann"));
    assert_eq!(secret.salt("e\u{301}"), secret.salt("é"));
    let again: SaltSecret = secret.to_string().parse().unwrap();
    assert_eq!(again.salt("ann"), secret.salt("ann"));
    assert_eq!(secret.decoy("ann", &[]).iterations(), SCRAM_ITERATIONS_DEFAULT);
    let chosen: Vec<_> =
        (0..64).map(|n| secret.decoy(&n.to_string(), &[5_000, 6_000]).iterations()).collect();
    assert!(chosen.contains(&5_000) && chosen.contains(&6_000), "{chosen:?}");
}

#[test]
fn the_first_message_is_taken_apart() {
    let first = ClientFirst::parse(b"y,a=x=2Cy=3D,n=x=2Cy=3D,r=abc,z=ext").unwrap();
    assert_eq!((first.gs2_header, first.bare), ("y,a=x=2Cy=3D,", "n=x=2Cy=3D,r=abc,z=ext"));
    assert_eq!(first.authorization.as_deref(), Some("x,y="));
    assert_eq!((&*first.username, first.nonce), ("x,y=", "abc"));
}

#[test]
fn first_messages_that_are_none_are_refused() {
    for (message, error) in [
        (&b""[..], Error::Malformed),
        (b"n", Error::Malformed),
        (b"n,,", Error::Malformed),
        (b"n,,n=user", Error::Malformed),
        (b"n,,r=abc,n=user", Error::Malformed),
        (b"n,,n=,r=abc", Error::Malformed),
        (b"n,,n=user,r=", Error::Malformed),
        (b"n,,n=us=er,r=abc", Error::Malformed),
        (b"n,,n=us=2c,r=abc", Error::Malformed),
        (b"n,,n=user,r=a c", Error::Malformed),
        (b"n,,n=user,r=\xC3\xA9", Error::Malformed),
        (b"n,,n=us\0er,r=abc", Error::Malformed),
        (b"n,,n=us\xFFer,r=abc", Error::Malformed),
        (b"n,,n=user,r=abc,", Error::Malformed),
        (b"n,,n=user,r=abc,1=x", Error::Malformed),
        (b"n,,n=user,r=abc,x=", Error::Malformed),
        (b"n,user,n=user,r=abc", Error::Malformed),
        (b"n,a=,n=user,r=abc", Error::Malformed),
        (b"N,,n=user,r=abc", Error::Malformed),
        (b"p=tls-exporter,,n=user,r=abc", Error::ChannelBinding),
        (b"n,,m=ext,n=user,r=abc", Error::MandatoryExtension),
    ] {
        let text = String::from_utf8_lossy(message);
        assert_eq!(ClientFirst::parse(message), Err(error), "{text}");
    }
}

#[test]
fn a_nonce_has_an_end_so_that_the_challenge_fits_into_a_packet() {
    for (bytes, is_taken) in [(1_024, true), (1_025, false), (65_500, false)] {
        let message = format!("n,,n=user,r={}", "x".repeat(bytes));
        assert_eq!(ClientFirst::parse(message.as_bytes()).is_ok(), is_taken, "{bytes}");
    }
}

#[test]
fn last_messages_that_are_none_are_refused() {
    let proof = STANDARD.encode([0; 32]);
    assert!(ClientFinal::parse(format!("c=biws,r=abc,x=y,p={proof}").as_bytes()).is_ok());
    for wrong in [
        String::new(),
        "c=biws,r=abc".to_owned(),
        "c=biws,r=abc,p=".to_owned(),
        "c=biws,r=abc,p=AAAA".to_owned(),
        format!("c=biws,p={proof}"),
        format!("r=abc,c=biws,p={proof}"),
        format!("c=bi s,r=abc,p={proof}"),
        format!("c=biws,r=abc,p={proof},x=y"),
        format!("c=biws,r=abc,x,p={proof}"),
    ] {
        assert!(ClientFinal::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

/// Generates messages, and texts that are nearly messages.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let attribute = prop_oneof![
        Just("n"),
        Just("y"),
        Just(""),
        Just("p=tls"),
        Just("n=user"),
        Just("a==2C=3D"),
        Just("n=a=2"),
        Just("r=abc"),
        Just("c=biws"),
        Just("m=x"),
        Just("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
        Just("é=é"),
    ];
    let attributes = proptest::collection::vec(attribute, 0..7).prop_map(|all| all.join(","));
    prop_oneof![
        attributes.prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in nearly_a_message()) {
        if let Ok(first) = ClientFirst::parse(&bytes) {
            let whole = [first.gs2_header, first.bare].concat();
            prop_assert_eq!(whole.as_bytes(), &bytes[..]);
            prop_assert!(!first.username.is_empty() && !first.nonce.is_empty());
        }
        if let Ok(last) = ClientFinal::parse(&bytes) {
            prop_assert!(bytes.starts_with(last.without_proof.as_bytes()));
        }
    }

    #[test]
    fn a_name_is_what_was_escaped(name in "[a-z,=é]{1,8}") {
        let escaped = name.replace('=', "=3D").replace(',', "=2C");
        let message = format!("n,,n={escaped},r=abc");
        let first = ClientFirst::parse(message.as_bytes()).unwrap();
        prop_assert_eq!(first.username, name);
    }

    #[test]
    fn nothing_but_the_proof_is_a_proof(at in 0_usize..32, flip in 1_u8..) {
        let keys: ScramKeys = KEYS.parse().unwrap();
        let signed = format!("{},{CHALLENGE},{}", &FIRST[3..], FINAL.rsplit_once(',').unwrap().0);
        let mut proof = ClientFinal::parse(FINAL.as_bytes()).unwrap().proof;
        prop_assert!(keys.verify(&signed, &proof).is_some());
        prop_assert!(keys.verify(&signed.replace("i=4096", "i=4097"), &proof).is_none());
        proof.0[at] ^= flip;
        prop_assert!(keys.verify(&signed, &Digest(proof.0)).is_none());
    }
}
