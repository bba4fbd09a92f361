//! Cases timed by Criterion, which saves baselines.

use std::cell::OnceCell;

use criterion::Criterion;

use crate::measure::Measure;

impl Measure for Criterion {
    fn case<T, S: FnMut() -> T>(&mut self, name: &str, prepare: impl FnOnce() -> S) {
        let mut prepare = Some(prepare);
        let mut prepared = OnceCell::new();
        self.bench_function(name, |bencher| {
            // Called for every sample.
            if let Some(prepare) = prepare.take() {
                let _ = prepared.set(prepare());
            }
            if let Some(step) = prepared.get_mut() {
                bencher.iter(step);
            }
        });
    }
}
