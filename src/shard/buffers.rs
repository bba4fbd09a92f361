//! Memory that the connections of a shard use in turn.

/// Maximum number of bytes in one read; all connections of a shard read into the same buffer.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Maximum number of spare output buffers of a shard, for connections that have something to write.
const SPARE_MAX: usize = 256;
/// A larger output buffer does not become a spare one.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// The buffers of a shard.
pub(crate) struct Buffers {
    /// Output buffers for connections that have none.
    spare: Vec<Vec<u8>>,
    /// The buffer into which connections read.
    scratch: Vec<u8>,
    /// The buffer for the forwarded properties of a PUBLISH; a turn that reads packets borrows it.
    properties: Vec<u8>,
}

impl Buffers {
    pub(in crate::shard) fn new() -> Self {
        Self { spare: Vec::new(), scratch: vec![0; SCRATCH_BYTES], properties: Vec::new() }
    }

    /// Lends an output buffer to a connection that has none.
    pub(in crate::shard) fn lend(&mut self, out: &mut Vec<u8>) {
        if out.capacity() == 0
            && let Some(buffer) = self.spare.pop()
        {
            *out = buffer;
        }
    }

    /// Takes back an output buffer that has been written.
    pub(crate) fn take_back(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= SPARE_BYTES_MAX && self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Returns the buffer for a read that the shard does not handle.
    pub(crate) fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// Takes out the buffer for a read that the shard handles.
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// Puts the buffer back after the read.
    pub(crate) fn put_scratch_back(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    /// Takes out the buffer for forwarded properties.
    pub(in crate::shard) fn take_properties(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.properties)
    }

    /// Puts that buffer back.
    pub(in crate::shard) fn put_properties_back(&mut self, properties: Vec<u8>) {
        self.properties = properties;
    }
}
