//! What a shard has in the store: what waits for it to be written, and what is read back.

pub(super) mod recall;
pub(super) mod restore;
pub(super) mod tickets;
pub(super) mod weeding;
