//! Durability: changes go to the store in groups, and shards are told when they are stored.
//!
//! Knows changes, tickets and the store, and no session and no shard.

mod group;
mod health;
mod history;
pub(crate) mod in_transit;
mod keeper;
mod logins;
mod records;
mod recovery;
mod writer;

pub(crate) use self::{
    health::{Health, Trouble},
    history::{History, HistoryLimits},
    in_transit::IN_TRANSIT,
    keeper::{HandedOver, Keeper},
    logins::StoredLogins,
    records::{
        Committing, FindSetBy, NoRoom, RecordAmount, RecordBounds, RecordTally, ReservedRoom,
        StoredRecords,
    },
    recovery::deliver_undelivered,
    writer::Order,
};
pub use group::SyncPolicy;
