//! Addresses of sessions, for deliveries.

/// The number of a shard of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardNumber(pub u16);

/// A host delivers messages to its own recipients. Each kind has a door of its own: code that sends a
/// message there matches on the kind, so that a further one does not compile until each place knows
/// what to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A shard of this process, which has sessions.
    Shard(ShardNumber),
    /// The subscribers of the embedding application in this process.
    InProcess,
    /// The other nodes of the cluster. Each of them is one subscriber of a filter, for all its sessions; the
    /// slot of its place is its number.
    Nodes,
}

impl Host {
    /// Returns a number that orders hosts as `Ord` does.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Shard(ShardNumber(number)) => number as u32,
            Self::InProcess => 1 << 16,
            Self::Nodes => (1 << 16) + 1,
        }
    }
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
