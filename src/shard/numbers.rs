//! Numbers that a shard gives only once.

/// The last numbers of a shard.
pub(in crate::shard) struct Numbers {
    generation: u32,
    /// Number of the last connection.
    link: u64,
    /// No forgotten session had a higher presence version than this.
    version_floor: u64,
}

impl Numbers {
    pub(in crate::shard) const fn new(version_floor: u64) -> Self {
        Self { generation: 0, link: 0, version_floor }
    }

    /// Returns a new generation for a slot, so that nothing finds its session under another place.
    pub(in crate::shard) const fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Returns the number of a new connection.
    pub(in crate::shard) const fn next_link(&mut self) -> u64 {
        self.link += 1;
        self.link
    }

    /// Returns a presence version that no session that was forgotten has exceeded.
    pub(in crate::shard) const fn version_floor(&self) -> u64 {
        self.version_floor
    }

    /// Notes the presence version of a session that is forgotten, or that may be.
    pub(in crate::shard) fn raise_version_floor(&mut self, version: u64) {
        self.version_floor = self.version_floor.max(version);
    }
}
