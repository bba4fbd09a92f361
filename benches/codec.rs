//! Measures how long each packet takes to decode and to encode.
//!
//!     cargo bench --bench codec
//!     cargo bench --bench codec -- decode/PUBLISH
//!
//! Nothing here knows a socket.

#[path = "cases/codec.rs"]
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
