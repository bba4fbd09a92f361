//! Measures how long a session takes for a message from its client, and for one to it.
//!
//!     cargo bench --bench session

#[path = "cases/session.rs"]
mod cases;
#[path = "cases/measure.rs"]
mod measure;
#[path = "cases/timed.rs"]
mod timed;

use criterion::{criterion_group, criterion_main};

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, cases::cases);
criterion_main!(benches);
