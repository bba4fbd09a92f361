//! Runs a session from three bytes for each step: with a broker that publishes, and a client on a
//! bad line that may also acknowledge whatever it likes. The model, which the tests share, has the
//! invariants.
//!
//! `cargo +nightly fuzz run session -- -max_total_time=60`

#![no_main]

use hearthmq_test::session_model::{self, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, steps)) = bytes.split_first() else {
        return;
    };
    let steps = steps.as_chunks().0;
    session_model::run(steps.iter().map(|step| Step::of(*step, mode % 2 == 1)));
});
