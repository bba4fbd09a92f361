//! What the world checks, naively: one owner at a time, QoS 2 once, QoS 1 at least once, order, presence.

use std::collections::{BTreeMap, BTreeSet};

use hearthmq::{
    internals::cluster::names::{ClientKey, MessageId, Term},
    mqtt::QoS,
};

/// A message that a client has published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) from: ClientKey,
    pub(super) to: ClientKey,
    pub(super) qos: QoS,
    /// When its publisher got the acknowledgement.
    pub(super) acked_at: Option<u64>,
    pub(super) delivered: u32,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The latest owner that acted for each client.
    owners: BTreeMap<ClientKey, (Term, usize, u64)>,
    pub(super) published: BTreeMap<u64, Published>,
    /// The last message of each publisher, by receiver and QoS, that was delivered first.
    last: BTreeMap<(ClientKey, ClientKey, u8), u64>,
    pub(super) checks_order: bool,
    pub(super) in_doubt: BTreeSet<MessageId>,
    pub(super) names: BTreeMap<MessageId, u64>,
    feed: BTreeMap<ClientKey, (u64, bool, (usize, u64))>,
    down: BTreeSet<(usize, u64)>,
    pub(super) violation: Option<String>,
    pub(super) tally: BTreeMap<&'static str, u64>,
    pub(super) story: Vec<String>,
    pub(super) tells: bool,
}

impl Checks {
    pub(super) fn fail(&mut self, what: String) {
        if self.violation.is_none() {
            self.story.push(format!("VIOLATION {what}"));
            self.violation = Some(what);
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// A node lets something leave for a client.
    pub(super) fn acts(&mut self, key: ClientKey, term: Term, node: usize, life: u64, what: &str) {
        let latest = self.owners.get(&key).copied();
        if let Some((later, other, other_life)) = latest
            && (term < later || (term == later && (other, other_life) != (node, life)))
            && other != node
        {
            self.fail(format!(
                "owner: {what} of node {node} for {key} in term {} after node {other} in term {}",
                term.0, later.0
            ));
        }
        self.owners.insert(key, (term, node, life));
        self.count("acts");
    }

    /// A client receives a message. `is_known`: it was sent before under the same Packet Identifier.
    pub(super) fn delivered(&mut self, message: u64, is_known: bool) {
        let Some(published) = self.published.get_mut(&message) else { return };
        let (qos, from, to) = (published.qos, published.from, published.to);
        if qos == QoS::ExactlyOnce && is_known && published.delivered > 0 {
            return; // The client knows the Packet Identifier.
        }
        published.delivered += 1;
        let times = published.delivered;
        if qos == QoS::ExactlyOnce && times > 1 {
            self.fail(format!("twice: QoS 2 message {message} to {to}"));
        }
        self.count("delivered");
        if times == 1 {
            let last = self.last.entry((from, to, qos.number())).or_default();
            if *last > message {
                let last = *last;
                self.count("out of order");
                if self.checks_order {
                    self.fail(format!("order: message {message} behind {last} to {to}"));
                }
            } else {
                *last = message;
            }
        }
    }

    /// An event of presence is in the feed; events of a life that is declared down are void.
    pub(super) fn feed(
        &mut self,
        key: ClientKey,
        version: u64,
        is_online: bool,
        life: (usize, u64),
    ) {
        if self.down.contains(&life) {
            return;
        }
        // An end has the version of its beginning.
        let is_newer = self.feed.get(&key).is_none_or(|(known, known_online, _)| {
            version > *known || (version == *known && *known_online && !is_online)
        });
        if is_newer {
            self.feed.insert(key, (version, is_online, life));
        }
    }

    /// A life is declared down in the feed.
    pub(super) fn feed_down(&mut self, life: (usize, u64)) {
        if self.down.insert(life) {
            for (version, is_online, of) in self.feed.values_mut() {
                if *is_online && *of == life {
                    *version = Term(*version >> 20).node_down_version();
                    *is_online = false;
                }
            }
        }
    }

    pub(super) fn presence(&self, key: ClientKey) -> Option<(bool, (usize, u64))> {
        self.feed.get(&key).map(|(_, is_online, life)| (*is_online, *life))
    }
}
