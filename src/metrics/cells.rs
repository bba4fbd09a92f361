//! The cells that numbers are kept in, and the labels that tell cells of one name apart.
//!
//! A cell knows neither its name nor what is counted in it; `encode` has the names.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

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

/// An enum whose values are the labels of a metric; made by [`labels!`].
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;

    /// As monitoring shows it.
    fn name(self) -> &'static str;
}

/// A [`Counter`] for each value of a [`Label`].
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

    /// The counter of `label`.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.counters[label.index()]
    }
}

impl<L: Label> Default for PerLabel<L> {
    fn default() -> Self {
        Self {
            counters: L::ALL.iter().map(|_| Counter::default()).collect(),
            label: PhantomData,
        }
    }
}

/// Declares an enum that is a [`Label`].
macro_rules! labels {
    (
        $(#[$doc:meta])* pub enum $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),*
        }

        impl $crate::metrics::cells::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }
    };
}
pub(super) use labels;
