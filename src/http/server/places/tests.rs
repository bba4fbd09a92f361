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

fn connect(places: &Arc<Places>, address: &str) -> Option<Place> {
    let place = places.admit_now(Some(address.parse().unwrap()));
    place.inspect(|place| place.occupant.seat.set_read())
}

fn connected(places: &Arc<Places>, address: &str, count: usize) -> Vec<Place> {
    (0..count).map(|_| connect(places, address).unwrap()).collect()
}

fn is_cut(place: &Place) -> bool {
    place.occupant.seat.is_taken_away()
}

fn cut(places: &[Place]) -> usize {
    places.iter().filter(|place| is_cut(place)).count()
}

#[test]
fn one_more_of_an_address_replaces_the_one_that_has_been_idle_the_longest() {
    let places = places(10, 3);
    let held = connected(&places, "192.0.2.1", 3);
    held[0].occupant.begin(Doing::Busy, 1);
    held[1].occupant.begin(Doing::Idle, 20);
    held[2].occupant.begin(Doing::Idle, 10);
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
fn when_all_are_being_answered_the_one_that_takes_the_longest_gives_its_place() {
    let places = places(3, 3);
    let busy = connected(&places, "192.0.2.1", 2);
    let other = connected(&places, "192.0.2.2", 1);
    busy.iter().chain(&other).for_each(Place::set_busy);
    busy[1].occupant.begin(Doing::Busy, 1);
    busy[0].occupant.begin(Doing::Busy, 3);
    assert!(connect(&places, "192.0.2.3").is_some());
    assert!(is_cut(&busy[1]) && cut(&busy) == 1 && cut(&other) == 0);
}

#[test]
fn one_that_sends_or_takes_slowly_goes_before_one_that_is_being_answered() {
    let places = places(3, 3);
    let held = connected(&places, "192.0.2.1", 3);
    held.iter().for_each(Place::set_busy);
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
    let held = connected(&places, "192.0.2.1", 2);
    let address = "192.0.2.1".parse().unwrap();
    let unread = places.admit_now(Some(address)).unwrap();
    unread.occupant.begin(Doing::Idle, 0);
    assert_eq!(places.first_to_go(Some(address)), Some(Doing::Idle));
    held.iter().for_each(Place::set_busy);
    assert_eq!(places.first_to_go(Some(address)), Some(Doing::Unread));
    assert_eq!(places.first_to_go(Some("192.0.2.2".parse().unwrap())), None);
    unread.occupant.seat.set_read();
    assert_eq!(places.first_to_go(Some(address)), Some(Doing::Idle));
}

#[test]
fn a_burst_of_connections_cuts_no_handshake() {
    let places = places(10, 3);
    let good = connect(&places, "192.0.2.1").unwrap();
    good.set_waiting();
    let address = Some("192.0.2.1".parse().unwrap());
    let _unread: Vec<_> = (0..20).map(|_| places.admit_now(address).unwrap()).collect();
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
fn a_connection_behind_a_proxy_header_counts_once_it_is_known_whose_it_is() {
    let places = places(10, 1);
    let held = connected(&places, "192.0.2.1", 1);
    let unknown: Vec<_> = (0..3).map(|_| places.admit_now(None).unwrap()).collect();
    assert_eq!(places.held().len, 4);
    assert!(unknown[0].belongs_to("192.0.2.1".parse().unwrap()));
    assert!(unknown[1].belongs_to("192.0.2.2".parse().unwrap()));
    assert_eq!((cut(&held), cut(&unknown)), (1, 0));
    assert_eq!(places.held().len, 3);
    drop((held, unknown));
    let held = places.held();
    assert!(held.len == 0 && held.by_address.is_empty() && held.by_size.is_empty());
}

/// Finds the first connection of an address as its definition says.
fn first_of_naively(held: &Held, address: IpAddr) -> Option<(usize, Doing)> {
    let all = held.of(address).iter().map(|occupant| occupant.doing()).enumerate();
    all.min_by_key(|(_, doing)| *doing).map(|(at, (doing, _))| (at, doing))
}

#[test]
fn the_first_to_go_is_the_one_that_a_search_of_all_finds() {
    let places = places(60, 25);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut held = Vec::new();
    for _ in 0..20_000 {
        let address = format!("192.0.2.{}", rng.u8(..4)).parse().unwrap();
        match rng.u8(..8) {
            0..=2 => held.extend(places.admit_now(Some(address))),
            3 => held.extend(places.admit_now(None)),
            _ if held.is_empty() => {}
            4 => drop(held.swap_remove(rng.usize(..held.len()))),
            changes => {
                let place: &Place = &held[rng.usize(..held.len())];
                match changes {
                    5 => place.occupant.seat.set_read(),
                    6 if place.address.get() == UNKNOWN => drop(place.belongs_to(address)),
                    6 => place.set_idle(),
                    _ if rng.bool() => place.set_busy(),
                    _ => place.set_waiting(),
                }
            }
        }
        let all = places.held();
        for address in all.by_address.keys() {
            assert_eq!(all.first_of(*address), first_of_naively(&all, *address));
        }
    }
}

#[test]
fn places_are_given_back_whatever_happened() {
    let places = places(50, 7);
    let mut held = Vec::new();
    for step in 0..10_000_usize {
        let address = format!("192.0.2.{}", step * 7 % 11);
        held.extend(connect(&places, &address));
        let place: &Place = &held[step * 13 % held.len()];
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
        assert_eq!(inner.len, held.len());
        assert!(inner.len <= 50 && inner.by_address.values().all(|all| all.len() <= 7));
        assert_eq!(inner.by_size.len(), inner.by_address.len());
    }
    held.clear();
    assert!(places.held().by_size.is_empty());
}
