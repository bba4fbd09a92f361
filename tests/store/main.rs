//! The promises of every store, tested on each of them; and further promises of the store in a
//! directory, about files that are cut, changed, locked, or of another version.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there and then")]

mod contract;
mod damage;
mod directory;
mod full_disk;
mod queues;
mod random;
mod readers;
mod subject;
mod torn;
#[path = "../support/torn_store.rs"]
mod torn_store;
mod vocabulary;
