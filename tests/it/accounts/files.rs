//! The accounts file: what it may contain, which mistakes it reports, how accounts are changed.

use std::{fs, path::Path};

use hearthmq::{
    auth::{
        Accounts, AuthenticationConfig, Authenticator as _, FileAuthenticator, PasswordHashError,
        StoredPassword, add_user, generate_password, hash_password, remove_user, set_disabled,
    },
    limits::OwnLimits,
};

/// A hash that another implementation computed (the reference one, `argon2 somesalt -id -t 2 -m
/// 16`).
const FOREIGN_HASH: &str =
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

fn error(text: &str) -> String {
    Accounts::parse(Path::new("users.toml"), text).unwrap_err().to_string()
}

#[test]
fn a_password_is_right_for_its_own_hash_and_no_other() {
    let stored: StoredPassword = hash_password(b"correct horse").parse().unwrap();
    assert!(stored.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(stored.verify(b"correct horse"));
    assert!(!stored.verify(b"correct horsf"));
    assert!(!stored.verify(b""));
    assert_ne!(stored.as_str(), hash_password(b"correct horse"));
}

#[test]
fn a_hash_of_another_implementation_and_cost_is_verified_with_its_own_parameters() {
    let stored: StoredPassword = FOREIGN_HASH.parse().unwrap();
    assert!(stored.verify(b"password"));
    assert!(!stored.verify(b"Password"));
}

#[test]
fn what_is_no_argon2id_hash_is_refused_and_why_is_said() {
    for (text, expected) in [
        ("", PasswordHashError::Malformed),
        ("secret", PasswordHashError::Malformed),
        ("$argon2id$v=19$m=19456,t=2,p=1", PasswordHashError::Malformed),
        ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", PasswordHashError::Malformed),
        (&FOREIGN_HASH.replace("argon2id", "argon2i"), PasswordHashError::Algorithm),
        (&FOREIGN_HASH.replace("argon2id", "scrypt"), PasswordHashError::Algorithm),
        (&FOREIGN_HASH.replace("65536", "1"), PasswordHashError::Parameters),
        (&FOREIGN_HASH.replace("65536", "4000000000"), PasswordHashError::Parameters),
        (&FOREIGN_HASH.replace("t=2", "t=1000"), PasswordHashError::Parameters),
    ] {
        assert_eq!(text.parse::<StoredPassword>().unwrap_err(), expected, "{text}");
    }
}

#[test]
fn generated_passwords_are_long_unambiguous_and_not_the_same_twice() {
    let passwords = [generate_password(), generate_password()];
    assert_ne!(passwords[0], passwords[1]);
    for password in passwords {
        assert!(password.len() >= 20);
        assert!(!password.contains(['0', 'o', 'O', '1', 'l', 'I']));
        assert!(password.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit()));
    }
}

#[test]
fn every_mistake_in_the_file_is_reported_with_its_line() {
    let user =
        |name: &str| format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{FOREIGN_HASH}\"\n");
    assert_eq!(
        error(&format!("# ours\n{}\n{}", user("ann"), user("ann"))),
        "users.toml:7: user `ann` is listed twice; keep one of the two"
    );
    assert_eq!(
        error("[[users]]\nname = \"ann\"\n\npassword_hash = \"secret\"\n"),
        "users.toml:4: not a password hash; `hearthmq passwd NAME` makes one that begins with \
         `$argon2id$v=19$`"
    );
    assert_eq!(
        error(&format!("{}colour = 1\n", user("ann"))),
        "users.toml:4: unknown field `colour`, expected one of `name`, `password_hash`, \
         `scram`, `disabled`, `limits`"
    );
    assert_eq!(
        error("\nuser = []\n"),
        "users.toml:2: unknown field `user`, expected `users` or `scram`"
    );
    assert_eq!(error("[[users]]\nname = \"ann\"\n"), "users.toml:1: missing field `password_hash`");
    assert!(error(&user("a:b")).starts_with("users.toml:2: user name holds a colon"));
    assert!(error(&user("")).starts_with("users.toml:2: user name is empty"));
    assert!(error(&user("a\\u0000")).starts_with("users.toml:2: user name holds a control"));
    assert!(error("[[users]]\nname = ann\n").starts_with("users.toml:2: "));
}

#[test]
fn adding_a_user_keeps_what_is_there_and_the_file_to_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    add_user(&path, "ann", FOREIGN_HASH).unwrap();
    let commented = format!("# hands off\n{}# the end", fs::read_to_string(&path).unwrap());
    fs::write(&path, commented).unwrap();
    let new_hash = hash_password(b"new");
    add_user(&path, "bén \"x\"", &new_hash).unwrap();
    add_user(&path, "ann", &new_hash).unwrap();

    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# hands off\n[[users]]\nname = \"ann\"\n"), "{text}");
    assert!(text.contains("# the end\n"), "{text}");
    let accounts = Accounts::open(&path).unwrap();
    assert_eq!(accounts.len(), 2);
    assert_eq!(accounts.get("ann").unwrap().password.as_str(), new_hash);
    assert_eq!(accounts.get("bén \"x\"").unwrap().password.as_str(), new_hash);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn adding_a_user_never_leaves_a_file_that_cannot_be_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    for old in ["users = []\n", "[[users]]\nname = 1\n"] {
        fs::write(&path, old).unwrap();
        add_user(&path, "ann", FOREIGN_HASH).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), old);
    }
    fs::write(&path, "").unwrap();
    add_user(&path, "a:b", FOREIGN_HASH).unwrap_err();
    add_user(&path, "ann", "secret").unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    let missing = directory.path().join("not there").join("users.toml");
    let error = add_user(&missing, "ann", FOREIGN_HASH).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    let error = Accounts::open(&missing).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

/// Exactly one account is removed, in every form in which TOML can write it.
#[test]
fn one_account_is_disabled_or_taken_out_and_the_rest_of_the_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    let user = |name: &str| format!("name = \"{name}\"\npassword_hash = \"{FOREIGN_HASH}\"\n");
    let of_tables = format!(
        "# top\n[[users]]\n{}\n# about ben\n[[ users ]] # [[ here\ndisabled = false\n{}# end of ben\n\n\
         [[users]]\n{}",
        user("ann"),
        user("ben"),
        user("cleo"),
    );
    let inline = |name: &str| format!("{{ {} }}", user(name).trim().replace('\n', ", "));
    let of_a_list =
        format!("users = [{},\n  {}, {}]\n", inline("ann"), inline("ben"), inline("cleo"));
    for text in [of_tables, of_a_list] {
        for name in ["ann", "ben", "cleo"] {
            fs::write(&path, &text).unwrap();
            set_disabled(&path, name, true).unwrap();
            let accounts = Accounts::open(&path).unwrap();
            for user in accounts.iter() {
                assert_eq!(user.is_disabled, *user.name == *name, "{name} in {text}");
            }
            set_disabled(&path, name, false).unwrap();
            assert!(Accounts::open(&path).unwrap().iter().all(|user| !user.is_disabled));
            remove_user(&path, name).unwrap();
            let left = fs::read_to_string(&path).unwrap();
            let accounts = Accounts::open(&path).unwrap();
            assert_eq!(accounts.len(), 2);
            assert!(accounts.get(name).is_none());
            for comment in ["# top", "# about ben", "# end of ben"] {
                assert_eq!(left.contains(comment), text.contains(comment), "{left}");
            }
            let error = remove_user(&path, name).unwrap_err().to_string();
            assert!(error.contains("there is no user"), "{error}");
        }
    }
}

/// Missing limits are those of each user; a change of the password changes no limits.
#[test]
fn an_account_may_have_limits_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let text = format!(
        "[[users]]\nname = \"large\"\npassword_hash = '{FOREIGN_HASH}'\n\
         limits = {{ sessions_max = 50000, retained_bytes_max = 0 }}\n\
         [[users]]\nname = \"small\"\npassword_hash = '{FOREIGN_HASH}'\n"
    );
    fs::write(&path, &text).unwrap();
    add_user(&path, "large", &hash_password(b"x")).unwrap();
    let authenticator = FileAuthenticator::open(&path, AuthenticationConfig::default()).unwrap();
    let own = OwnLimits {
        sessions_max: Some(50_000),
        retained_bytes_max: Some(0),
        ..OwnLimits::default()
    };
    assert_eq!(authenticator.limits_of("large"), Some(own));
    assert_eq!(authenticator.limits_of("small"), None);
    assert_eq!(authenticator.limits_of("nobody"), None);
    let said = error(&text.replace("sessions_max", "sesions_max"));
    assert!(said.starts_with("users.toml:4: ") && said.contains("sesions_max"), "{said}");
}
