//! Measures the cases of a benchmark: by time, or by instructions.

/// Takes the cases, one after the other.
pub(crate) trait Measure {
    /// Takes a case. `prepare` creates what it needs and returns the step that is measured
    /// repeatedly; it is not called for a case that was not requested.
    fn case<T, S: FnMut() -> T>(&mut self, name: &str, prepare: impl FnOnce() -> S);
}
