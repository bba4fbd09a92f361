//! The figures of the operating system about this process, under the names that Prometheus' own client
//! libraries use, so that dashboards find them. Linux only: read from `/proc` at each scrape.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

/// Ticks a second in which the kernel reports times to programs, whatever its own clock does.
const TICKS_PER_SEC: f64 = 100.0;

/// Fields of `/proc/self/stat`, counted from the one behind the name of the program.
const UTIME: usize = 11;
const STIME: usize = 12;
const START_TIME: usize = 19;

/// Reads the process at each scrape. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            let help = "CPU time of all threads";
            let unit = Some(&Unit::Seconds);
            let mut encoder =
                encoder.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            encoder.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)?;
        }
        let started = started_at(&stat, &fs::read_to_string("/proc/stat").unwrap_or_default());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, help, unit, value) in [
            ("process_start_time", "Start, since the Unix epoch", Some(Unit::Seconds), started),
            ("process_resident_memory", "Memory", Some(Unit::Bytes), resident_bytes(&status)),
            ("process_open_fds", "Open files", None, open_files()),
            ("process_max_fds", "Files that may be open", None, files_max()),
        ] {
            // Left out where `/proc` cannot be read; 0 would be a wrong figure.
            let Some(value) = value else { continue };
            let encoder =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }
}

/// Returns a field of `/proc/self/stat`. The name in it may hold anything, so it is skipped up to its
/// last parenthesis.
fn field(stat: &str, at: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(at)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, UTIME)? + field(stat, STIME)?) / TICKS_PER_SEC)
}

/// Returns when the process started; `system` is `/proc/stat`, which says when the machine did.
fn started_at(stat: &str, system: &str) -> Option<f64> {
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.parse::<f64>().ok()? + field(stat, START_TIME)? / TICKS_PER_SEC)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// Counts the open files, without the one that counts them. Newer kernels say the number as the size of
/// the directory; a hundred thousand entries need not be read then.
#[expect(clippy::cast_precision_loss, reason = "there are far fewer files than 2^52")]
fn open_files() -> Option<f64> {
    let said = fs::metadata("/proc/self/fd").ok()?.len();
    if said > 0 {
        return Some(said as f64);
    }
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a limit this large is as good as none")]
fn files_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => Some(number.parse::<u64>().ok()? as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a) b (c) S 1 2 3 4 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1234 5 6";

    #[test]
    fn a_program_of_any_name_has_its_times_read() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(started_at(STAT, "cpu 1 2\nbtime 1000\n"), Some(1_012.34));
        assert_eq!(started_at(STAT, "cpu 1 2\n"), None);
        assert_eq!(cpu_seconds("77 (a"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t     2 kB\n"), Some(2_048.0));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
