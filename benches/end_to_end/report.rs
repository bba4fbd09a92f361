//! Reports medians of several rounds, in one Markdown table for each workload, best first.

use std::fmt::Write;

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    values: Vec<(&'static str, f64)>,
    /// Deliveries lost, doubled, out of order or not due; connections that were cut off.
    pub(crate) faults: u64,
}

impl Figures {
    pub(crate) fn with_faults(faults: u64) -> Self {
        Self { faults, ..Self::default() }
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub(crate) fn put(&mut self, name: &'static str, value: f64) {
        self.values.push((name, value));
    }
}

/// One broker's rounds of one workload.
pub(crate) struct Row {
    pub(crate) broker: String,
    pub(crate) rounds: Vec<Result<Figures, String>>,
}

/// A workload's table. Ratios are to the first broker.
pub(crate) fn table(workload: &str, rows: &[Row]) -> String {
    let mut text = format!("\n### {workload}\n\n");
    let names = rows.iter().flat_map(|row| &row.rounds).flatten().map(|figures| &figures.values);
    let Some(names) = names.max_by_key(|values| values.len()) else {
        return text + &failures(rows);
    };
    let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(text, "| broker | {} | faults |", names.join(" | "));
    let _ = writeln!(text, "|---|{}---|", "---|".repeat(names.len()));
    let medians = |row: &Row| names.iter().map(|name| median(row, name)).collect::<Vec<_>>();
    let reference = rows.first().map(medians).unwrap_or_default();
    for row in rows {
        if row.rounds.iter().all(Result::is_err) {
            continue;
        }
        let cells = medians(row).into_iter().zip(&reference).map(|(value, of)| match value {
            None => "–".to_owned(),
            Some(value) if row.broker == rows[0].broker => number(value),
            Some(value) => match of {
                Some(of) if *of > 0.0 => format!("{} ({:.2})", number(value), value / of),
                _ => number(value),
            },
        });
        let cells: Vec<String> = cells.collect();
        let faults: u64 = row.rounds.iter().flatten().map(|figures| figures.faults).sum();
        let _ = writeln!(text, "| {} | {} | {faults} |", row.broker, cells.join(" | "));
    }
    text + &failures(rows)
}

fn failures(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let errors: Vec<&String> =
            row.rounds.iter().filter_map(|round| round.as_ref().err()).collect();
        if let Some(error) = errors.first() {
            let (failed, all) = (errors.len(), row.rounds.len());
            let _ = writeln!(text, "\n{}: {failed} of {all} rounds failed: {error}", row.broker);
        }
    }
    text
}

fn median(row: &Row, name: &str) -> Option<f64> {
    let rounds = row.rounds.iter().flatten();
    let mut values: Vec<f64> = rounds.filter_map(|figures| figures.value(name)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Formats a number with three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e5 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
