//! Stored passwords of other brokers and databases, each made by another implementation.

use hearthmq::auth::{PasswordHashError, StoredPassword, hash_password};

/// Hashes of `correct horse`: scheme, whether it is weak, text. Those of Mosquitto are made by
/// `mosquitto_passwd` 2.0.11, the others by Python's hashlib, argon2-cffi, bcrypt and passlib.
const HASHES: &[(&str, bool, &str)] = &[
    (
        "pbkdf2",
        true,
        "$7$101$Ew9iMhV+TB23qlVa$vvJsWY5jvic0sjRb4JgFyKNFNri3PV7/le04rqRoGjfrmtpeNTNogDwZrddr2groc/xK2szUrjZ+ocPmRp9urA==",
    ),
    // Of the length of Mosquitto 2.1, and one of its former versions.
    (
        "pbkdf2",
        true,
        "$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$53KiEygVzVVEVUVTe4h79yMtYp0OxxoKFip82vf7OCrEbcm4/E88oGkCyN0NhQ7fLOSBIpiITuELG/0ldDPFMQ==",
    ),
    (
        "sha512",
        true,
        "$6$AAECAwQFBgcICQoL$5W8GCQ9GLgmhmQvoa8jmRaPnsh82mRigdSv6mQsK0sMIII/WznlQb1g+RWddfoAKTMzBJP1deJU+Rp/1QZ0zZg==",
    ),
    (
        "argon2id",
        false,
        "$argon2id$v=19$m=1024,t=1,p=1$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw$wLhjXnZJQ159Mxi8lKn8NkldjzmKmgm/MxmVUCMeiFBgyzVC37/xBq0yCB/14BsxdCxM/5B/t0O6TxjT4TKZjA",
    ),
    (
        "pbkdf2",
        true,
        "$pbkdf2-sha512$i=1000,l=64$AAECAwQFBgcICQoL$hc9UTFKiTSi9CHPMacLhbZUJ9kJTrF7ND3F3GC2tMIePa6GeHoJUhLaT6N8wIl0Zgp48kWcgb9fqfYUYiR/1vQ",
    ),
    (
        "pbkdf2",
        false,
        "$pbkdf2-sha256$i=600000,l=32$AAECAwQFBgcICQoL$KpfsGxw5iqHmgmpvnxX9Y9gxQWKdapVwXL3Sx9I7liI",
    ),
    (
        "pbkdf2",
        true,
        "$pbkdf2-sha512$1000$i5GythaiVMrZu9c6Z8wZQw$FzbFLGVggUbssqGlBqbo0k9eOXhTPvTAqBWCnwqBctne2HsMau5ZOsSpbHibDZfcsd2/glvQeEnJr9FLOqp1Tg",
    ),
    (
        "pbkdf2",
        true,
        "PBKDF2$sha512$100000$AAECAwQFBgcICQoL$FJx+olVlWEJEXX24Y8xXU6R1dB5Kbd6ymH792dX9nBwGsse+mWTKyOa9MqMIK0SFRl9x5ztK4/2CuIYGRDlglQ==",
    ),
    ("bcrypt", true, "$2b$04$dS7GYZRCe2SAhLUzu900WuNPo2XMeHO4jMnL9/C6j2l0RKAgxWL6K"),
    ("bcrypt", false, "$2a$10$3UeQF1l9Huu.SY7Rb7GoZOyvjfiCsmztKVGMjsvgWL0wAg1RH25wm"),
];

#[test]
fn a_hash_of_another_scheme_is_verified_by_its_scheme() {
    for (scheme, is_weak, text) in HASHES {
        let stored: StoredPassword = text.parse().unwrap();
        assert_eq!((stored.scheme(), stored.is_weak()), (*scheme, *is_weak), "{text}");
        assert!(stored.verify(b"correct horse"), "{text}");
        for wrong in ["", "correct horsf", "correct horse "] {
            assert!(!stored.verify(wrong.as_bytes()), "{text}");
        }
        assert_eq!(stored.as_str(), *text);
        assert_eq!(format!("{stored:?}"), format!("StoredPassword({scheme})"));
    }
    let own: StoredPassword = hash_password(b"x").parse().unwrap();
    assert_eq!((own.scheme(), own.is_weak()), ("argon2id", false));
}

#[test]
fn a_hash_with_a_wrong_part_is_refused() {
    for (text, expected) in [
        // That of crypt(3), which begins in the same way.
        ("$6$rounds=5000$salt$abc", PasswordHashError::Algorithm),
        ("$6$AAECAwQFBgcICQoL$AAECAwQFBgcICQoLAAECAwQFBgcICQoL", PasswordHashError::Malformed),
        ("$7$0$AAECAwQFBgcICQoL$AAECAwQFBgcICQoLAAECAwQFBgcICQoL", PasswordHashError::Parameters),
        (
            "$7$10000001$AAECAwQFBgcICQoL$AAECAwQFBgcICQoLAAECAwQFBgcICQoL",
            PasswordHashError::Parameters,
        ),
        ("$7$x$AAECAwQFBgcICQoL$AAECAwQFBgcICQoLAAECAwQFBgcICQoL", PasswordHashError::Malformed),
        ("$7$101$$AAECAwQFBgcICQoLAAECAwQFBgcICQoL", PasswordHashError::Malformed),
        ("$7$101$AAECAwQFBgcICQoL$AAEC", PasswordHashError::Malformed),
        ("$7$101$*$AAECAwQFBgcICQoLAAECAwQFBgcICQoL", PasswordHashError::Malformed),
        ("$2b$10$tooshort", PasswordHashError::Malformed),
        (
            "$2b$31$dS7GYZRCe2SAhLUzu900WuNPo2XMeHO4jMnL9/C6j2l0RKAgxWL6K",
            PasswordHashError::Parameters,
        ),
        ("$1$salt$hash", PasswordHashError::Algorithm),
        ("PBKDF2$md5$1$a$b", PasswordHashError::Malformed),
    ] {
        assert_eq!(text.parse::<StoredPassword>().unwrap_err(), expected, "{text}");
    }
}
