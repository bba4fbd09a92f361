//! The `hearthmq` program. Its commands are in [`cli`]; all the work is done by the library.

mod cli;

use std::process::ExitCode;

/// Messages between actors are two small allocations each; this allocator halves their cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
