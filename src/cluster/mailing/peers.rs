//! The other nodes as receivers of mail: a lane to each node that serves, and the mail that waits for one.
//!
//! ```text
//!             it serves, and has greeted             one of the lives has ended
//!   Waiting ─────────────────────────────▶ On lane ─────────────────────────────▶ Waiting
//!      │                                                                             │
//!      └────────────── it is declared dead: parts of tickets end, mail is lost ──────┘
//! ```
//!
//! Mail that waits keeps its order, and goes first on the next lane. Knows no shards and no NATS.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use crate::{
    cluster::{
        lanes::{Lane, LaneAnswer, Mail, MailBatch, PartNumber, Unacknowledged},
        names::{Incarnation, NodeId, Sequence},
    },
    mqtt::{QoS, Timestamp},
};

/// Maximum bytes on the way to one node before publishers are held. Mail of QoS 0 is dropped beyond twice as much.
pub(super) const LANE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The record of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerStanding {
    /// It does not serve yet, or is not known.
    Joining,
    /// This life serves.
    Serving(Incarnation),
    /// It is dead.
    Dead,
}

/// Counts of the mail to a node and from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerCounts {
    pub(super) messages_sent: u64,
    pub(super) bytes_sent: u64,
    pub(super) messages_received: u64,
    pub(super) bytes_received: u64,
    /// Messages that did not reach it.
    pub(super) dropped: u64,
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) standing: PeerStanding,
    /// The life and the process of its last greeting.
    greeted: Option<(Incarnation, u64)>,
    /// The process at the end of the last lane.
    process: Option<u64>,
    lane: Option<Lane>,
    waiting: VecDeque<Unacknowledged>,
    waiting_bytes: usize,
    /// Mail that will not reach it, and certainly has not been delivered by it, or may be delivered again.
    returned: Vec<Unacknowledged>,
    /// The position in the log of routes that was reported on this lane.
    reported: Option<Sequence>,
    /// The same of the stream of retained messages.
    reported_retained: Sequence,
    pub(super) counts: PeerCounts,
}

impl Peer {
    /// Returns the number of messages that it has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.waiting.len() + self.lane.as_ref().map_or(0, Lane::len)
    }

    fn is_full(&self) -> bool {
        self.waiting_bytes > LANE_BYTES_MAX || self.lane.as_ref().is_some_and(|l| !l.has_room())
    }

    /// Keeps mail until there is a lane, or returns the part of a ticket that ends with it.
    fn wait(&mut self, back: Unacknowledged) -> Option<PartNumber> {
        if back.mail.qos == QoS::AtMostOnce {
            self.counts.dropped += 1;
            return back.part;
        }
        if self.standing == PeerStanding::Dead {
            return self.give_back(back);
        }
        self.waiting_bytes += size_of(&back.mail);
        self.waiting.push_back(back);
        None
    }

    /// Ends the lane. Its mail waits for the next one.
    fn end_lane(&mut self, done: &mut Vec<PartNumber>) {
        let Some(lane) = self.lane.take() else { return };
        self.reported = None;
        self.reported_retained = Sequence(0);
        // None waits beside a lane.
        for back in lane.end() {
            done.extend(self.wait(back));
        }
    }

    /// Gives up all mail that waits.
    fn give_up(&mut self, done: &mut Vec<PartNumber>) {
        self.waiting_bytes = 0;
        for back in mem::take(&mut self.waiting) {
            done.extend(self.give_back(back));
        }
    }

    /// Gives back mail of a dead node, or returns the part of a ticket that ends with it: QoS 2 that may have been
    /// delivered.
    fn give_back(&mut self, back: Unacknowledged) -> Option<PartNumber> {
        if back.mail.qos == QoS::ExactlyOnce && back.has_left {
            self.counts.dropped += 1;
            return back.part;
        }
        self.returned.push(back);
        None
    }
}

const fn size_of(mail: &Mail) -> usize {
    mail.topic.len() + mail.content.len()
}

/// All other nodes, by number.
#[derive(Debug, Default)]
pub(super) struct Peers {
    numbers: BTreeMap<NodeId, u32>,
    all: Vec<Peer>,
    done: Vec<PartNumber>,
}

impl Peers {
    /// Returns the number of a node, which it keeps while this process lives.
    pub(super) fn number(&mut self, node: &NodeId) -> u32 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.numbers.insert(node.clone(), number);
        self.all.push(Peer {
            node: node.clone(),
            standing: PeerStanding::Joining,
            greeted: None,
            process: None,
            lane: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            returned: Vec::new(),
            reported: None,
            reported_retained: Sequence(0),
            counts: PeerCounts::default(),
        });
        number
    }

    pub(super) fn of(&mut self, node: &NodeId) -> &mut Peer {
        let number = self.number(node);
        &mut self.all[number as usize]
    }

    /// Returns whether a node is known to be dead.
    pub(super) fn is_dead(&self, node: &NodeId) -> bool {
        let peer = self.numbers.get(node).and_then(|number| self.all.get(*number as usize));
        peer.is_some_and(|peer| peer.standing == PeerStanding::Dead)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter()
    }

    /// Returns the lives that serve.
    pub(super) fn serving(&self) -> impl Iterator<Item = (&NodeId, Incarnation)> {
        self.all.iter().filter_map(|peer| match peer.standing {
            PeerStanding::Serving(life) => Some((&peer.node, life)),
            PeerStanding::Joining | PeerStanding::Dead => None,
        })
    }

    /// Takes in the record of a node; returns whether it has changed.
    pub(super) fn handle_standing(&mut self, node: &NodeId, standing: PeerStanding) -> bool {
        let number = self.number(node) as usize;
        let (peer, done) = (&mut self.all[number], &mut self.done);
        if mem::replace(&mut peer.standing, standing) == standing {
            return false;
        }
        let leads_to = peer.lane.as_ref().map(Lane::to_incarnation);
        if leads_to.is_some_and(|life| standing != PeerStanding::Serving(life)) {
            peer.end_lane(done);
        }
        if standing == PeerStanding::Dead {
            peer.give_up(done);
        }
        true
    }

    /// Takes in the greeting of a node.
    pub(super) fn handle_hello(&mut self, node: &NodeId, life: Incarnation, process: u64) {
        let peer = self.of(node);
        if peer.greeted.is_none_or(|(known, _)| known <= life) {
            peer.greeted = Some((life, process));
        }
    }

    /// Begins lanes to all nodes that serve and have greeted.
    pub(super) fn open_lanes(&mut self, me: &NodeId, mine: Incarnation, payload_bytes_max: usize) {
        for peer in &mut self.all {
            let (PeerStanding::Serving(life), Some((greeted, process))) =
                (peer.standing, peer.greeted)
            else {
                continue;
            };
            if peer.lane.is_some() || greeted != life {
                continue;
            }
            let mut lane = Lane::new(me.clone(), mine, life, payload_bytes_max, LANE_BYTES_MAX);
            let is_same = peer.process.replace(process) == Some(process);
            peer.waiting_bytes = 0;
            for Unacknowledged { mail, part, has_left } in mem::take(&mut peer.waiting) {
                if has_left && !is_same && mail.qos == QoS::ExactlyOnce {
                    // The former process may have delivered it, and nobody knows.
                    peer.counts.dropped += 1;
                    self.done.extend(part);
                } else {
                    lane.push_mail(mail, part);
                }
            }
            peer.lane = Some(lane);
        }
    }

    /// Ends all lanes: this life has ended.
    pub(super) fn end_lanes(&mut self) {
        for peer in &mut self.all {
            peer.end_lane(&mut self.done);
        }
    }

    /// Sends a message to a node. Its part is done when the node has stored it.
    pub(super) fn send(&mut self, number: u32, mail: Mail, part: Option<PartNumber>) {
        let Some(peer) = self.all.get_mut(number as usize) else {
            self.done.extend(part);
            return;
        };
        let bytes = size_of(&mail) as u64;
        match &mut peer.lane {
            Some(lane) if mail.qos == QoS::AtMostOnce && lane.is_overfull() => {
                peer.counts.dropped += 1;
            }
            Some(lane) => {
                peer.counts.messages_sent += 1;
                peer.counts.bytes_sent += bytes;
                lane.push_mail(mail, part);
            }
            None => {
                let back = Unacknowledged { mail, part, has_left: false };
                self.done.extend(peer.wait(back));
            }
        }
    }

    /// Reports on each lane how far the log of routes is applied, and before it how far this node has written
    /// the stream of retained messages: what it planned with former routes is not above that.
    pub(super) fn report(&mut self, applied: Sequence, retained: Sequence) {
        for peer in &mut self.all {
            if let Some(lane) = &mut peer.lane
                && peer.reported != Some(applied)
            {
                peer.reported = Some(applied);
                if peer.reported_retained < retained {
                    peer.reported_retained = retained;
                    lane.push_retained(retained);
                }
                lane.push_applied(applied);
            }
        }
    }

    /// Takes in the answer of a node to what was sent.
    pub(super) fn handle_answer(&mut self, answer: &LaneAnswer, now: Timestamp) {
        let number = self.number(&answer.from) as usize;
        let Some(lane) = &mut self.all[number].lane else { return };
        lane.handle_answer(answer, now);
        while let Some(part) = lane.poll_stored() {
            self.done.push(part);
        }
    }

    /// Returns the next batch to send, with its receiver.
    pub(super) fn poll_batch(&mut self, now: Timestamp) -> Option<(NodeId, MailBatch)> {
        self.all.iter_mut().find_map(|peer| {
            let batch = peer.lane.as_mut()?.poll_batch(now)?;
            Some((peer.node.clone(), batch))
        })
    }

    /// Returns the mail of dead nodes that may go elsewhere, by the number of its node.
    pub(super) fn take_returned(&mut self) -> Vec<(u32, Vec<Unacknowledged>)> {
        let with_some = (0..).zip(&mut self.all).filter(|(_, peer)| !peer.returned.is_empty());
        with_some.map(|(number, peer)| (number, mem::take(&mut peer.returned))).collect()
    }

    /// Notes that mail of a dead node goes nowhere else.
    pub(super) fn drop_returned(&mut self, number: u32, part: Option<PartNumber>) {
        if let Some(peer) = self.all.get_mut(number as usize) {
            peer.counts.dropped += 1;
        }
        self.done.extend(part);
    }

    /// Notes that parts of tickets are done.
    pub(super) fn note_done(&mut self, parts: Vec<PartNumber>) {
        self.done.extend(parts);
    }

    /// Returns the name of the node with this number.
    pub(super) fn name(&self, number: u32) -> Option<&NodeId> {
        self.all.get(number as usize).map(|peer| &peer.node)
    }

    /// Returns the parts of tickets that are done.
    pub(super) fn take_done(&mut self) -> Vec<PartNumber> {
        mem::take(&mut self.done)
    }

    /// Returns whether too much waits for a node.
    pub(super) fn is_congested(&self) -> bool {
        self.all.iter().any(Peer::is_full)
    }
}

#[cfg(test)]
mod tests;
