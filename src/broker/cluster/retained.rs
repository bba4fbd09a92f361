//! The retained messages of the broker, as the driver of the stream of retained messages reaches them.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    between::{
        door::{Sender, ToShard},
        retained::{AppliedRetained, RetainedOutcome},
    },
    clock::Clock,
    cluster::retaining::{LocalRetained, RetainedHere},
    mqtt::{Message, Timestamp},
    owners::Owner,
    records::{Put, RecordKey, Records as _},
    router::ShardNumber,
    shard::Core,
};

/// The namespace and the key of the record of how far the store has the stream.
const PLACE: (&str, &str) = ("cluster", "retained");
/// Nodes of the tree of retained messages that are visited in one step, during which no message can be retained.
const NODES_AT_A_TIME: usize = 256;
/// The shard that hands the changes over to the store: one, so that they keep their order.
const NOTING_SHARD: ShardNumber = ShardNumber(0);

/// The retained messages of a broker.
pub(super) struct RetainedOfBroker {
    /// The broker ends while the driver still runs.
    core: Weak<Core>,
    clock: Clock,
}

impl RetainedOfBroker {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self { core: Arc::downgrade(core), clock: core.clock }
    }

    fn send(&self, shard: ShardNumber, message: ToShard) {
        if let Some(core) = self.core.upgrade()
            && let Some(handle) = core.shard(shard)
        {
            handle.door.send(Sender::Cluster, message);
        }
    }
}

fn place() -> Option<RecordKey> {
    RecordKey::new(PLACE.0, PLACE.1)
}

impl RetainedHere for RetainedOfBroker {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn put(&self, message: Arc<Message>, owner: Option<&Owner>) {
        if let Some(core) = self.core.upgrade() {
            let account = owner.map(|owner| core.account(owner.clone()));
            core.retained.restore(message, account.as_ref());
        }
    }

    fn clear(&self, topic: &str) {
        if let Some(core) = self.core.upgrade() {
            core.retained.clear(topic);
        }
    }

    fn note(&self, applied: AppliedRetained) {
        self.send(NOTING_SHARD, ToShard::NoteRetained(applied));
    }

    fn tell(&self, shard: ShardNumber, number: u64, outcome: RetainedOutcome) {
        self.send(shard, ToShard::RetainedWritten(number, outcome));
    }

    fn page(&self, after: Option<&str>) -> LocalRetained {
        let Some(core) = self.core.upgrade() else {
            return LocalRetained { messages: Vec::new(), go_on_after: None };
        };
        let slice = core.retained.slice_of_all(after, NODES_AT_A_TIME, self.clock.now());
        let with_owner = |message: Arc<Message>| {
            let (message, account) = core.retained.get(message.topic())?;
            Some((message, account.map(|account| account.owner().clone())))
        };
        let messages = slice.messages.into_iter().filter_map(with_owner).collect();
        LocalRetained { messages, go_on_after: slice.go_on_after }
    }

    fn load(&self) -> Option<Bytes> {
        let core = self.core.upgrade()?;
        core.records.committed(&place()?).map(|record| record.value)
    }

    fn save(&self, at: Bytes) -> BoxFuture<'static, ()> {
        let records = self.core.upgrade().map(|core| Arc::clone(&core.records));
        Box::pin(async move {
            let (Some(records), Some(name)) = (records, place()) else { return };
            // Without it, the next start applies more of the stream once more.
            let _ = records.put(Put::new(name, at)).await;
        })
    }
}
