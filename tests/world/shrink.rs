//! Shortens a failing list of steps by leaving out steps that the failure does not need.

/// Maximum number of lists to try.
const TRIES_MAX: usize = 3000;

/// Returns the shortest list found that still `fails`.
pub(crate) fn shrink<S: Clone>(steps: Vec<S>, fails: impl Fn(&[S]) -> bool) -> Vec<S> {
    let mut steps = steps;
    let mut tries = 0;
    let mut chunk = steps.len().div_ceil(2);
    loop {
        let before = steps.len();
        let mut at = 0;
        while at < steps.len() && tries < TRIES_MAX {
            let end = (at + chunk).min(steps.len());
            let shorter = [&steps[..at], &steps[end..]].concat();
            tries += 1;
            if fails(&shorter) {
                steps = shorter;
            } else {
                at = end;
            }
        }
        if tries >= TRIES_MAX || (chunk == 1 && steps.len() == before) {
            return steps;
        }
        // Single steps are tried again until none of them can be left out.
        chunk = chunk.div_ceil(2);
    }
}
