//! The order of a naive search.

use super::*;

/// Finds the connection to close first as the rule says.
fn first_naively(held: &HeldPlaces, among: impl Fn(&Occupant) -> bool) -> Option<FirstToClose> {
    let doing_of = |occupant: &Occupant| {
        let is_read = occupant.seat.is_read();
        let doing = occupant.activity.peek().0;
        if doing == Doing::Unread && is_read { Doing::Idle } else { doing }
    };
    // A connection that another address was given begins a state, too.
    let since_of = |occupant: &Occupant| occupant.activity.peek().1.max(occupant.since);
    let rank = |occupant: &Occupant| {
        let doing = doing_of(occupant);
        let size = held.all.values().filter(|other| other.address == occupant.address).count();
        (doing.max(Doing::Unread), Reverse(size), doing, since_of(occupant))
    };
    let among = held.all.iter().filter(|(_, occupant)| among(occupant));
    let first = among.min_by_key(|(_, occupant)| rank(occupant));
    first.map(|(&number, occupant)| FirstToClose { number, doing: doing_of(occupant) })
}

#[test]
fn the_first_to_go_is_the_one_that_a_search_of_all_finds() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut held = HeldPlaces::default();
    let mut numbers: Vec<u64> = Vec::new();
    let mut activities = HashMap::new();
    let mut unread = Vec::new();
    for moment in 1..=20_000 {
        let address = IpAddr::from([192, 0, 2, random.u8(..6)]);
        let any = |random: &mut fastrand::Rng| random.choice(&numbers).copied().unwrap_or(0);
        let one = any(&mut random);
        match random.u8(..10) {
            0..=2 if held.len() < 40 => {
                let seat = Arc::new(Seat::default());
                activities.insert(moment, held.enter(moment, address, Arc::clone(&seat)));
                numbers.push(moment);
                unread.push(seat);
            }
            0..=2 => {
                let first = held.first_of_all().unwrap();
                held.cut(first);
            }
            // They are read in the order in which they were accepted.
            3 | 4 if !unread.is_empty() => unread.remove(0).set_read(),
            5 => drop(held.rename(one, address, moment)),
            6 => held.leave(one),
            _ => {
                use Doing::{Asking, Busy, Idle, Waiting};
                let doing = [Idle, Waiting, Asking, Busy][random.usize(..4)];
                let activity = activities.get(&one);
                if activity.is_some_and(|activity: &Arc<Activity>| activity.report(doing, moment)) {
                    held.has_changed(one);
                }
            }
        }
        numbers.retain(|number| held.all.contains_key(number));
        assert_eq!(numbers.len(), held.len());
        for host in 0..6 {
            let address = IpAddr::from([192, 0, 2, host]);
            let naive = first_naively(&held, |occupant| occupant.address == address);
            assert_eq!(held.first_of(address), naive);
        }
        assert_eq!(held.first_of_all(), first_naively(&held, |_| true));
    }
    numbers.into_iter().for_each(|number| held.leave(number));
    assert!(held.is_empty());
}
