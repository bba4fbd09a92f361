//! The promises of every store, tested on each of them; and further promises of the store in a
//! directory, about files that are cut, changed, locked, or of another version.

mod contract;
mod damage;
mod directory;
mod full_disk;
mod histories;
mod queues;
mod random;
mod readers;
mod subject;
mod torn;

use hearthmq_test::vocabulary;
