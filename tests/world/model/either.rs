//! What is due after two clients have acted at the same time: what both orders of their actions owe
//! must come, what only one of them owes may come.

use super::{
    Model, Session, Verdict,
    owed::{Copy, GroupCopy},
};
use crate::vocabulary::NAMES;

impl Model {
    /// Returns what is due if either this model is right or the other, or partly each.
    pub(crate) fn either(mut self, other: Self) -> Verdict<Self> {
        if !self.retained.keys().eq(other.retained.keys()) {
            return Err("two orders retain different messages".to_owned());
        }
        self.routed = self.routed.max(other.routed);
        self.links = self.links.max(other.links);
        for (client, other) in other.sessions.into_iter().enumerate() {
            match (&mut self.sessions[client], other) {
                (Some(session), Some(other)) => session.either(other),
                (None, None) => {}
                _ => return Err(format!("only one order has a session of {}", NAMES[client])),
            }
        }
        let mut left = other.groups;
        for group in &mut self.groups {
            let same = left.iter().position(|other| group.is_same(other));
            match same.map(|at| left.remove(at)) {
                Some(other) => group.either(other),
                None => group.is_optional = true,
            }
        }
        left.iter_mut().for_each(|group| group.is_optional = true);
        self.groups.extend(left);
        Ok(self)
    }
}

impl Session {
    fn either(&mut self, other: Self) {
        let mut left = other.copies;
        for copy in &mut self.copies {
            let same = left.iter().position(|other| copy.is_same(other));
            match same.map(|at| left.remove(at)) {
                Some(other) => {
                    copy.may_be_lost |= other.may_be_lost;
                    copy.is_optional |= other.is_optional;
                    copy.comes_only_again &= other.comes_only_again;
                    copy.is_left_over |= other.is_left_over;
                }
                None => copy.is_optional = true,
            }
        }
        left.iter_mut().for_each(|copy| copy.is_optional = true);
        self.copies.extend(left);
        if let (Some(link), Some(other)) = (&mut self.link, &other.link) {
            link.is_behind |= other.is_behind;
        }
    }
}

impl Copy {
    fn is_same(&self, other: &Self) -> bool {
        self.message.topic == other.message.topic
            && self.message.payload == other.message.payload
            && self.qos == other.qos
            && self.retain == other.retain
            && self.identifiers == other.identifiers
            && self.retained_for == other.retained_for
            && self.packet_id == other.packet_id
            && self.share == other.share
    }
}

impl GroupCopy {
    fn is_same(&self, other: &Self) -> bool {
        self.message.topic == other.message.topic
            && self.message.payload == other.message.payload
            && self.filter == other.filter
    }

    fn either(&mut self, other: Self) {
        self.is_left_over |= other.is_left_over;
        self.is_optional |= other.is_optional;
        self.is_waiting &= other.is_waiting;
        if self.expects != other.expects {
            self.expects.clear();
        }
        for member in other.members {
            if !self.members.contains(&member) {
                self.members.push(member);
            }
        }
    }
}
