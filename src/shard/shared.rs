//! The shard as its registry, its connections and its tasks share it.
//!
//! Each borrow of the shard is one turn of it, and the time of each turn is measured.

use std::{
    cell::{Ref, RefCell, RefMut},
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use quanta::Clock;

use super::Shard;

/// A shard that its actors and tasks share. They are on one thread, and none of them holds it
/// across an await.
#[derive(Clone)]
pub(crate) struct SharedShard(Rc<Parts>);

struct Parts {
    shard: RefCell<Shard>,
    clock: Clock,
}

/// The shard for one turn. Its end is noted in the metrics of the shard.
pub(crate) struct ShardTurn<'s, G: Deref<Target = Shard>> {
    shard: G,
    clock: &'s Clock,
    /// In ticks of the clock. They cost less than a time, and a connection has turns for each read.
    began: u64,
}

impl SharedShard {
    pub(in crate::shard) fn new(shard: Shard) -> Self {
        Self(Rc::new(Parts { shard: RefCell::new(shard), clock: Clock::new() }))
    }

    /// Returns the shard for a turn that only looks.
    pub(crate) fn borrow(&self) -> ShardTurn<'_, Ref<'_, Shard>> {
        let Parts { shard, clock } = &*self.0;
        ShardTurn { shard: shard.borrow(), clock, began: clock.raw() }
    }

    /// Returns the shard for a turn that changes it.
    pub(crate) fn borrow_mut(&self) -> ShardTurn<'_, RefMut<'_, Shard>> {
        let Parts { shard, clock } = &*self.0;
        ShardTurn { shard: shard.borrow_mut(), clock, began: clock.raw() }
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
        let nanos = self.clock.delta_as_nanos(self.began, self.clock.raw());
        self.shard.metrics.turns.note(nanos);
    }
}
