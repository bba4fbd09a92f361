//! Topic Names and Topic Filters, sections 4.7 and 4.8.2.

use hearthmq::mqtt::{FilterParts, TopicError, filter_matches, validate_filter, validate_topic};

/// [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
/// 3.1.1: [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
#[test]
fn a_topic_name_is_not_empty_and_has_no_wildcards() {
    for topic in ["a", "/", "a//b", " ", "$SYS/x", "ä/€/😀", &"x".repeat(65_535)] {
        assert_eq!(validate_topic(topic), Ok(()), "{topic:?}");
    }
    assert_eq!(validate_topic(""), Err(TopicError::Empty)); // [MQTT-4.7.3-1]
    assert_eq!(validate_topic("a\0"), Err(TopicError::NullCharacter)); // [MQTT-4.7.3-2]
    let long = "x".repeat(65_536);
    assert_eq!(validate_topic(&long), Err(TopicError::TooLong)); // [MQTT-4.7.3-3]
    for topic in ["a/+", "#", "a+", "b#/c"] {
        assert_eq!(validate_topic(topic), Err(TopicError::WildcardInName)); // [MQTT-4.7.0-1]
    }
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2]
#[test]
fn a_wildcard_is_a_level_of_its_own() {
    let valid = ["#", "+", "a/#", "/#", "+/+/#", "/+", "+/", "a/+/b", "//", "$share", "$SYS/#"];
    for filter in valid {
        assert_eq!(validate_filter(filter), Ok(FilterParts { share_name: None, filter }));
    }
    for filter in ["a#", "a/#/b", "#/a", "##", "#/", "a/b#", "+#", "#/#"] {
        assert_eq!(validate_filter(filter), Err(TopicError::MultiLevelWildcard), "{filter}");
    }
    for filter in ["a+", "+a", "++", "a/+b/c", "a/b+/#"] {
        assert_eq!(validate_filter(filter), Err(TopicError::SingleLevelWildcard), "{filter}");
    }
    assert_eq!(validate_filter(""), Err(TopicError::Empty));
    assert_eq!(validate_filter("a\0"), Err(TopicError::NullCharacter));
    assert_eq!(validate_filter(&"x".repeat(65_536)), Err(TopicError::TooLong));
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn a_shared_subscription_has_a_name_and_a_filter() {
    for (whole, share_name, filter) in [
        ("$share/g/a/b", "g", "a/b"),
        ("$share/g//", "g", "/"),
        ("$share/g/#", "g", "#"),
        ("$share/$share/$share/x", "$share", "$share/x"),
    ] {
        let parts = FilterParts { share_name: Some(share_name), filter };
        assert_eq!(validate_filter(whole), Ok(parts));
    }
    for filter in ["$share/", "$share//a", "$share/+/a", "$share/g#/a"] {
        assert_eq!(validate_filter(filter), Err(TopicError::ShareName), "{filter}");
    }
    for filter in ["$share/g", "$share/g/"] {
        assert_eq!(validate_filter(filter), Err(TopicError::ShareWithoutFilter), "{filter}");
    }
    assert_eq!(validate_filter("$share/g/a/#/b"), Err(TopicError::MultiLevelWildcard));
    assert_eq!(validate_filter("$share/g/a+"), Err(TopicError::SingleLevelWildcard));
}

/// The examples of section 4.7, and special cases between them.
#[test]
fn filters_match_as_the_specification_shows() {
    for (filter, topic) in [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/#", "sport"),
        ("sport/#", "sport/"),
        ("#", "sport/"),
        ("#", "/"),
        ("+/#", "a"),
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("$SYS/#", "$SYS/monitor/Clients"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("a/$b", "a/$b"),
        ("+/$b", "a/$b"),
        ("Accounts payable", "Accounts payable"),
    ] {
        assert!(filter_matches(filter, topic), "{filter} and {topic}");
    }
    for (filter, topic) in [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("sport", "sport/"),
        ("sport/", "sport"),
        ("sport/tennis/#", "sport/tenni"),
        ("sport/tennis/#", "sport"),
        ("ACCOUNTS", "Accounts"),
        ("#", "$SYS/monitor/Clients"), // [MQTT-4.7.2-1]
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("+", "$SYS"),
        ("/#", "sport"),
        ("\u{c5}", "A\u{30a}"), // Not normalized. [MQTT-4.7.3-4]
    ] {
        assert!(!filter_matches(filter, topic), "{filter} and {topic}");
    }
}
