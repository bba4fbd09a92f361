//! Messages of shared subscriptions between nodes: the nodes that have searched for a member, and messages that go
//! on because their node is dead.

use std::collections::BTreeMap;

use super::{MailDriver, ticket_of};
use crate::{
    between::{
        door::ToShard,
        nodes::{ArrivedMail, MailHere, RoutesPlace},
    },
    cluster::{
        lanes::{PartNumber, Unacknowledged},
        mailing::{
            MailOrder,
            content::{self, ArrivedContent},
        },
    },
    router::ShardNumber,
};

/// The mail of one shard that goes on.
#[derive(Default)]
struct ReturnedMail {
    mails: Vec<MailHere>,
    /// The parts of tickets that wait until it is stored elsewhere.
    parts: Vec<PartNumber>,
    planned_with: RoutesPlace,
}

impl MailDriver {
    /// Returns a message with the numbers of the nodes that have searched.
    pub(super) fn searched(&mut self, arrived: ArrivedContent) -> MailHere {
        let ArrivedContent { mut here, visited, .. } = arrived;
        if let Some(group) = &mut here.group {
            for node in visited.iter().filter(|node| self.me.as_ref() != Some(*node)) {
                group.visited.add(self.peers.number(node));
            }
        }
        here
    }

    /// Lets messages of shared subscriptions go on that a dead node has not taken. All other mail to it is lost.
    pub(super) fn return_mail(&mut self) {
        let returned = self.peers.take_returned();
        if returned.is_empty() {
            return;
        }
        let at_broker = self.host.clock.now();
        let mut by_shard: BTreeMap<u16, ReturnedMail> = BTreeMap::new();
        for (number, back) in returned {
            for Unacknowledged { mail, part, .. } in back {
                let shard = mail.id.source.shard;
                let arrived = content::decode(&mail, at_broker).ok();
                match arrived.filter(|arrived| arrived.here.group.is_some()) {
                    Some(arrived) => {
                        let place = arrived.planned_with;
                        let mut here = self.searched(arrived);
                        if let Some(group) = &mut here.group {
                            group.visited.add(number);
                        }
                        let returned = by_shard.entry(shard).or_default();
                        returned.mails.push(here);
                        returned.planned_with = returned.planned_with.max(place);
                    }
                    None if !by_shard.contains_key(&shard) => {
                        self.peers.drop_returned(number, part);
                        continue;
                    }
                    // Its ticket may also be that of messages before it, which go on.
                    None => self.peers.drop_returned(number, None),
                }
                let part = part.filter(|part| ticket_of(*part).0 == ShardNumber(shard));
                by_shard.entry(shard).or_default().parts.extend(part);
            }
        }
        for (shard, ReturnedMail { mails, parts, planned_with }) in by_shard {
            let orders = self.orders.clone();
            let stored = Box::new(move || drop(orders.send(MailOrder::Done(parts))));
            let arrived = ArrivedMail { mails, bytes: 0, planned_with, stored };
            self.tell(ShardNumber(shard), ToShard::Mail(arrived));
        }
    }
}
