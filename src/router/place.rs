//! The names of places that messages are delivered to.

/// Something that delivers to sessions of its own: a shard of this process, the process's own
/// subscribers, and one day another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u16);

impl Host {
    /// The subscribers that the embedding application has made in this process.
    pub const IN_PROCESS: Self = Self(u16::MAX);
}

/// One session's place. A slot is used again once its session has ended; the generation tells
/// the sessions that held it apart, so that a stale plan cannot deliver to a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Who delivers there.
    pub host: Host,
    /// The session's number at that host.
    pub slot: u32,
    /// Which of the sessions that held the slot.
    pub generation: u32,
}
