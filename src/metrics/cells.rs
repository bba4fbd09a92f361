//! The cells that numbers are kept in.
//!
//! A cell knows neither its name nor what is counted in it; `encode` has the names.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::labels::Label;

/// A number that only grows, written by one thread.
///
/// Adding is a load and a store, not an atomic addition: with two writers some of their additions
/// would be lost. Reading is right from any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks, written by one thread (see [`Counter`]).
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.set(self.value().saturating_add(n));
    }

    /// Takes `n` away; stays at zero.
    pub fn sub(&self, n: u64) {
        self.set(self.value().saturating_sub(n));
    }

    /// What it is now.
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
    pub fn increment(&self, label: L) {
        self.of(label).increment();
    }

    /// What has been counted of all labels together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.counters.iter().map(Counter::value).sum()
    }

    /// The counter of `label`.
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
