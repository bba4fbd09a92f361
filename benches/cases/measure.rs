//! What a benchmark does with a case: times it, or counts its instructions.

/// Takes the cases, one after the other.
pub(crate) trait Measure {
    /// A case. `prepare` makes what it needs and gives the step that is measured again and again;
    /// it is not called where the case is not asked for.
    fn case<T, S: FnMut() -> T>(&mut self, name: &str, prepare: impl FnOnce() -> S);
}
