//! Who gets what a connection publishes: what is known from its last topic, from the shard's cache,
//! or from the index.
//!
//! Knows rules and plans, and sends nothing.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{Arc, Weak},
};

use foldhash::fast::RandomState;

use crate::{
    auth::{AccessRequest, Action, Decision},
    mqtt::{QoS, is_of_the_broker},
    router::Plan,
    shard::Shard,
};

/// The topic that a connection published to last: whether it may, and who gets it. Most publishers
/// stay with one topic, and then neither rules nor index are asked again.
pub(in crate::shard) struct RecentTopic {
    pub(in crate::shard) topic: String,
    pub(in crate::shard) qos: QoS,
    pub(in crate::shard) retain: bool,
    pub(in crate::shard) decision: Decision,
    pub(in crate::shard) policy_generation: u64,
    /// Weak, so that a publisher that has fallen silent keeps no plan of an earlier time alive.
    pub(in crate::shard) plan: Weak<Plan>,
    pub(in crate::shard) index_generation: u64,
}

/// Plans of this shard's recent topics, all of one generation of the index. A topic is kept when it
/// comes again: where topics hardly ever do, as with an identifier in each, keeping them would cost
/// more than it saves.
#[derive(Default)]
pub(in crate::shard) struct PlanCache {
    generation: u64,
    plans: HashMap<Box<str>, Arc<Plan>, RandomState>,
    /// Targets in all plans together.
    targets: usize,
    /// Hashes of topics that came lately, each where it says itself.
    seen: Vec<u32>,
}

impl PlanCache {
    /// Whether a topic has come before, as far as that is remembered.
    fn has_seen(&mut self, topic: &str) -> bool {
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN_LEN];
        }
        let hash = self.plans.hasher().hash_one(topic);
        let (place, mark) = (hash as usize % SEEN_LEN, (hash >> 32) as u32);
        std::mem::replace(&mut self.seen[place], mark) == mark
    }

    fn is_full(&self) -> bool {
        self.plans.len() >= PLANS_MAX || self.targets >= PLAN_TARGETS_MAX
    }

    fn begin_anew(&mut self, generation: u64) {
        self.plans.clear();
        self.targets = 0;
        self.generation = generation;
    }
}

/// Plans that a shard keeps; then it starts anew.
const PLANS_MAX: usize = 16 * 1024;
/// Topics that are remembered so that they are kept when they come again.
const SEEN_LEN: usize = 4 * 1024;
/// Targets in them: many topics with many subscribers each would take more memory than there is.
const PLAN_TARGETS_MAX: usize = 1024 * 1024;

impl Shard {
    /// Who gets a message on `topic`.
    pub(in crate::shard) fn plan(&mut self, topic: &str) -> Arc<Plan> {
        self.plan_of(topic, false)
    }

    /// The same; `is_again` if it is known that the topic has come before.
    pub(in crate::shard) fn plan_of(&mut self, topic: &str, is_again: bool) -> Arc<Plan> {
        let generation = self.core.index.generation();
        if self.plans.generation != generation {
            self.plans.begin_anew(generation);
        }
        if let Some(plan) = self.plans.plans.get(topic) {
            return plan.clone();
        }
        let plan = Arc::new(self.core.index.plan(topic));
        if !is_again && !self.plans.has_seen(topic) {
            return plan;
        }
        if self.plans.is_full() {
            self.plans.begin_anew(generation);
        }
        self.plans.targets += plan.targets_len();
        self.plans.plans.insert(topic.into(), plan.clone());
        plan
    }

    /// Whether the connection may publish to the topic, asked of the rules where it is not known.
    pub(in crate::shard) fn recent_topic(
        &mut self,
        slot: u32,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Option<Box<RecentTopic>> {
        let policy_generation = self.core.authorizer.generation();
        let mut recent = self.slots.get_mut(slot as usize)?.recent_topic.take();
        if let Some(recent) = &mut recent
            && recent.topic == topic
        {
            if (recent.qos, recent.retain, recent.policy_generation)
                != (qos, retain, policy_generation)
            {
                recent.decision = self.may_publish(slot, topic, qos, retain);
                (recent.qos, recent.retain) = (qos, retain);
                recent.policy_generation = policy_generation;
            }
        } else {
            let mut text = recent.map(|recent| recent.topic).unwrap_or_default();
            text.clear();
            text.push_str(topic);
            recent = Some(Box::new(RecentTopic {
                topic: text,
                qos,
                retain,
                decision: self.may_publish(slot, topic, qos, retain),
                policy_generation,
                plan: Weak::new(),
                index_generation: 0,
            }));
        }
        recent
    }

    /// The plan of a connection's topic, if it is still right, or a new one.
    pub(in crate::shard) fn current_plan(
        &mut self,
        recent: &mut RecentTopic,
        topic: &str,
    ) -> Arc<Plan> {
        let generation = self.core.index.generation();
        if recent.index_generation == generation
            && let Some(plan) = recent.plan.upgrade()
        {
            return plan;
        }
        // More publishers may stay with a topic each than can be remembered.
        let is_again = recent.index_generation != 0;
        let plan = self.plan_of(topic, is_again);
        recent.plan = Arc::downgrade(&plan);
        recent.index_generation = generation;
        plan
    }

    fn may_publish(&self, slot: u32, topic: &str, qos: QoS, retain: bool) -> Decision {
        let Some(found) = self.slot(slot) else {
            return Decision::Deny;
        };
        if is_of_the_broker(topic) {
            return Decision::Deny;
        }
        self.core.authorizer.authorize(&AccessRequest {
            identity: &found.presence.identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action: Action::Publish { topic, qos, retain },
        })
    }
}
