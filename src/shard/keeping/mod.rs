//! A shard's data in the store: changes that wait to be written, and data that is read back.

pub(super) mod debtor;
pub(super) mod recall;
pub(super) mod restore;
pub(super) mod tickets;
pub(super) mod weeding;
