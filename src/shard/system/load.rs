//! Load over one, five and fifteen minutes, as Unix and Mosquitto calculate it: an average rate per
//! minute in which older values count less and less.

use std::time::Duration;

/// The number of kinds of load.
pub(in crate::shard) const KINDS: usize = 9;

/// The length of each mean in seconds, and the end of its topic.
const MEANS: [(f64, &str); 3] = [(60.0, "1min"), (300.0, "5min"), (900.0, "15min")];

/// The loads of all kinds.
#[derive(Debug, Default)]
pub(in crate::shard) struct Loads {
    /// The counts at the last update; `None` before the first.
    counted: Option<[u64; KINDS]>,
    means: [[f64; MEANS.len()]; KINDS],
}

impl Loads {
    /// Updates the loads from the present counts, `passed` after the last update; returns names and
    /// values.
    pub(in crate::shard) fn after(
        &mut self,
        passed: Duration,
        counts: &[(&'static str, u64); KINDS],
    ) -> Vec<(Box<str>, String)> {
        let counted = counts.map(|(_, count)| count);
        // Counts of the first call have nothing to be compared with.
        let before = self.counted.replace(counted);
        let secs = passed.as_secs_f64();
        let mut values = Vec::with_capacity(KINDS * MEANS.len());
        for (kind, (name, count)) in counts.iter().enumerate() {
            for (at, (length, suffix)) in MEANS.iter().enumerate() {
                let mean = &mut self.means[kind][at];
                // Two calls at one time would divide by zero.
                if let Some(before) = before.filter(|_| secs > 0.0) {
                    #[expect(clippy::cast_precision_loss, reason = "a rate is not an exact number")]
                    let a_minute = count.saturating_sub(before[kind]) as f64 * 60.0 / secs;
                    *mean = a_minute + (-secs / length).exp() * (*mean - a_minute);
                }
                values.push((format!("load/{name}/{suffix}").into(), format!("{mean:.2}")));
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> [(&'static str, u64); KINDS] {
        [("sockets", count); KINDS]
    }

    #[test]
    fn a_steady_rate_becomes_the_load_and_the_short_mean_is_the_first_to_show_it() {
        let mut loads = Loads::default();
        loads.after(Duration::ZERO, &counts(1_000));
        let mut last = Vec::new();
        for second in 1..=90 {
            last = loads.after(Duration::from_secs(10), &counts(1_000 + second * 20));
            let of = |at: usize| last[at].1.parse::<f64>().expect("a number");
            assert!(of(0) >= of(1) && of(1) >= of(2) && of(0) <= 120.0, "{last:?}");
        }
        assert_eq!(&*last[0].0, "load/sockets/1min");
        assert_eq!(last[0].1, "120.00");
        // After fifteen minutes 1 - 1/e of the rate, within the rounding to two places.
        assert_eq!(last[2].1, "75.85");
        let quiet = loads.after(Duration::from_secs(60), &counts(1_000 + 90 * 20));
        assert_eq!(quiet[0].1, "44.15", "a minute later 1/e is left");
    }
}
