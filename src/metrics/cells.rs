//! The cells that store the numbers.
//!
//! A cell does not know its name or meaning; `encode` has the names.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::labels::Label;

/// A number that only grows, written by one thread.
///
/// An addition is a load and a store, not an atomic addition: with two writers some additions would
/// be lost. Any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Returns the count.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks, written by one thread (see [`Counter`]).
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the current value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A [`Counter`] for each value of an enum.
#[derive(Debug)]
pub struct PerLabel<L> {
    counters: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> PerLabel<L> {
    /// Adds one to the counter of `label`.
    pub(crate) fn increment(&self, label: L) {
        self.of(label).increment();
    }

    /// Returns the sum over all labels.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.counters.iter().map(Counter::value).sum()
    }

    /// Returns the counter of `label`.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.counters[label.index()]
    }
}

impl<L: Label> Default for PerLabel<L> {
    fn default() -> Self {
        Self { counters: L::ALL.iter().map(|_| Counter::default()).collect(), label: PhantomData }
    }
}
