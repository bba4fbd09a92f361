//! The handle through which registry, connections and tasks share a shard.
//!
//! Each borrow of the shard is one turn, and its time is measured. From the time of a long turn, the time is subtracted
//! that the operating system gave to other threads.

use std::{
    cell::{Ref, RefCell, RefMut},
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use quanta::Clock;

use super::{
    Shard,
    processor::{EXAMINED_ABOVE_NANOS, ProcessorTime},
};

/// A shard that its actors and tasks share. They are on one thread, and none of them holds it
/// across an await.
#[derive(Clone)]
pub(crate) struct SharedShard(Rc<Parts>);

struct Parts {
    shard: RefCell<Shard>,
    clock: Clock,
    processor: ProcessorTime,
}

/// The shard for one turn. Its end is noted in the metrics of the shard.
pub(crate) struct ShardTurn<'s, G: Deref<Target = Shard>> {
    shard: G,
    parts: &'s Parts,
    /// The beginning in ticks of the clock. Ticks cost less than a time, and each read of a connection is a turn.
    began: u64,
}

impl SharedShard {
    pub(in crate::shard) fn new(shard: Shard) -> Self {
        let clock = Clock::new();
        let processor = ProcessorTime::new(&clock);
        Self(Rc::new(Parts { shard: RefCell::new(shard), clock, processor }))
    }

    /// Returns the shard for a turn that only reads it.
    pub(crate) fn borrow(&self) -> ShardTurn<'_, Ref<'_, Shard>> {
        let (shard, parts) = (self.0.shard.borrow(), &*self.0);
        ShardTurn { shard, parts, began: parts.begin_turn() }
    }

    /// Returns the shard for a turn that changes it.
    pub(crate) fn borrow_mut(&self) -> ShardTurn<'_, RefMut<'_, Shard>> {
        let (shard, parts) = (self.0.shard.borrow_mut(), &*self.0);
        ShardTurn { shard, parts, began: parts.begin_turn() }
    }
}

impl Parts {
    /// Returns the beginning of a turn, in ticks.
    #[inline]
    fn begin_turn(&self) -> u64 {
        let now = self.clock.raw();
        self.processor.turn_begins(now, &self.clock);
        now
    }
}

impl fmt::Debug for SharedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedShard")
    }
}

impl<G: Deref<Target = Shard>> Deref for ShardTurn<'_, G> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl<G: DerefMut<Target = Shard>> DerefMut for ShardTurn<'_, G> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl<G: Deref<Target = Shard>> Drop for ShardTurn<'_, G> {
    fn drop(&mut self) {
        let Parts { clock, processor, .. } = self.parts;
        let nanos = clock.delta_as_nanos(self.began, clock.raw());
        if nanos <= EXAMINED_ABOVE_NANOS {
            self.shard.metrics.turns.note(nanos);
        } else {
            self.shard.metrics.turns.note_interrupted(nanos, processor.interrupted(nanos));
        }
    }
}
