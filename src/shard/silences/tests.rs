//! The rule of the advice, and the bound of the table.

use super::*;

const LISTENER: &str = "mqtt://0.0.0.0:1883";

fn note(silences: &Silences, address: [u8; 4], survived_secs: u32, fatal_secs: Option<u32>) {
    let ended = SilencesOfConnection {
        survived_max_millis: survived_secs * 1_000,
        fatal_millis: fatal_secs.map(|secs| secs * 1_000),
    };
    silences.note(address.into(), &LISTENER.into(), ended);
}

/// Returns the advice after these connections: how many, the longest silence that each
/// survived, and the fatal one, in seconds.
fn advised(connections: &[(usize, u32, Option<u32>)]) -> Option<(u16, AdviceCertainty)> {
    let silences = Silences::default();
    for (count, survived, fatal) in connections {
        for _ in 0..*count {
            note(&silences, [192, 0, 2, 7], *survived, *fatal);
        }
    }
    let page = silences.page(&ListKeepAliveAdvice::new(10));
    let [found] = &page.items[..] else { panic!("one network") };
    Some((found.advised_keep_alive_secs?, found.certainty?))
}

#[test]
fn the_longest_silence_that_several_have_survived_is_advised() {
    use AdviceCertainty::{High, Low, Medium};
    assert_eq!(advised(&[(2, 300, None)]), None, "too little is known");
    assert_eq!(advised(&[(100, 20, None)]), None, "no silence was long enough");
    assert_eq!(advised(&[(3, 300, None)]), Some((256, Low)));
    assert_eq!(advised(&[(12, 300, None), (2, 900, None)]), Some((256, Medium)));
    assert_eq!(advised(&[(200, 5_000, None)]), Some((1_200, High)));
}

#[test]
fn a_fatal_silence_bounds_the_advice_if_few_survive_the_like() {
    use AdviceCertainty::{Low, Medium};
    // A network that forgets connections after five minutes.
    let found = advised(&[(20, 240, None), (10, 60, Some(600))]);
    assert_eq!(found, Some((215, Medium)));
    assert_eq!(advised(&[(10, 20, Some(300))]), Some((170, Low)));
    assert_eq!(advised(&[(10, 5, Some(30))]), Some((30, Low)));
    // Some clients lose their power: most others survive the same silence.
    assert_eq!(advised(&[(200, 300, None), (10, 60, Some(60))]).unwrap().0, 256);
    // Two are too few.
    assert_eq!(advised(&[(20, 300, None), (2, 0, Some(60))]).unwrap().0, 256);
}

#[test]
fn the_order_of_buckets_is_that_of_silences() {
    for bucket in 1..BUCKETS {
        assert!(secs_of(bucket) >= secs_of(bucket - 1), "{bucket}");
        let millis = secs_of(bucket) * 1_000;
        assert!(bucket_of(millis) <= bucket, "{bucket}");
        assert!(bucket_of(millis + 1_000) >= bucket, "{bucket}");
    }
    assert_eq!((bucket_of(0), bucket_of(999), bucket_of(1_000)), (0, 0, 1));
    assert_eq!(bucket_of(u32::MAX), BUCKETS - 1);
}

#[test]
fn addresses_of_one_network_count_together_and_pages_go_on() {
    let silences = Silences::default();
    for address in ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.9", "192.0.3.1", "2001:db8:1:2::3"]
    {
        let ended = SilencesOfConnection { survived_max_millis: 70_000, fatal_millis: None };
        silences.note(address.parse().unwrap(), &LISTENER.into(), ended);
        silences.note(address.parse().unwrap(), &"ws://a".into(), ended);
    }
    let mut question = ListKeepAliveAdvice::new(2);
    let mut found = Vec::new();
    loop {
        let page = silences.page(&question);
        found.extend(page.items);
        question.after = page.next;
        if question.after.is_none() {
            break;
        }
    }
    let found = found.iter().map(|it| (it.network.to_string(), &*it.listener, it.connections));
    let found: Vec<_> = found.collect();
    let expected = [("192.0.2.0/24", 3), ("192.0.3.0/24", 1), ("2001:db8:1::/48", 1)];
    let expected = expected.map(|(network, count)| {
        [(network.to_owned(), LISTENER, count), (network.to_owned(), "ws://a", count)]
    });
    assert_eq!(found, expected.concat());
    question.listener = Some("ws://a".into());
    question.limit = 3;
    let page = silences.page(&question);
    assert_eq!((page.items.len(), page.next), (3, None));
}

#[test]
fn networks_with_few_connections_leave_a_full_table() {
    let silences = Silences::default();
    for _ in 0..20 {
        note(&silences, [10, 0, 0, 1], 100, None);
    }
    for number in 0..3 * ENTRIES_MAX {
        let [.., high, low] = number.to_be_bytes();
        note(&silences, [11, high, low, 1], 100, None);
        if number % 500 == 0 {
            note(&silences, [10, 0, 0, 1], 100, None);
        }
    }
    let table = silences.table();
    assert_eq!(table.entries.len(), ENTRIES_MAX);
    let place = (IpAddr::from([10, 0, 0, 0]), LISTENER.into());
    assert!(table.entries[&place].connections > 20);
}
