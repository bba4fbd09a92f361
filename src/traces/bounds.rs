//! The bounds of all traces together, which may change while traces run.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use crate::{flow::Budget, limits::Limits};

/// The bounds of traces.
pub(super) struct TraceBounds {
    traces_max: AtomicU32,
    bytes_per_trace_max: AtomicUsize,
    records_per_sec_max: AtomicU32,
    /// For the beginnings of packets that are incomplete.
    pub(super) heads: Arc<Budget>,
}

/// The part of all bytes that beginnings of packets may take.
const HEADS_PART: usize = 4;

impl TraceBounds {
    pub(super) fn new(limits: &Limits) -> Self {
        let bounds = Self {
            traces_max: AtomicU32::new(0),
            bytes_per_trace_max: AtomicUsize::new(0),
            records_per_sec_max: AtomicU32::new(0),
            heads: Budget::new(0),
        };
        bounds.set(limits);
        bounds
    }

    pub(super) fn set(&self, limits: &Limits) {
        let bytes = usize::try_from(limits.trace_bytes_max).unwrap_or(usize::MAX);
        let (heads, traces) = (bytes / HEADS_PART, limits.traces_max.max(1) as usize);
        self.heads.set_max(heads);
        self.bytes_per_trace_max.store((bytes - heads) / traces, Relaxed);
        self.traces_max.store(limits.traces_max, Relaxed);
        self.records_per_sec_max.store(limits.trace_records_per_sec_max, Relaxed);
    }

    pub(super) fn traces_max(&self) -> usize {
        self.traces_max.load(Relaxed) as usize
    }

    pub(super) fn bytes_per_trace_max(&self) -> usize {
        self.bytes_per_trace_max.load(Relaxed)
    }

    pub(super) fn records_per_sec_max(&self) -> u32 {
        self.records_per_sec_max.load(Relaxed)
    }
}
