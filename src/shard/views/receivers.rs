//! Answers which clients of this shard receive a message on a topic, or have a subscription.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use tokio::task::yield_now;

use crate::{
    control::{FindReceivers, ReceiverPage, SubscribedTo, TopicReceiver},
    mqtt::QoS,
    router::{Place, Plan},
    shard::{Shard, SharedShard, Slot, views::AnsweredInPortions},
};

/// Subscriptions that are examined in one portion.
const RECEIVERS_AT_A_TIME: usize = 256;

/// The first receivers of a page, and one more.
struct FirstReceivers {
    request: FindReceivers,
    found: BTreeMap<Arc<str>, TopicReceiver>,
}

impl AnsweredInPortions for FindReceivers {
    type Answer = ReceiverPage;

    /// Returns a page of the clients of a shard with these subscriptions; one client more than the
    /// limit, if there is one.
    async fn answer(self, shard: &SharedShard, is_wanted: impl Fn() -> bool) -> ReceiverPage {
        let subscribed_to = self.subscribed_to.clone();
        let mut first = FirstReceivers { request: self, found: BTreeMap::new() };
        match subscribed_to {
            SubscribedTo::Topic(topic) => {
                // One plan for all portions: a subscription that begins meanwhile is not part of the answer.
                let plan = shard.borrow_mut().plan(&topic);
                let mut next = PlanPosition::default();
                // The caller may have gone, and a plan may have a million targets.
                while is_wanted() && shard.borrow().receivers_of_plan(&plan, &mut next, &mut first)
                {
                    yield_now().await;
                }
            }
            SubscribedTo::Filter(filter) => {
                let mut after = first.request.after.clone();
                while is_wanted()
                    && shard.borrow().receivers_of_filter(&filter, &mut after, &mut first)
                {
                    yield_now().await;
                }
            }
        }
        ReceiverPage::new(first.found.into_values().collect(), None)
    }
}

/// The next target of a plan to examine.
#[derive(Clone, Copy, Default)]
struct PlanPosition {
    /// 0: the targets that are not shared; above, the group at this place less one.
    part: usize,
    index: usize,
}

impl FirstReceivers {
    /// Adds a subscription of a client, if the client is among the first ones behind the beginning
    /// of the page.
    fn add(&mut self, shard: &Shard, found: &Slot, qos: QoS, share: Option<&Arc<str>>) {
        let client_id = found.session.client_id();
        let Self { request: FindReceivers { after, limit, caller, .. }, found: first } = self;
        // Targets have no order, so the first ones of the page are collected from all.
        let is_behind = after.as_ref().is_none_or(|after| client_id > after);
        let is_among = first.len() <= *limit
            || first.last_key_value().is_some_and(|(last, _)| client_id <= last);
        // The permission comes last, because it takes longest.
        let rules = &*shard.core.authorizer;
        if !is_behind
            || !is_among
            || !caller.as_ref().is_none_or(|caller| caller.may_observe(rules, client_id))
        {
            return;
        }
        // A client with several matching subscriptions is one entry with its highest QoS.
        let receiver = first.entry(client_id.clone()).or_insert_with(|| {
            TopicReceiver::new(client_id.clone(), found.is_online(), shard.core.node.clone())
        });
        match share {
            Some(share) => receiver.shares.push(share.clone()),
            None => receiver.qos = receiver.qos.max(Some(qos)),
        }
        if first.len() > limit.saturating_add(1) {
            first.pop_last();
        }
    }

    fn is_complete(&self) -> bool {
        self.found.len() > self.request.limit
    }
}

impl Shard {
    /// Examines a portion of the targets of a topic; returns whether there are more.
    fn receivers_of_plan(
        &self,
        plan: &Plan,
        next: &mut PlanPosition,
        first: &mut FirstReceivers,
    ) -> bool {
        let host = self.host();
        for _ in 0..RECEIVERS_AT_A_TIME {
            // Part 0 are the targets that get every message; each group follows as a part of its own.
            let (targets, share) = match next.part.checked_sub(1).map(|at| plan.shared().get(at)) {
                None => (plan.targets_at(host), None),
                Some(Some(group)) => (group.all_members(), Some(group.filter())),
                Some(None) => return false,
            };
            let Some(target) = targets.get(next.index) else {
                *next = PlanPosition { part: next.part + 1, index: 0 };
                continue;
            };
            next.index += 1;
            // The members of a group may be on any shard.
            let found = Some(target.place).filter(|place| place.host == host);
            if let Some(found) = found.and_then(|place| self.receiver_at(place)) {
                first.add(self, found, target.qos, share);
            }
        }
        true
    }

    fn receiver_at(&self, place: Place) -> Option<&Slot> {
        self.slot_at(place).filter(|found| !found.is_ending())
    }

    /// Examines a portion of the clients for this subscription; returns whether there are more.
    fn receivers_of_filter(
        &self,
        filter: &str,
        after: &mut Option<Arc<str>>,
        first: &mut FirstReceivers,
    ) -> bool {
        let from = after.clone();
        let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let share = filter.starts_with("$share/").then(|| Arc::from(filter));
        for (examined, client_id) in self.clients.from(from).enumerate() {
            if examined >= RECEIVERS_AT_A_TIME {
                return true;
            }
            // The next portion continues behind this client, whether or not it is found.
            *after = Some(client_id.clone());
            let found = self.known(client_id).and_then(|slot| self.slot(slot));
            let subscription = found.and_then(|found| found.session.subscription(filter));
            if let Some((found, subscription)) = found.zip(subscription) {
                first.add(self, found, subscription.options.qos, share.as_ref());
                if first.is_complete() {
                    return false;
                }
            }
        }
        false
    }
}
