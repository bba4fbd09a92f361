//! Measures what a message costs while something grows: connections, subscribers, filters, payload,
//! shards.
//!
//! HearthMQ alone, each point on a freshly started broker; the cost is its CPU time for a delivery.
//! Plots go to `docs/plots`, the numbers to standard output.

use std::{path::Path, process::Command};

use hearthmq::mqtt::QoS;

use super::{
    Outcome, Settings, brokers,
    plot::{Line, Plot, draw},
    publishing::{Pattern, Publishing},
    report::Figures,
};

/// Connections over sockets: half of them publish. A process may open 20,000 files.
const CONNECTIONS: [usize; 7] = [2, 20, 200, 1_000, 4_000, 10_000, 18_000];
/// Connections over in-process streams.
const IN_PROCESS: [usize; 7] = [2, 20, 200, 2_000, 20_000, 100_000, 200_000];
const SUBSCRIBERS: [usize; 7] = [1, 5, 20, 100, 500, 2_000, 10_000];
const FILTERS: [usize; 5] = [300, 3_000, 30_000, 300_000, 1_000_000];
const PAYLOADS: [usize; 8] = [64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_000];
const SHARDS: [usize; 4] = [1, 2, 4, 8];
/// Number of pairs while something else grows.
const PAIRS: usize = 100;

/// Measures everything and draws it. `start` starts a broker with the given number of shards.
pub(crate) fn measure(
    directory: &Path,
    settings: &Settings,
    start: &dyn Fn(usize) -> brokers::Named,
) -> Outcome<()> {
    std::fs::create_dir_all(directory)?;
    let run = |what: Publishing, shards: usize| -> Outcome<Figures> {
        what.measure(&start(shards).start(&settings.cores)?, settings)
    };
    let of = |pattern, qos, payload_bytes| Publishing { pattern, qos, payload_bytes, rate: None };
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce];
    let line = |name: &str, xs: &[usize], point: &dyn Fn(usize) -> Outcome<f64>| {
        let points: Outcome<Vec<_>> = xs.iter().map(|x| Ok((*x as f64, point(*x)?))).collect();
        points.map(|points| Line { name: name.to_owned(), points })
    };
    let by_qos = |xs: &[usize], what: &dyn Fn(usize, QoS) -> Publishing| -> Outcome<Vec<Line>> {
        let one = |qos: QoS| {
            line(&format!("QoS {}", qos.number()), xs, &|x| {
                micros_a_delivery(&run(what(x, qos), 1)?)
            })
        };
        qos.into_iter().map(one).collect()
    };

    let mut lines = by_qos(&CONNECTIONS, &|x, qos| of(Pattern::Pairs(x / 2), qos, 64))?;
    lines.push(line("QoS 0, in process", &IN_PROCESS, &in_process)?);
    let plots = [
        Plot { file: "connections", x: "connections, in pairs that all publish", lines },
        Plot {
            file: "subscribers",
            x: "subscribers of one topic",
            lines: by_qos(&SUBSCRIBERS, &|x, qos| of(Pattern::FanOut(x), qos, 64))?,
        },
        Plot {
            file: "filters",
            x: "filters, of which three match a topic",
            lines: by_qos(&FILTERS, &|x, qos| of(Pattern::Filters(x), qos, 64))?,
        },
        Plot {
            file: "payload",
            x: "bytes of payload",
            lines: by_qos(&PAYLOADS, &|x, qos| of(Pattern::Pairs(PAIRS), qos, x))?,
        },
        Plot {
            file: "shards",
            x: "shards, on one core",
            lines: vec![line("QoS 0", &SHARDS, &|x| {
                micros_a_delivery(&run(of(Pattern::Pairs(PAIRS), QoS::AtMostOnce, 64), x)?)
            })?],
        },
    ];
    plots.iter().try_for_each(|plot| draw(directory, plot))
}

fn micros_a_delivery(figures: &Figures) -> Outcome<f64> {
    let value = figures.value("CPU s per million").ok_or("CPU time was not measured")?;
    if figures.faults > 0 {
        return Err(format!("{} faults", figures.faults).into());
    }
    Ok(value)
}

/// Measures clients over in-process streams, in a separate process of this program.
fn in_process(connections: usize) -> Outcome<f64> {
    let this = std::env::current_exe()?;
    let output = Command::new(this).args(["in-process", &connections.to_string()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().parse().map_err(|_| format!("{connections} in process: {text}"))?)
}
