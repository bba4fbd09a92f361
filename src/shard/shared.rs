//! The shard as its registry, its connections and its tasks share it.
//!
//! Each borrow of the shard is one turn of it, and the time of each turn is measured.

use std::{
    cell::{Ref, RefCell, RefMut},
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use quanta::Instant;

use super::Shard;

/// A shard that its actors and tasks share. They are on one thread, and none of them holds it
/// across an await.
#[derive(Clone)]
pub(crate) struct SharedShard(Rc<RefCell<Shard>>);

/// The shard for one turn. Its end is noted in the metrics of the shard.
pub(crate) struct ShardTurn<G: Deref<Target = Shard>> {
    shard: G,
    began: Instant,
}

impl SharedShard {
    pub(in crate::shard) fn new(shard: Shard) -> Self {
        Self(Rc::new(RefCell::new(shard)))
    }

    /// Returns the shard for a turn that only looks.
    pub(crate) fn borrow(&self) -> ShardTurn<Ref<'_, Shard>> {
        ShardTurn { shard: self.0.borrow(), began: Instant::now() }
    }

    /// Returns the shard for a turn that changes it.
    pub(crate) fn borrow_mut(&self) -> ShardTurn<RefMut<'_, Shard>> {
        ShardTurn { shard: self.0.borrow_mut(), began: Instant::now() }
    }
}

impl fmt::Debug for SharedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedShard")
    }
}

impl<G: Deref<Target = Shard>> Deref for ShardTurn<G> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl<G: DerefMut<Target = Shard>> DerefMut for ShardTurn<G> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl<G: Deref<Target = Shard>> Drop for ShardTurn<G> {
    fn drop(&mut self) {
        self.shard.metrics.turns.note(self.began.elapsed());
    }
}
