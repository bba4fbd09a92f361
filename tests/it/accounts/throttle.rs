//! The throttle, on virtual time.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use hearthmq::auth::{Admission, FailureThrottle, ThrottleConfig};

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct World {
    throttle: FailureThrottle,
    now: Instant,
}

impl World {
    fn new(config: ThrottleConfig) -> Self {
        Self { throttle: FailureThrottle::new(config), now: Instant::now() }
    }

    fn admit(&self, address: &str, user: &str) -> Admission {
        self.throttle.admit(ip(address), user, self.now)
    }

    fn fail(&mut self, times: u32, address: &str, user: &str) {
        for _ in 0..times {
            self.throttle.failed(ip(address), user, self.now);
        }
    }
}

const fn refused(retry_after_secs: u32) -> Admission {
    Admission::Refused { retry_after_secs }
}

#[test]
fn failures_are_free_then_slow_then_refused_then_forgiven() {
    let mut world = World::new(ThrottleConfig::default());
    let delays_ms = [0, 0, 0, 250, 500, 1000, 2000, 4000, 4000, 4000];
    for delay_ms in delays_ms {
        let expected = match delay_ms {
            0 => Admission::Now,
            _ => Admission::After(Duration::from_millis(delay_ms)),
        };
        assert_eq!(world.admit("192.0.2.1", "ann"), expected);
        world.fail(1, "192.0.2.1", "ann");
    }
    assert_eq!(world.admit("192.0.2.1", "ann"), refused(60));
    world.now += SECOND * 59 + SECOND / 2;
    assert_eq!(world.admit("192.0.2.1", "ann"), refused(1));
    world.now += SECOND / 2;
    assert_eq!(world.admit("192.0.2.1", "ann"), Admission::Now);
}

#[test]
fn failures_are_forgotten_a_minute_after_the_first() {
    let mut world = World::new(ThrottleConfig::default());
    world.fail(9, "192.0.2.1", "ann");
    world.now += SECOND * 59;
    assert_eq!(world.admit("192.0.2.1", "ann"), Admission::After(SECOND * 4));
    world.now += SECOND;
    assert_eq!(world.admit("192.0.2.1", "ann"), Admission::Now);
    world.fail(9, "192.0.2.1", "ann");
    assert_eq!(world.admit("192.0.2.1", "ann"), Admission::After(SECOND * 4));
}

#[test]
fn a_success_clears_its_own_count_and_not_the_address() {
    let mut world =
        World::new(ThrottleConfig { address_failures_max: 20, ..ThrottleConfig::default() });
    world.fail(9, "192.0.2.1", "ann");
    world.throttle.succeeded(ip("192.0.2.1"), "ann");
    assert_eq!(world.admit("192.0.2.1", "ann"), Admission::Now);
    world.fail(9, "192.0.2.1", "ben");
    world.fail(2, "192.0.2.1", "cleo");
    assert_eq!(world.admit("192.0.2.1", "dora"), refused(60));
    assert_eq!(world.admit("192.0.2.2", "dora"), Admission::Now);
}

#[test]
fn one_bad_device_does_not_lock_out_the_fleet_behind_its_address() {
    let mut world = World::new(ThrottleConfig::default());
    for _ in 0..3600 {
        if !matches!(world.admit("192.0.2.1", "bad"), Admission::Refused { .. }) {
            world.fail(1, "192.0.2.1", "bad");
        }
        assert_eq!(world.admit("192.0.2.1", "good"), Admission::Now);
        world.now += SECOND;
    }
}

#[test]
fn one_who_tries_many_user_names_is_refused_by_address() {
    let mut world = World::new(ThrottleConfig::default());
    for number in 0..500 {
        assert_eq!(world.admit("192.0.2.1", "new"), Admission::Now);
        world.fail(1, "192.0.2.1", &number.to_string());
    }
    assert_eq!(world.admit("192.0.2.1", "new"), refused(60));
}

#[test]
fn an_ipv6_customer_is_one_address_and_a_mapped_ipv4_address_is_ipv4() {
    let mut world = World::new(ThrottleConfig::default());
    for host in 1..=10 {
        world.fail(1, &format!("2001:db8:0:1::{host}"), "ann");
        world.fail(1, "::ffff:192.0.2.1", "ann");
    }
    assert_eq!(world.admit("2001:db8:0:1:ffff::", "ann"), refused(60));
    assert_eq!(world.admit("2001:db8:0:2::1", "ann"), Admission::Now);
    assert_eq!(world.admit("192.0.2.1", "ann"), refused(60));
    assert_eq!(world.admit("192.0.2.2", "ann"), Admission::Now);
}

#[test]
fn memory_is_bounded_and_the_oldest_goes() {
    let mut world = World::new(ThrottleConfig { entries_max: 3, ..ThrottleConfig::default() });
    for host in 1..=4 {
        world.fail(10, &format!("192.0.2.{host}"), "ann");
    }
    assert_eq!(world.admit("192.0.2.4", "ann"), refused(60));
    let refused_count = (1..=4)
        .filter(|host| world.admit(&format!("192.0.2.{host}"), "ann") == refused(60))
        .count();
    assert_eq!(refused_count, 3);
}

#[test]
fn what_no_longer_matters_makes_room_before_what_does() {
    let mut world = World::new(ThrottleConfig { entries_max: 3, ..ThrottleConfig::default() });
    world.fail(10, "192.0.2.1", "ann");
    world.fail(1, "192.0.2.2", "ann");
    world.fail(10, "192.0.2.3", "ann");
    world.throttle.succeeded(ip("192.0.2.2"), "ann");
    world.fail(1, "192.0.2.4", "ann");
    assert_eq!(world.admit("192.0.2.1", "ann"), refused(60));
    assert_eq!(world.admit("192.0.2.3", "ann"), refused(60));
}

#[test]
fn a_bound_of_zero_is_none() {
    for config in [
        ThrottleConfig { failures_max: 0, address_failures_max: 0, ..ThrottleConfig::default() },
        ThrottleConfig { entries_max: 0, ..ThrottleConfig::default() },
    ] {
        let mut world = World::new(config);
        world.fail(10_000, "192.0.2.1", "ann");
        assert_eq!(world.admit("192.0.2.1", "ann"), Admission::Now);
    }
}
