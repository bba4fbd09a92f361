//! Measures how long it takes to find the receivers of a message, and to subscribe, among many
//! filters.
//!
//!     cargo bench --bench routing
//!     cargo bench --bench routing -- --save-baseline before
//!     cargo bench --bench routing -- --baseline before
//!
//! `memory.rs` measures the memory of a subscription.

#[path = "cases/routing.rs"]
mod cases;
#[path = "cases/measure.rs"]
mod measure;
#[path = "cases/timed.rs"]
mod timed;

use criterion::{Criterion, criterion_group, criterion_main};

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];

fn routing(criterion: &mut Criterion) {
    cases::cases(criterion, &SIZES);
}

criterion_group!(benches, routing);
criterion_main!(benches);
