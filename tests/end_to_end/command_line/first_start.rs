//! The first start: when it creates an account, and where its password appears.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Place, complaint, password_is, place};

const GENERATED: &str = "hearthmq-data/admin-password";

impl Place {
    fn admin_has(&self, password: &str) -> bool {
        password_is(&self.path("hearthmq-data/users.toml"), "admin", password)
    }
}

#[test]
fn a_first_password_that_was_given_is_not_printed() {
    for (variable, value) in [
        ("HEARTHMQ_ADMIN_PASSWORD", "given by hand"),
        ("HEARTHMQ_ADMIN_PASSWORD_FILE", "secret.txt"),
    ] {
        let place = place();
        fs::write(place.path("secret.txt"), "given by hand\nand a second line\n").unwrap();
        let mut command = place.command(&[]);
        command.env(variable, value);
        let (broker, log) = place.start_by(command);
        assert!(log.contains(variable), "{log}");
        let (code, printed) = broker.end("-TERM");
        assert_eq!((code, printed.as_str()), (Some(0), ""));
        assert!(!log.contains("given by hand"), "{log}");
        assert!(place.admin_has("given by hand"));
        assert!(!place.path(GENERATED).exists());
        // Later it is only a variable: the account has its password.
        let mut command = place.command(&[]);
        command.env("HEARTHMQ_ADMIN_PASSWORD_FILE", "gone.txt");
        place.start_by(command).0.end("-TERM");
        assert!(place.admin_has("given by hand"));
    }
}

#[test]
fn a_first_password_that_cannot_be_used_stops_the_start_before_anything_is_made() {
    let place = place();
    fs::write(place.path("empty.txt"), "\n").unwrap();
    for (variables, said) in [
        (
            &[("HEARTHMQ_ADMIN_PASSWORD", "")] as &[_],
            "HEARTHMQ_ADMIN_PASSWORD: the password is empty",
        ),
        (&[("HEARTHMQ_ADMIN_PASSWORD_FILE", "empty.txt")], "_FILE: the password is empty"),
        (&[("HEARTHMQ_ADMIN_PASSWORD_FILE", "gone.txt")], "_FILE: gone.txt cannot be read"),
        (
            &[("HEARTHMQ_ADMIN_PASSWORD_FILE", "empty.txt"), ("HEARTHMQ_ADMIN_PASSWORD", "x")],
            "HEARTHMQ_ADMIN_PASSWORD is also set",
        ),
    ] {
        let output = place.command(&[]).envs(variables.iter().copied()).output().unwrap();
        assert!(complaint(&output).contains(said), "{output:?}");
        assert!(!place.path("hearthmq-data").exists());
    }
}

#[test]
fn under_systemd_the_first_password_goes_to_a_file_and_not_to_the_journal() {
    let place = place();
    let mut command = place.command(&[]);
    command.env("JOURNAL_STREAM", "8:12345");
    let (broker, log) = place.start_by(command);
    assert!(log.contains(GENERATED), "{log}");
    let (code, printed) = broker.end("-TERM");
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    let file = place.path(GENERATED);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = fs::read_to_string(&file).unwrap();
    let password = password.trim_end();
    assert!(!log.contains(password), "{log}");
    assert!(place.admin_has(password));
}

#[test]
fn the_first_start_says_where_accounts_and_permissions_are() {
    let place = place();
    let (_, printed) = place.start().end("-TERM");
    assert!(printed.contains("hearthmq-data/users.toml"), "{printed}");
    assert!(printed.contains("hearthmq-data/policy.toml"), "{printed}");
}

/// With a file system mounted late, or a wrong path in the configuration, it is not a first start.
#[test]
fn no_account_is_made_beside_a_store_a_policy_or_accounts() {
    let place = place();
    place.start().end("-TERM");
    let (users, policy) =
        (place.path("hearthmq-data/users.toml"), place.path("hearthmq-data/policy.toml"));
    let (store, away) = (place.path("hearthmq-data/store"), place.path("away"));

    fs::rename(&users, &away).unwrap();
    let said = complaint(&place.run(&[])).to_owned();
    assert!(said.contains("users.toml: the accounts file is missing, but"), "{said}");
    assert!(said.contains("policy.toml exists"), "{said}");
    fs::remove_file(&policy).unwrap();
    let said = complaint(&place.run(&[])).to_owned();
    assert!(said.contains("hearthmq-data/store exists"), "{said}");
    fs::rename(&away, &users).unwrap();
    let said = complaint(&place.run(&["check-config", "/dev/null"])).to_owned();
    assert!(said.contains("policy.toml: the permissions file is missing"), "{said}");
    assert!(said.contains("hearthmq example-policy > "), "{said}");
    fs::remove_dir_all(&store).unwrap();
    complaint(&place.run(&[]));
    assert!(!policy.exists() && !store.exists(), "nothing was made");
    // Without any files it is a first start again.
    fs::remove_file(&users).unwrap();
    place.start().end("-TERM");
    assert!(policy.exists() && users.exists());
}

#[test]
fn a_broker_for_anonymous_clients_needs_a_policy_and_no_accounts() {
    let place = place();
    fs::create_dir(place.path("hearthmq-data")).unwrap();
    fs::write(place.path("hearthmq-data/policy.toml"), "[[rules]]\neffect = \"allow\"\n").unwrap();
    complaint(&place.run(&[]));
    let mut command = place.command(&["--set", "auth.anonymous=true"]);
    command.env_remove("JOURNAL_STREAM");
    let (broker, log) = place.start_by(command);
    assert!(log.contains("created an accounts file without accounts"), "{log}");
    assert_eq!(broker.end("-TERM"), (Some(0), String::new()));
}
