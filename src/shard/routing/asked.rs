//! SUBSCRIBE and UNSUBSCRIBE with more Topic Filters than one turn takes. They are handled in
//! portions, and the next packet of their client waits.
//!
//! This module knows how far a packet has been handled, not what is done with its filters.

use std::sync::Arc;

use crate::{
    between::nodes::RoutesKnown,
    flow::{Budget, BudgetShare},
    mqtt::{PacketId, ReasonCode, SubscribeFilter, SubscriptionOptions},
};

/// The Topic Filters of a packet. Those of an UNSUBSCRIBE have no options.
pub(in crate::shard) trait Filters {
    /// Returns their number.
    fn len(&self) -> usize;
    /// Returns the filter at a position below [`Filters::len`].
    fn at(&self, position: usize) -> SubscribeFilter<'_>;
}

impl Filters for Vec<SubscribeFilter<'_>> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn at(&self, position: usize) -> SubscribeFilter<'_> {
        self[position]
    }
}

impl Filters for Vec<&str> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn at(&self, position: usize) -> SubscribeFilter<'_> {
        SubscribeFilter { filter: self[position], options: SubscriptionOptions::default() }
    }
}

/// Filters that outlive the bytes of their packet, in a few bytes more than the packet had.
struct OwnedFilters {
    text: Box<str>,
    /// Where each filter ends in the text.
    ends: Box<[u32]>,
    options: Box<[SubscriptionOptions]>,
}

impl OwnedFilters {
    fn new(filters: &dyn Filters) -> Self {
        let all = || (0..filters.len()).map(|position| filters.at(position));
        let mut text = String::with_capacity(all().map(|asked| asked.filter.len()).sum());
        let mut ends = Vec::with_capacity(filters.len());
        for asked in all() {
            text.push_str(asked.filter);
            ends.push(text.len() as u32); // A packet is shorter than 2^28 bytes.
        }
        let options = all().map(|asked| asked.options).collect();
        Self { text: text.into(), ends: ends.into(), options }
    }

    const fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends) + size_of_val(&*self.options)
    }
}

impl Filters for OwnedFilters {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn at(&self, position: usize) -> SubscribeFilter<'_> {
        let begin = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        let filter = &self.text[begin as usize..self.ends[position] as usize];
        SubscribeFilter { filter, options: self.options[position] }
    }
}

/// Which packet it is.
#[derive(Clone, Copy)]
pub(in crate::shard) enum FiltersKind {
    Subscribe { identifier: Option<u32> },
    Unsubscribe,
}

/// How far a packet has been handled.
pub(in crate::shard) struct FiltersProgress {
    pub(in crate::shard) kind: FiltersKind,
    pub(in crate::shard) packet_id: PacketId,
    /// The Reason Codes of the filters that were handled.
    pub(in crate::shard) reasons: Vec<ReasonCode>,
    /// Whether retained messages follow, for each of these filters of a SUBSCRIBE.
    pub(in crate::shard) sends_retained: Vec<bool>,
    pub(in crate::shard) is_answered: bool,
    /// Whether the other nodes know the filters; `None` before they are asked, and without a cluster.
    pub(in crate::shard) routes: Option<RoutesKnown>,
    /// Number of filters of a SUBSCRIBE whose retained messages were handled after the answer.
    pub(in crate::shard) followed: usize,
}

impl FiltersProgress {
    pub(in crate::shard) fn new(
        kind: FiltersKind,
        packet_id: PacketId,
        filters: &dyn Filters,
    ) -> Self {
        let sends = if matches!(kind, FiltersKind::Subscribe { .. }) { filters.len() } else { 0 };
        Self {
            kind,
            packet_id,
            reasons: Vec::with_capacity(filters.len()),
            sends_retained: Vec::with_capacity(sends),
            is_answered: false,
            routes: None,
            followed: 0,
        }
    }

    /// Returns whether nothing is left to do.
    pub(in crate::shard) fn is_done(&self) -> bool {
        self.is_answered && self.followed == self.sends_retained.len()
    }

    /// Returns whether the answer waits for other nodes.
    pub(in crate::shard) fn awaits_routes(&self) -> bool {
        !self.is_answered && self.routes.as_ref().is_some_and(|known| !known.is_set())
    }
}

/// A packet of which a part has been handled.
pub(crate) struct FiltersAsked {
    filters: OwnedFilters,
    progress: FiltersProgress,
    /// Its bytes among those of incomplete packets. It was accepted, so it counts whatever the
    /// limit is.
    _share: BudgetShare,
}

impl FiltersAsked {
    pub(in crate::shard) fn new(
        filters: &dyn Filters,
        progress: FiltersProgress,
        budget: &Arc<Budget>,
    ) -> Self {
        let filters = OwnedFilters::new(filters);
        let reasons = progress.reasons.capacity() + progress.sends_retained.capacity();
        let share = budget.share_anyway(filters.bytes() + reasons);
        Self { filters, progress, _share: share }
    }

    /// Returns whether nothing is left to do.
    pub(in crate::shard) fn is_done(&self) -> bool {
        self.progress.is_done()
    }

    /// Returns whether its answer waits for other nodes.
    pub(crate) fn awaits_routes(&self) -> bool {
        self.progress.awaits_routes()
    }

    pub(in crate::shard) fn parts(&mut self) -> (&dyn Filters, &mut FiltersProgress) {
        (&self.filters, &mut self.progress)
    }
}
