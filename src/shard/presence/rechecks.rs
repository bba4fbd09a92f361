//! Walks along the sessions of a shard, one after the other, which check them again (`recheck.rs`) with
//! other tasks in between.

use std::{cell::Cell, rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::{sync::Mutex, task::yield_now};

use super::{preparing::prepare_again, recheck::Rounds};
use crate::{
    auth::Patience,
    control::Rechecked,
    owners::Account,
    shard::{common::Core, shared::SharedShard},
};

/// The walks of a shard. One along all sessions answers every caller that has asked for one before it
/// began.
pub(crate) struct Rechecks {
    shard: SharedShard,
    core: Arc<Core>,
    turn: Mutex<()>,
    asked: Cell<u64>,
    /// The number of requests that ended walks have answered.
    done: Cell<u64>,
    /// The result of the last walk along all sessions.
    found: Cell<Rechecked>,
}

impl Rechecks {
    pub(crate) fn new(shard: SharedShard, core: Arc<Core>) -> Self {
        let (asked, done, found) = Default::default();
        Self { shard, core, turn: Mutex::new(()), asked, done, found }
    }

    /// Checks the sessions of one account, or all; ends once all of them are checked.
    pub(crate) fn check(
        self: &Rc<Self>,
        only: Option<Arc<Account>>,
    ) -> LocalBoxFuture<'static, Rechecked> {
        let rechecks = Rc::clone(self);
        let Some(account) = only else {
            let asked = rechecks.asked.get() + 1;
            rechecks.asked.set(asked);
            return Box::pin(async move { rechecks.check_all(asked).await });
        };
        Box::pin(async move {
            let _turn = rechecks.turn.lock().await;
            walk(&rechecks.shard, &rechecks.core, Rounds::of(account)).await
        })
    }

    /// Checks all sessions for a request of this number.
    async fn check_all(&self, asked: u64) -> Rechecked {
        let _turn = self.turn.lock().await;
        if self.done.get() >= asked {
            return self.found.get(); // A later walk has begun and checked all.
        }
        let begun = self.asked.get();
        let found = walk(&self.shard, &self.core, Rounds::default()).await;
        self.found.set(found);
        self.done.set(begun);
        found
    }
}

/// Walks along the sessions of a shard, with other tasks in between.
async fn walk(shard: &SharedShard, core: &Core, mut rounds: Rounds) -> Rechecked {
    let mut patience = Patience::new(core.connect_time());
    let mut sessions = 0;
    loop {
        let unprepared = shard.borrow_mut().begin_preparing(&mut rounds);
        // The shard is not borrowed here, and serves its clients while the authorizer loads.
        let results = prepare_again(core, &unprepared, &mut patience).await;
        // The borrow ends with this block, because other tasks borrow the shard during the yield.
        let goes_on = {
            let mut shard = shard.borrow_mut();
            sessions += shard.take_prepared(&mut rounds, &unprepared, results);
            let goes_on = shard.recheck(&mut rounds, core.clock.now());
            // Withdrawn subscriptions are changes for the store, and give messages to members on other shards.
            shard.flush();
            goes_on
        };
        if !goes_on {
            break;
        }
        yield_now().await;
    }
    if sessions > 0 {
        // One line for the walk: a source that is down fails for every session.
        tracing::warn!(sessions, "permissions cannot be loaded; sessions keep those they have");
    }
    rounds.found()
}
