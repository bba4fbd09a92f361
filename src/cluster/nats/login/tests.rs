//! Files of every kind, and files that are not of their kind.

use tempfile::TempDir;

use super::*;

fn written(text: &str) -> (TempDir, std::path::PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("secret");
    fs::write(&file, text).expect("it is written");
    (directory, file)
}

fn credentials(token: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\r\n{token}\r\n------END NATS USER JWT------\r\n\n\
         *** keep this secret ***\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY \
         SEED------\n"
    )
}

#[test]
fn a_secret_is_the_text_of_its_file_without_the_blanks_at_its_ends() {
    let (_directory, file) = written(" se cret\n\n");
    let auth = NatsLogin::Token(file.clone()).answer(b"").expect("it is read");
    assert_eq!(auth.token.as_deref(), Some("se cret"));
    let login = NatsLogin::Password { user: "node".into(), password_file: file.clone() };
    let auth = login.answer(b"").expect("it is read");
    assert_eq!(
        (auth.username.as_deref(), auth.password.as_deref()),
        (Some("node"), Some("se cret"))
    );
    fs::write(&file, "renewed").expect("it is written");
    let auth = login.answer(b"").expect("it is read again");
    assert_eq!(auth.password.as_deref(), Some("renewed"));
}

#[test]
fn a_key_signs_the_nonce_of_the_server() {
    let key = KeyPair::new_user();
    let seed = key.seed().expect("it has one");
    let (_directory, file) = written(&seed);
    let auth = NatsLogin::Nkey(file.clone()).answer(b"nonce").expect("it is read");
    assert_eq!(auth.nkey, Some(key.public_key()));
    key.verify(b"nonce", &auth.signature.expect("it is signed")).expect("it is by this key");

    fs::write(&file, credentials("a.b.c", &seed)).expect("it is written");
    let auth = NatsLogin::Credentials(file).answer(b"other").expect("it is read");
    assert_eq!(auth.jwt.as_deref(), Some("a.b.c"));
    key.verify(b"other", &auth.signature.expect("it is signed")).expect("it is by this key");
}

#[test]
fn an_error_names_the_file_and_not_its_content() {
    let (_directory, file) = written("SUNOSEED");
    let faults = [
        NatsLogin::Nkey(file.clone()),
        NatsLogin::Credentials(file.clone()),
        NatsLogin::Token(file.with_file_name("absent")),
    ];
    for login in faults {
        let error = login.answer(b"").map(drop).expect_err("it is no such file").to_string();
        assert!(error.contains(file.parent().expect("it has one").to_str().expect("it is text")));
        assert!(!error.contains("SUNOSEED"), "{error}");
    }
    fs::write(&file, credentials("", "SUNOSEED")).expect("it is written");
    let error = NatsLogin::Credentials(file).answer(b"").map(drop).expect_err("it has no token");
    assert!(error.to_string().ends_with("it has no user token"), "{error}");
}
