//! What every store promises, shown on each of them; and what the one in a directory promises
//! besides, of files that are cut, changed, locked, or of another version.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there and then")]

mod contract;
mod damage;
mod directory;
mod full_disk;
mod queues;
mod random;
mod subject;
mod torn;
#[path = "../support/torn_store.rs"]
mod torn_store;
mod vocabulary;
