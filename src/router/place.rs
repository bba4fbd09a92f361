//! Addresses of sessions, for deliveries.

/// Something that delivers to its own sessions: a shard of this process, the in-process
/// subscribers, or, in the future, another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u16);

impl Host {
    /// The subscribers of the embedding application in this process.
    pub const IN_PROCESS: Self = Self(u16::MAX);
}

/// The address of one session. A slot is reused after its session has ended; the generation
/// distinguishes the sessions of a slot, so that a stale plan cannot deliver to the wrong session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The host that delivers to it.
    pub host: Host,
    /// The slot of the session at that host.
    pub slot: u32,
    /// The generation of the slot.
    pub generation: u32,
}
