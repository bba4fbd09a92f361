//! The targets of the messages of a connection: from its last topic, from the cache of the shard, or
//! from the index.
//!
//! Knows rules and plans; sends nothing.

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

/// The topic of a connection's last publication: whether the connection may publish to it, and the
/// targets. Most publishers use one topic only, and then need neither rules nor index again.
pub(in crate::shard) struct RecentTopic {
    pub(in crate::shard) topic: String,
    pub(in crate::shard) qos: QoS,
    pub(in crate::shard) retain: bool,
    pub(in crate::shard) decision: Decision,
    pub(in crate::shard) policy_generation: u64,
    /// Weak, so that an inactive publisher does not keep an outdated plan in memory.
    pub(in crate::shard) plan: Weak<Plan>,
    pub(in crate::shard) index_generation: u64,
}

/// The cached plans of this shard's recent topics, all of one generation of the index. A topic is
/// cached when it comes a second time: where topics hardly ever repeat, for example with an
/// identifier in each, caching them would cost more than it saves.
#[derive(Default)]
pub(in crate::shard) struct PlanCache {
    generation: u64,
    plans: HashMap<Box<str>, Arc<Plan>, RandomState>,
    /// The number of targets in all plans together.
    targets: usize,
    /// Hashes of recent topics, each at the index that it determines.
    seen: Vec<u32>,
}

impl PlanCache {
    /// Returns whether a topic has come before, as far as the cache remembers.
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

    fn forget_old_plans(&mut self, generation: u64) {
        self.plans.clear();
        self.targets = 0;
        self.generation = generation;
    }
}

/// Maximum number of cached plans; beyond it, the cache is emptied.
const PLANS_MAX: usize = 16 * 1024;
/// The number of topics that are remembered, to cache them when they come again.
const SEEN_LEN: usize = 4 * 1024;
/// Maximum number of targets in the cached plans: many topics with many subscribers each could
/// exceed the memory.
const PLAN_TARGETS_MAX: usize = 1024 * 1024;

impl Shard {
    /// Returns the targets of a message on `topic`.
    pub(in crate::shard) fn plan(&mut self, topic: &str) -> Arc<Plan> {
        self.plan_of(topic, false)
    }

    /// Returns the same; `is_again` says that the topic is known to have come before.
    pub(in crate::shard) fn plan_of(&mut self, topic: &str, is_again: bool) -> Arc<Plan> {
        let generation = self.core.index.generation();
        if self.plans.generation != generation {
            self.plans.forget_old_plans(generation);
        }
        if let Some(plan) = self.plans.plans.get(topic) {
            return plan.clone();
        }
        let plan = Arc::new(self.core.index.plan(topic));
        if !is_again && !self.plans.has_seen(topic) {
            return plan;
        }
        if self.plans.is_full() {
            self.plans.forget_old_plans(generation);
        }
        self.plans.targets += plan.targets_len();
        self.plans.plans.insert(topic.into(), plan.clone());
        plan
    }

    /// Returns whether the connection may publish to the topic; checks the rules if that is not
    /// known.
    pub(in crate::shard) fn recent_topic(
        &mut self,
        slot: u32,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Option<Box<RecentTopic>> {
        let policy_generation = self.core.authorizer.generation();
        // Taken out of the slot, so that the rules can be asked while it is changed.
        let mut recent = self.slots.get_mut(slot as usize)?.recent_topic.take();
        if let Some(recent) = &mut recent
            && recent.topic == topic
        {
            // The topic is the same; only its decision depends on these three.
            if (recent.qos, recent.retain, recent.policy_generation)
                != (qos, retain, policy_generation)
            {
                recent.decision = self.may_publish(slot, topic, qos, retain);
                (recent.qos, recent.retain) = (qos, retain);
                recent.policy_generation = policy_generation;
            }
        } else {
            // The allocation of the former topic is used again, so a change of topic costs none.
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

    /// Returns the plan of a connection's topic if it is still valid, or a new one.
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
        // There may be more publishers with one topic each than the cache remembers.
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
