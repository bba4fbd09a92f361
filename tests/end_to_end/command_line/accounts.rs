//! `hearthmq passwd`: what it creates, changes and removes, and what it leaves alone.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
};

use hearthmq::auth::{Accounts, FilePolicy};

use super::{Place, complaint, password_is, place, stdout};
use crate::skipped::skipped;

impl Place {
    /// Sets the password of `user`; returns standard error.
    fn passwd(&self, user: &str, password: &str) -> String {
        let output = self.feed(&["passwd", user], &format!("{password}\n"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        stdout(&output).to_owned()
    }
}

#[test]
fn an_account_can_be_made_before_the_first_start() {
    let place = place();
    place.passwd("bob", "a long password");
    let data = place.path("hearthmq-data");
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(data.join("users.toml")).unwrap().mode() & 0o777, 0o600);
    FilePolicy::open(data.join("policy.toml")).unwrap();

    let broker = place.start();
    let answer = place.get("/client-id/demo/status", "bob:a long password");
    assert_eq!(answer.status, 403, "{}", answer.body);
    let (code, printed) = broker.end("-TERM");
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    assert_eq!(place.done(&["passwd", "--list"]), "bob\tenabled\tpassword\n");
}

#[test]
fn a_policy_that_is_there_stays_as_it_is() {
    let place = place();
    fs::create_dir(place.path("hearthmq-data")).unwrap();
    fs::write(place.path("hearthmq-data/policy.toml"), "# mine\n").unwrap();
    place.passwd("bob", "a long password");
    let policy = fs::read_to_string(place.path("hearthmq-data/policy.toml")).unwrap();
    assert_eq!(policy, "# mine\n");
}

#[test]
fn the_example_policy_is_what_a_first_start_writes() {
    let place = place();
    let printed = place.done(&["example-policy"]);
    place.passwd("bob", "a long password");
    assert_eq!(printed, fs::read_to_string(place.path("hearthmq-data/policy.toml")).unwrap());
}

#[test]
fn a_link_stays_a_link_and_its_file_keeps_its_mode() {
    let place = place();
    place.passwd("ann", "the first one");
    fs::create_dir(place.path("secrets")).unwrap();
    let (users, real) = (place.path("hearthmq-data/users.toml"), place.path("secrets/real.toml"));
    fs::rename(&users, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../secrets/second.toml", &users).unwrap();
    symlink("real.toml", place.path("secrets/second.toml")).unwrap();
    place.passwd("ann", "the second one");
    place.passwd("ben", "another one");
    assert!(fs::symlink_metadata(&users).unwrap().is_symlink());
    assert!(fs::symlink_metadata(place.path("secrets/second.toml")).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
    assert!(password_is(&real, "ann", "the second one"));
    assert!(password_is(&real, "ben", "another one"));
    assert_eq!(fs::read_dir(place.path("secrets")).unwrap().count(), 2, "nothing is left over");
}

#[test]
fn a_file_of_another_user_stays_theirs() {
    let place = place();
    place.passwd("ann", "the first one");
    let (data, users) = (place.path("hearthmq-data"), place.path("hearthmq-data/users.toml"));
    if chown(&users, Some(65_534), Some(65_534)).is_err() {
        skipped("only the superuser can give a file away");
        return;
    }
    place.passwd("ann", "the second one");
    let found = fs::metadata(&users).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65_534, 65_534, 0o600));
    assert!(password_is(&users, "ann", "the second one"));
    // A new file belongs to the owner of its directory.
    chown(&data, Some(65_534), Some(65_534)).unwrap();
    fs::remove_file(&users).unwrap();
    place.passwd("ann", "the third one");
    assert_eq!(fs::metadata(&users).unwrap().uid(), 65_534);
}

#[test]
fn accounts_made_at_the_same_time_are_all_there() {
    let place = place();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let place = &place;
            scope.spawn(move || place.passwd(&format!("user-{n}"), "a long password"));
        }
    });
    let accounts = Accounts::open(&place.path("hearthmq-data/users.toml")).unwrap();
    assert_eq!(accounts.len(), 6);
}

#[test]
fn an_account_is_disabled_enabled_and_taken_out() {
    let place = place();
    place.passwd("ann", "a long password");
    place.passwd("ben", "a long password");
    let said = place.done(&["passwd", "--disable", "ann"]);
    assert!(said.contains("ann is disabled; a running broker reads the file at SIGHUP"), "{said}");
    let list = || place.done(&["passwd", "--list"]);
    assert_eq!(list(), "ann\tdisabled\tpassword\nben\tenabled\tpassword\n");
    let output = place.feed(&["passwd", "ann"], "another password\n");
    assert!(stdout(&output).contains("and is still disabled"), "{output:?}");
    place.done(&["passwd", "ann", "--enable"]);
    assert_eq!(list(), "ann\tenabled\tpassword\nben\tenabled\tpassword\n");
    place.done(&["passwd", "--delete", "ann"]);
    assert_eq!(list(), "ben\tenabled\tpassword\n");
    for task in ["--delete", "--disable", "--enable"] {
        let said = complaint(&place.run(&["passwd", task, "ann"])).to_owned();
        assert!(said.contains("there is no user \"ann\""), "{said}");
    }
    for wrong in [&["--delete", "--disable", "ben"] as &[&str], &["--list", "ben"], &[]] {
        let output = place.run(&[&["passwd"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn names_that_nobody_could_log_in_with_are_refused_and_weak_passwords_said() {
    let place = place();
    for name in ["", "a\nb", "a:b", "\u{7f}"] {
        let said = complaint(&place.feed(&["passwd", name], "a long password\n")).to_owned();
        assert!(said.contains("cannot be a user name"), "{said}");
    }
    assert!(!place.path("hearthmq-data").exists(), "nothing was made");
    assert!(place.passwd("ann", "x").contains("the password has 1 characters"));
    assert!(place.passwd("bad/na me", "a long password").contains("cannot be a level of a topic"));
    assert_eq!(place.passwd("good name", "a long password"), "");
}
