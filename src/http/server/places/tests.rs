//! Which connection makes room for a new one.

use super::*;

fn places(connections_max: usize, connections_per_address_max: usize) -> Arc<Places> {
    let proxies = vec!["10.0.0.0/8".parse().unwrap()];
    let options = ServerOptions {
        connections_max,
        connections_per_address_max,
        proxies,
        ..ServerOptions::default()
    };
    Arc::new(Places::new(&options))
}

fn of(address: &str) -> Whose {
    Whose::Of(address.parse().unwrap())
}

fn connect(places: &Arc<Places>, address: &str) -> Option<ConnectionPlace> {
    admit(places, of(address))
}

fn admit(places: &Arc<Places>, whose: Whose) -> Option<ConnectionPlace> {
    let place = places.admit_now(whose);
    place.inspect(|place| place.seat.set_read())
}

fn connected(places: &Arc<Places>, address: &str, count: usize) -> Vec<ConnectionPlace> {
    (0..count).map(|_| connect(places, address).unwrap()).collect()
}

fn is_cut(place: &ConnectionPlace) -> bool {
    place.seat.is_taken_away()
}

fn cut(places: &[ConnectionPlace]) -> usize {
    places.iter().filter(|place| is_cut(place)).count()
}

fn first_to_go(places: &Places, address: &str) -> Option<Doing> {
    places.first_for(&mut places.held(), of(address)).map(|first| first.doing)
}

#[test]
fn one_more_of_an_address_replaces_the_one_that_has_been_idle_the_longest() {
    let places = places(10, 3);
    let held = connected(&places, "192.0.2.1", 3);
    held[0].set_busy();
    held[2].set_idle();
    held[1].set_idle();
    let more = connect(&places, "192.0.2.1").unwrap();
    assert!(is_cut(&held[2]) && cut(&held) == 1);
    more.set_busy();
    held[1].set_busy();
    assert!(connect(&places, "192.0.2.1").is_none(), "all are being answered");
    assert!(connect(&places, "192.0.2.2").is_some());
    drop(more);
    assert!(connect(&places, "192.0.2.1").is_some());
}

#[test]
fn when_all_places_are_taken_the_address_with_the_most_gives_one() {
    let places = places(10, 10);
    let one = connected(&places, "192.0.2.1", 1);
    let many = connected(&places, "192.0.2.2", 7);
    let some = connected(&places, "192.0.2.3", 2);
    let good = connected(&places, "192.0.2.4", 3);
    assert_eq!((cut(&one), cut(&many), cut(&some), cut(&good)), (0, 3, 0, 0));
}

#[test]
fn of_addresses_with_one_connection_each_the_oldest_goes() {
    let addresses = ["192.0.2.7", "192.0.2.1", "192.0.2.9", "192.0.2.4"];
    for set in
        [ConnectionPlace::set_idle, ConnectionPlace::set_waiting, ConnectionPlace::set_asking]
    {
        let places = places(4, 4);
        let held: Vec<_> = addresses.map(|from| connect(&places, from).unwrap()).into();
        held.iter().for_each(set);
        let _more = ["192.0.2.5", "192.0.2.6"].map(|from| {
            let place = connect(&places, from).unwrap();
            place.set_busy();
            place
        });
        assert_eq!(held.iter().map(is_cut).collect::<Vec<_>>(), [true, true, false, false]);
    }
}

#[test]
fn a_call_that_is_being_answered_keeps_its_place() {
    let places = places(3, 3);
    let busy = connected(&places, "192.0.2.1", 2);
    let other = connected(&places, "192.0.2.2", 1);
    busy.iter().chain(&other).for_each(ConnectionPlace::set_busy);
    assert!(connect(&places, "192.0.2.3").is_none());
    assert!(!places.make_room());
    other[0].set_asking();
    assert!(connect(&places, "192.0.2.3").is_some());
    assert_eq!((cut(&busy), cut(&other)), (0, 1));
}

#[test]
fn calls_that_wait_for_a_password_go_before_those_that_are_answered_and_after_all_others() {
    let places = places(6, 6);
    let guesses = connected(&places, "192.0.2.1", 3);
    guesses.iter().for_each(ConnectionPlace::set_asking);
    let known = connect(&places, "192.0.2.1").unwrap();
    known.set_busy();
    let others = connected(&places, "192.0.2.2", 2);
    others[0].set_waiting();
    let health: Vec<_> = (3..7)
        .map(|host| {
            let place = connect(&places, &format!("192.0.2.{host}")).unwrap();
            place.set_busy();
            place
        })
        .collect();
    assert!(others.iter().all(is_cut) && is_cut(&guesses[0]) && is_cut(&guesses[1]));
    assert!(!is_cut(&guesses[2]) && !is_cut(&known) && cut(&health) == 0);
}

#[test]
fn one_that_sends_or_takes_slowly_goes_before_one_that_is_being_answered() {
    let places = places(3, 3);
    let held = connected(&places, "192.0.2.1", 3);
    held.iter().for_each(ConnectionPlace::set_busy);
    held[1].set_waiting();
    held[2].set_waiting();
    let _more = connected(&places, "192.0.2.1", 3);
    assert!(is_cut(&held[1]) && cut(&held) == 1, "idle ones go first");
    let more = connect(&places, "192.0.2.1").unwrap();
    more.set_busy();
    assert!(!is_cut(&held[0]));
}

#[test]
fn one_that_has_not_been_read_goes_behind_all_that_are_idle() {
    let places = places(10, 3);
    let unread = places.admit_now(of("192.0.2.1")).unwrap();
    let held = connected(&places, "192.0.2.1", 2);
    held.iter().for_each(ConnectionPlace::set_idle);
    assert_eq!(first_to_go(&places, "192.0.2.1"), Some(Doing::Idle));
    held.iter().for_each(ConnectionPlace::set_busy);
    assert_eq!(first_to_go(&places, "192.0.2.1"), Some(Doing::Unread));
    assert_eq!(first_to_go(&places, "192.0.2.2"), None);
    unread.seat.set_read();
    assert_eq!(first_to_go(&places, "192.0.2.1"), Some(Doing::Idle));
}

#[test]
fn a_burst_of_connections_cuts_no_handshake() {
    let places = places(10, 3);
    let good = connect(&places, "192.0.2.1").unwrap();
    good.set_waiting();
    let _unread: Vec<_> = (0..20).map(|_| places.admit_now(of("192.0.2.1")).unwrap()).collect();
    assert!(!is_cut(&good));
}

#[test]
fn a_64_of_ipv6_is_one_address_and_a_proxy_is_many() {
    let places = places(10, 2);
    let held = connected(&places, "2001:db8::1", 2);
    let _more = connect(&places, "2001:db8::2").unwrap();
    assert_eq!(cut(&held), 1);
    let proxied = connected(&places, "10.0.0.1", 5);
    assert_eq!(cut(&proxied), 0);
}

#[test]
fn idle_connections_of_a_proxy_and_those_without_their_proxy_header_make_room() {
    for whose in [of("10.0.0.1"), Whose::PassedOnBy([192, 0, 2, 200].into())] {
        let places = places(10, 2);
        let held: Vec<_> = (0..10).map(|_| admit(&places, whose).unwrap()).collect();
        let direct = connect(&places, "192.0.2.1").unwrap();
        let more = admit(&places, whose).unwrap();
        assert!(held[..2].iter().all(is_cut) && cut(&held) == 2);
        assert!(!is_cut(&direct) && !is_cut(&more));
    }
}

#[test]
fn a_connection_behind_a_proxy_header_counts_once_it_is_known_whose_it_is() {
    let places = places(10, 1);
    let held = connected(&places, "192.0.2.1", 1);
    let unknown = Whose::PassedOnBy([192, 0, 2, 200].into());
    let unknown: Vec<_> = (0..3).map(|_| places.admit_now(unknown).unwrap()).collect();
    assert_eq!(places.held().len(), 4);
    assert!(unknown[0].belongs_to("192.0.2.1".parse().unwrap()));
    assert!(unknown[1].belongs_to("192.0.2.2".parse().unwrap()));
    assert_eq!((cut(&held), cut(&unknown)), (1, 0));
    assert_eq!(places.held().len(), 3);
    drop((held, unknown));
    assert!(places.held().is_empty());
}

#[test]
fn places_are_given_back_whatever_happened() {
    let places = places(50, 7);
    let mut held = Vec::new();
    for step in 0..10_000_usize {
        let address = format!("192.0.2.{}", step * 7 % 11);
        held.extend(connect(&places, &address));
        let place: &ConnectionPlace = &held[step * 13 % held.len()];
        if step % 3 == 0 {
            place.set_busy()
        } else {
            place.set_idle()
        }
        if step % 5 == 0 {
            held.swap_remove(step * 17 % held.len());
        }
        held.retain(|place| !is_cut(place));
        let inner = places.held();
        assert_eq!(inner.len(), held.len());
        assert!(inner.len() <= 50);
        let largest = (0..11).map(|host| inner.len_of([192, 0, 2, host].into())).max();
        assert!(largest <= Some(7));
    }
    held.clear();
    assert!(places.held().is_empty());
}
