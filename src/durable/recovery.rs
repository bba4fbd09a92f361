//! Before the broker begins, it delivers the messages that were on their way between shards when it
//! ended last. They go straight into the stored queues. The same group removes them from the
//! store of messages in transit, so that no message is delivered twice, however often a start is interrupted.
//!
//! Knows the store and the router, and no running session.

use std::sync::Arc;

use crate::{
    durable::{
        in_transit::{Destination, FIRST, IN_TRANSIT, OnItsWay},
        keeper::Keeper,
    },
    journal::{Change, QueuePlace, QueuedMessage, SessionNumber},
    mqtt::{QoS, validate_filter},
    router::{Host, Index, OwnCopy, Place, Plan, ShardNumber, Subscriber, Target},
    store::{Durability, PageBounds, StoreError, StoredSession},
};

/// The maximum that is read of the messages in transit at a time.
const PAGE: PageBounds = PageBounds { messages_max: 1_024, bytes_max: 4 * 1024 * 1024 };

/// The facts about a session that a delivery needs.
struct Recipient {
    number: SessionNumber,
    client_id: Arc<str>,
    last_place: QueuePlace,
}

/// The sessions in the store, and their subscriptions.
#[derive(Default)]
struct Recipients {
    index: Index,
    all: Vec<Recipient>,
}

/// Delivers the messages in transit; returns their number.
pub(crate) fn deliver_undelivered(keeper: &Keeper) -> Result<usize, StoreError> {
    let store = keeper.store();
    let mut delivered = 0;
    let mut recipients = Recipients::default();
    loop {
        // Always from the beginning: what was delivered is no longer there.
        let page = store.waiting(IN_TRANSIT, FIRST, PAGE)?;
        if page.is_empty() {
            return Ok(delivered);
        }
        // All sessions are read once, and only if there is something to deliver.
        if delivered == 0 {
            store.sessions(&mut |session| recipients.add(&session))?;
        }
        let mut changes = Vec::new();
        for (place, queued) in page {
            delivered += 1;
            if let Some(sent) = OnItsWay::from_queued(queued) {
                recipients.deliver(&sent, &mut changes);
            }
            // In one group with the copies, so that a crash in between repeats neither.
            changes.push(Change::Dequeue(IN_TRANSIT, place));
        }
        // Synced, because the listeners open after this and clients may send again.
        store.apply(&changes, Durability::Synced)?;
    }
}

impl Recipients {
    fn add(&mut self, session: &StoredSession) {
        // These places exist for this index alone; the number of the slot is the position in the list.
        let place =
            Place { host: Host::Shard(ShardNumber(0)), slot: self.all.len() as u32, generation: 0 };
        for (filter, record) in
            session.subscriptions.iter().filter(|(_, record)| !record.is_withdrawn)
        {
            if let Ok(parts) = validate_filter(filter) {
                let (options, identifier) = (record.options, record.identifier);
                let subscriber = Subscriber { place, options, identifier, is_durable: true };
                self.index.subscribe(parts, subscriber);
            }
        }
        self.all.push(Recipient {
            number: session.number,
            client_id: session.record.client_id.clone(),
            last_place: session.last_place,
        });
    }

    fn deliver(&mut self, sent: &OnItsWay, changes: &mut Vec<Change>) {
        let plan = self.index.plan(sent.message.topic());
        match &sent.to {
            Destination::Shard(homes, host) => {
                for target in plan.targets() {
                    let recipient = &self.all[target.place.slot as usize];
                    // Only recipients of that shard: the others were served before the broker ended.
                    if homes.home(&recipient.client_id) == *host {
                        self.enqueue(target, sent, None, changes);
                    }
                }
            }
            Destination::Group(filter) => {
                if let Some(member) = member_of(&plan, filter) {
                    self.enqueue(member, sent, Some(filter), changes);
                }
            }
        }
    }

    fn enqueue(
        &mut self,
        target: &Target,
        sent: &OnItsWay,
        share: Option<&Arc<str>>,
        changes: &mut Vec<Change>,
    ) {
        let recipient = &mut self.all[target.place.slot as usize];
        // A publisher with No Local gets no copy of its own message. [MQTT-3.8.3-3]
        let target = match &target.own_copy {
            OwnCopy::Never if recipient.number == sent.publisher => return,
            OwnCopy::Other(own) if recipient.number == sent.publisher => own,
            OwnCopy::Same | OwnCopy::Never | OwnCopy::Other(_) => target,
        };
        let qos = sent.message.qos().min(target.qos);
        if qos == QoS::AtMostOnce {
            return; // Its client is not connected.
        }
        // Places of a queue go on from the last one, so the order of the queue is kept.
        recipient.last_place.0 += 1;
        let queued = QueuedMessage {
            message: sent.message.clone(),
            qos,
            retain: sent.message.publication().retain && target.retain_as_published,
            identifiers: target.identifiers.clone(),
            share: share.cloned(),
        };
        changes.push(Change::Enqueue(recipient.number, recipient.last_place, queued, None));
    }
}

fn member_of<'p>(plan: &'p Plan, filter: &str) -> Option<&'p Target> {
    let mut groups = plan.shared().iter();
    let group = groups.find(|group| **group.filter() == *filter)?;
    group.member(group.next_turn(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        durable::SyncPolicy,
        journal::{SessionRecord, SubscriptionRecord},
        mqtt::{Message, Publication, SubscriptionOptions, Timestamp},
        router::{Homes, Retained, RetainedLimits},
        store::{Bounds, MemoryStore, Store},
    };

    fn keeper(changes: &[Change]) -> Keeper {
        let store = MemoryStore::default();
        store.apply(changes, Durability::Synced).expect("memory takes it");
        let limits = RetainedLimits { messages_max: 1, bytes_max: 1 };
        let retained = Arc::new(Retained::new(limits));
        let keeper = Keeper::new(Arc::new(store), SyncPolicy::Always, &Bounds::default(), retained);
        Keeper::prepare(keeper.store(), 1, Timestamp(0)).expect("memory takes it");
        keeper
    }

    fn session(number: u64, client_id: &str, filter: &str, no_local: bool) -> [Change; 2] {
        let record = SessionRecord {
            client_id: client_id.into(),
            username: None,
            expiry_interval_secs: 9,
            ends_at: None,
            is_connected: false,
            doubtful_up_to: QueuePlace(0),
            peer: "".into(),
            connected_at: Timestamp(0),
            login: None,
        };
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, no_local, ..Default::default() };
        let subscription = SubscriptionRecord { options, identifier: Some(7), is_withdrawn: false };
        let number = SessionNumber(number);
        [
            Change::PutSession(number, Box::new(record)),
            Change::Subscribe(number, filter.into(), subscription),
        ]
    }

    fn waiting(keeper: &Keeper, number: u64) -> Vec<QueuedMessage> {
        let waiting = keeper.store().waiting(SessionNumber(number), FIRST, PAGE);
        waiting.expect("memory is read").into_iter().map(|(_, queued)| queued).collect()
    }

    #[test]
    fn what_had_not_arrived_goes_once_to_those_that_it_was_for() {
        let homes = Homes::new(2);
        let clients: Vec<String> = (1..=8).map(|number| format!("client-{number}")).collect();
        let mut changes = Vec::new();
        for (number, client_id) in (1..).zip(&clients) {
            changes.extend(session(number, client_id, "t/#", number % 2 == 0));
        }
        changes.extend(session(20, "member", "$share/g/t/#", false));
        changes.extend(session(21, "elsewhere", "other", false));
        let keeper = keeper(&changes);
        let message = Arc::new(Message::new(&Publication {
            topic: "t/1",
            payload: b"x",
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: &[],
            expires_at: None,
        }));
        let publisher = SessionNumber(2);
        for to in
            [Destination::Shard(homes, ShardNumber(1)), Destination::Group("$share/g/t/#".into())]
        {
            let sent = OnItsWay { message: message.clone(), publisher, to };
            let place = keeper.next_in_transit();
            let change = Change::Enqueue(IN_TRANSIT, place, sent.into_queued(), None);
            keeper.store().apply(&[change], Durability::Synced).expect("memory takes it");
        }
        assert_eq!(deliver_undelivered(&keeper).expect("memory is read"), 2);
        assert_eq!(deliver_undelivered(&keeper).expect("memory is read"), 0);
        for (number, client_id) in (1..).zip(&clients) {
            // Session 2 is the publisher, and has No Local.
            let is_for_it = homes.home(client_id) == ShardNumber(1) && number != 2;
            let found = waiting(&keeper, number);
            assert_eq!(found.len(), usize::from(is_for_it), "{client_id}");
            for queued in found {
                assert_eq!(queued.message, message);
                assert_eq!((queued.qos, queued.share), (QoS::ExactlyOnce, None));
                assert_eq!(queued.identifiers.as_deref(), Some(&[7][..]));
            }
        }
        let shared = waiting(&keeper, 20);
        assert_eq!(shared.len(), 1);
        assert_eq!(shared[0].share.as_deref(), Some("$share/g/t/#"));
        assert!(waiting(&keeper, 21).is_empty());
    }
}
