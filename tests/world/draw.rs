//! Draws the steps of a world from its seed.

use fastrand::Rng;
use hearthmq::mqtt::{
    ProtocolVersion::{V3_1, V3_1_1, V5},
    QoS, RetainHandling, SubscriptionOptions,
};

use crate::{
    steps::{How, Misdeed, Planned, Size, Step, What, WillHow},
    vocabulary::{BANS, FILTERS, NAMES, NOT_SHARED, RULES, TOKENS, TOPICS, may_share},
    watching::FOLLOWERS,
};

/// Followers that are away for so long are forgotten.
const FORGOTTEN_MILLIS: u64 = 301_000;

/// Returns this many steps of the world with this seed.
pub(crate) fn steps(seed: u64, count: usize) -> Vec<Planned> {
    let mut draw = Draw { rng: Rng::with_seed(seed), online: [false; NAMES.len()] };
    (0..count).map(|_| Planned { step: draw.step(), mail: draw.rng.u64(..) }).collect()
}

struct Draw {
    rng: Rng,
    /// Clients that are probably online, so that few steps are pointless.
    online: [bool; NAMES.len()],
}

impl Draw {
    fn step(&mut self) -> Step {
        let client = self.rng.usize(..NAMES.len());
        if !self.online[client] && self.rng.u8(..4) > 0 {
            self.online[client] = true;
            return Step::Connect { client, how: self.how() };
        }
        match self.rng.u8(..128) {
            0..3 => Step::Connect { client, how: self.how() },
            3..14 => self.subscribe(client),
            14..18 => Step::Unsubscribe { client, filter: self.rng.usize(..FILTERS.len()) },
            18..50 => Step::Publish {
                client,
                what: self.what(),
                times: if self.chance(8) { self.rng.u8(2..24) } else { 1 },
                alias: self.chance(3),
            },
            50..52 => Step::HostPublish { what: self.what() },
            52..64 => Step::Continue { client, nth: self.rng.usize(..8), refuse: self.chance(10) },
            64..70 => Step::ContinueAll { client },
            70..75 => Step::Answers { client, at_once: self.rng.bool() },
            75..79 => Step::Reads { client, reads: self.chance(2) },
            79..81 => Step::Halve { client, at: self.rng.usize(1..12) },
            81..83 => Step::Ping { client },
            83..91 => self.leave(client),
            91 if self.chance(2) => self.crash(client),
            92 if self.chance(2) => Step::Fail { fails: self.chance(2) },
            91..93 => Step::SetKeepAlive { client, secs: self.rng.u16(0..20) },
            93..101 => Step::Wait { millis: self.millis() },
            101..107 => self.look(client),
            107..112 => self.change_settings(client),
            112..118 => self.change_access(client),
            _ => self.cross(client),
        }
    }

    fn change_settings(&mut self, client: usize) -> Step {
        if self.chance(4) {
            return Step::SlowDown { client };
        }
        Step::ChangeSettings {
            client,
            in_flight_max: self.some(2, |rng| rng.u16(1..4)),
            expiry_secs: self.some(2, |rng| rng.u32(1..20)),
            removes: self.chance(4),
        }
    }

    fn change_access(&mut self, client: usize) -> Step {
        let ban = self.rng.usize(..BANS.len());
        let (rule, token) = (self.rng.usize(..RULES.len()), self.rng.usize(..TOKENS.len()));
        match self.rng.u8(..16) {
            0 => Step::Ban { ban, secs: (!self.chance(4)).then(|| self.rng.u8(1..10)) },
            1..4 => Step::LiftBan { ban },
            4..6 => Step::ChangeRule { rule, adds: true },
            6..11 => Step::ChangeRule { rule, adds: false },
            11 => Step::ChangeToken { token, adds: self.rng.bool() },
            12 => Step::UseTokens,
            _ => Step::Deny { client, nth: self.rng.usize(..FILTERS.len()) },
        }
    }

    fn look(&mut self, client: usize) -> Step {
        if self.chance(12) {
            return Step::Wait { millis: FORGOTTEN_MILLIS };
        }
        if self.chance(2) {
            return Step::LookBack { client };
        }
        let follower = self.rng.usize(..FOLLOWERS);
        let items = if self.rng.bool() { 1 } else { self.rng.usize(2..100) };
        Step::Follow { follower, items, to_end: !self.chance(3) }
    }

    fn cross(&mut self, client: usize) -> Step {
        let other = (client + self.rng.usize(1..NAMES.len())) % NAMES.len();
        let (first, second) = match self.chance(2) {
            true => (self.act(client), self.act(other)),
            // A member of a group comes, goes or ends while a message is on its way to the group.
            false => (self.publish_to_group(client), self.come_or_go(other)),
        };
        let (first, second) = (Box::new(first), Box::new(second));
        Step::Cross { first, turns: self.rng.u8(..20), second, held: self.held() }
    }

    /// Routes on which mail is held back: most of them.
    fn held(&mut self) -> u16 {
        self.rng.u16(..) | self.rng.u16(..)
    }

    fn publish_to_group(&mut self, client: usize) -> Step {
        let topic = ["s/1", "s/2", "a/1"][self.rng.usize(..3)];
        let topic = TOPICS.iter().position(|known| *known == topic).unwrap_or(0);
        let what = What { topic, size: Size::Small, ..self.what() };
        if !self.online[client] {
            return Step::HostPublish { what };
        }
        Step::Publish { client, what, times: self.rng.u8(1..3), alias: false }
    }

    fn come_or_go(&mut self, client: usize) -> Step {
        match self.rng.u8(..4) {
            _ if !self.online[client] => self.act(client),
            0 => Step::Connect { client, how: self.how() },
            1 => Step::Kick { client, end_session: true, will: self.rng.bool() },
            2 => Step::Unsubscribe {
                client,
                filter: self.rng.usize(FILTERS.len() - 3..FILTERS.len()),
            },
            _ => self.leave_while_others_act(client),
        }
    }

    fn leave_while_others_act(&mut self, client: usize) -> Step {
        match self.leave(client) {
            // The model would not know what of the other's messages it has read.
            Step::Cut { client, sent, qos, .. } => Step::Cut { client, read: 0, sent, qos },
            step => step,
        }
    }

    /// An action that may happen at the same time as that of another client.
    fn act(&mut self, client: usize) -> Step {
        if !self.online[client] {
            self.online[client] = true;
            return Step::Connect { client, how: self.how() };
        }
        match self.rng.u8(..16) {
            0..6 => {
                let (what, times) = (self.what(), self.rng.u8(1..4));
                Step::Publish { client, what, times, alias: self.chance(3) }
            }
            6..8 => Step::Connect { client, how: self.how() },
            8 => self.subscribe(client),
            9..11 => Step::Unsubscribe { client, filter: self.rng.usize(..FILTERS.len()) },
            11 => Step::ContinueAll { client },
            12 => Step::HostPublish { what: self.what() },
            _ => self.leave_while_others_act(client),
        }
    }

    fn crash(&mut self, client: usize) -> Step {
        let during = match self.rng.u8(..6) {
            0..2 => {
                let (what, alias) = (self.what(), self.chance(3));
                Some(Step::Publish { client, what, times: 1, alias })
            }
            2 => Some(Step::Continue { client, nth: self.rng.usize(..8), refuse: self.chance(10) }),
            3 if self.rng.bool() => Some(self.subscribe(client)),
            3 => Some(Step::Unsubscribe { client, filter: self.rng.usize(..FILTERS.len()) }),
            _ => None,
        };
        self.online = [false; NAMES.len()];
        let loses = if self.chance(3) { self.rng.usize(1..8) } else { 0 };
        let (turns, read) = (self.rng.u8(..12), self.rng.usize(..100));
        let denied = self.some(2, |rng| (rng.usize(..NAMES.len()), rng.usize(..FILTERS.len())));
        let (held, homes) = (self.held(), self.rng.u64(..));
        Step::Crash { during: during.map(Box::new), turns, read, loses, denied, held, homes }
    }

    fn chance(&mut self, one_in: u8) -> bool {
        self.rng.u8(..one_in) == 0
    }

    fn some<T>(&mut self, one_in: u8, draw: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        self.chance(one_in).then(|| draw(&mut self.rng))
    }

    fn millis(&mut self) -> u64 {
        match self.rng.u8(..8) {
            0 => self.rng.u64(5_000..60_000),
            1..4 => self.rng.u64(1_000..6_000),
            _ => self.rng.u64(1..1_500),
        }
    }

    fn qos(&mut self) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][self.rng.usize(..3)]
    }

    fn what(&mut self) -> What {
        let retain = self.chance(4);
        let size = match self.rng.u8(..16) {
            0..2 if retain => Size::Empty,
            2 => Size::Large,
            3 => Size::Huge,
            _ => Size::Small,
        };
        let topics = if size == Size::Empty { &NOT_SHARED[..] } else { &TOPICS[..] };
        let topic = topics[self.rng.usize(..topics.len())];
        What {
            topic: TOPICS.iter().position(|known| *known == topic).unwrap_or(0),
            qos: self.qos(),
            retain,
            expiry_secs: self.some(4, |rng| rng.u32(1..10)),
            size,
        }
    }

    fn how(&mut self) -> How {
        let version = [V3_1, V3_1_1, V5, V5][self.rng.usize(..4)];
        How {
            version,
            clean_start: self.chance(4),
            keep_alive_secs: self.some(3, |rng| rng.u16(1..20)).unwrap_or(0),
            expiry_secs: (!self.chance(4)).then(|| self.rng.u32(0..40)),
            identity_secs: self.some(6, |rng| rng.u8(1..20)),
            receive_maximum: self.some(2, |rng| rng.u16(1..5)),
            is_small: self.chance(6),
            has_aliases: self.rng.bool(),
            will: self.rng.bool().then(|| self.will()),
            is_narrow: self.chance(3),
            says_at_once: self.chance(6).then(|| self.what()),
        }
    }

    fn will(&mut self) -> WillHow {
        WillHow {
            qos: self.qos(),
            retain: self.chance(3),
            delay_secs: self.some(2, |rng| rng.u32(0..15)),
            expiry_secs: self.some(3, |rng| rng.u32(1..10)),
        }
    }

    fn subscribe(&mut self, client: usize) -> Step {
        let mut places: Vec<usize> =
            (0..FILTERS.len()).filter(|at| may_share(client, FILTERS[*at])).collect();
        self.rng.shuffle(&mut places);
        let count = self.rng.usize(1..4);
        let asked = places[..count].iter().map(|filter| (*filter, self.options(*filter)));
        let asked = asked.collect();
        Step::Subscribe { client, asked, identifier: self.some(2, |rng| rng.u32(1..300)) }
    }

    fn options(&mut self, filter: usize) -> SubscriptionOptions {
        use RetainHandling::{DoNotSend, Send, SendIfNew};
        SubscriptionOptions {
            qos: self.qos(),
            // Invalid for a shared subscription. [MQTT-3.8.3-4]
            no_local: self.chance(4) && !FILTERS[filter].starts_with("$share"),
            retain_as_published: self.rng.bool(),
            retain_handling: [Send, Send, SendIfNew, DoNotSend][self.rng.usize(..4)],
        }
    }

    fn leave(&mut self, client: usize) -> Step {
        use Misdeed::{
            AliasOfNothing, ReservedType, SecondConnect, ServersPacket, WildcardInTopic,
        };
        self.online[client] = false;
        match self.rng.u8(..8) {
            0..3 => Step::Disconnect {
                client,
                with_will: self.chance(3),
                expiry_secs: self.some(3, |rng| rng.u32(0..30)),
            },
            3..6 => Step::Cut {
                client,
                read: self.rng.usize(..100),
                sent: self.rng.usize(..24),
                qos: self.qos(),
            },
            6 => {
                let misdeeds =
                    [SecondConnect, ReservedType, ServersPacket, AliasOfNothing, WildcardInTopic];
                Step::Misbehave { client, how: misdeeds[self.rng.usize(..5)] }
            }
            _ => Step::Kick { client, end_session: self.chance(3), will: self.rng.bool() },
        }
    }
}
