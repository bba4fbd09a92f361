//! Topic Aliases, section 3.3.2.3.4: those of the client and those of the broker, each for one
//! connection.

use std::{collections::HashMap, num::NonZeroU16, sync::Arc};

use foldhash::fast::RandomState;

use crate::mqtt::TopicAlias;

/// Aliases that the client has set.
#[derive(Debug)]
pub(super) struct AliasesIn {
    topics: Vec<Option<Arc<str>>>,
    maximum: u16,
}

impl AliasesIn {
    pub(super) const fn new(maximum: u16) -> Self {
        Self { topics: Vec::new(), maximum }
    }

    /// Returns whether the client may use this alias. [MQTT-3.3.2-9]
    pub(super) const fn allows(&self, alias: u16) -> bool {
        alias != 0 && alias <= self.maximum
    }

    pub(super) fn set(&mut self, alias: u16, topic: &str) {
        let at = usize::from(alias);
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        self.topics[at] = Some(topic.into());
    }

    pub(super) fn topic(&self, alias: u16) -> Option<Arc<str>> {
        self.topics.get(usize::from(alias))?.clone()
    }
}

/// Aliases that the broker has set: the topics that are sent first get an alias.
#[derive(Debug)]
pub(super) struct AliasesOut {
    aliases: HashMap<Box<str>, NonZeroU16, RandomState>,
    maximum: u16,
}

impl AliasesOut {
    pub(super) fn new(maximum: u16) -> Self {
        Self { aliases: HashMap::default(), maximum }
    }

    /// Returns how to send `topic`. A new alias counts only after [`Self::defined`] is called.
    #[inline]
    pub(super) fn alias_for(&self, topic: &str) -> TopicAlias {
        if self.maximum == 0 { TopicAlias::None } else { self.find_or_define(topic) }
    }

    fn find_or_define(&self, topic: &str) -> TopicAlias {
        if let Some(alias) = self.aliases.get(topic) {
            return TopicAlias::Use(*alias);
        }
        let next = u16::try_from(self.aliases.len() + 1).ok().and_then(NonZeroU16::new);
        match next {
            Some(next) if next.get() <= self.maximum => TopicAlias::Define(next),
            _ => TopicAlias::None,
        }
    }

    /// Notes that a PUBLISH with this alias has been sent.
    pub(super) fn defined(&mut self, topic: &str, alias: TopicAlias) {
        if let TopicAlias::Define(alias) = alias {
            self.aliases.insert(topic.into(), alias);
        }
    }
}
