//! The `hearthmq` program. Everything that it can do is in [`cli`]; everything that it does it
//! does with the library.

mod cli;

use std::process::ExitCode;

/// Messages between actors are two small allocations each; this allocator halves their cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
