//! Counts the instructions of a step. The number hardly depends on the load of the machine.
//!
//!     cargo bench --bench instructions -- --save-baseline before
//!     cargo bench --bench instructions -- --baseline before
//!     cargo bench --bench instructions -- plan             # all cases with this in their name
//!
//! Runs itself under `valgrind --tool=callgrind` (Debian: `valgrind`), once for each case, and
//! counts in [`counted_steps`] only. The profiles stay in `target/instructions` for
//! `callgrind_annotate`. Hash tables have a new seed in each process, so that counts of lookups
//! vary slightly.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks, and says why it cannot go on"
)]

#[path = "cases/codec.rs"]
mod codec;
#[path = "cases/measure.rs"]
mod measure;
#[path = "cases/passage.rs"]
mod passage;
#[path = "cases/routing.rs"]
mod routing;
#[path = "cases/session.rs"]
mod session;
#[path = "cases/visit.rs"]
mod visit;

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use measure::Measure;

/// The same allocator as the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cases that are counted if no name is given.
const CHOICE: &[&str] = &[
    "decode/CONNECT with Will/V5",
    "decode/PUBLISH QoS 0 of 64 B/V3_1_1",
    "decode/PUBLISH QoS 1 of 64 B/V5",
    "decode/PUBACK/V5",
    "decode/SUBSCRIBE of 4 filters/V5",
    "encode/CONNACK/V5",
    "encode/PUBLISH QoS 0 of 64 B/V3_1_1",
    "encode/PUBLISH QoS 1 of 64 B/V5",
    "encode/PUBACK/V5",
    "encode/SUBACK of 4 filters/V5",
    "plan/10000 filters",
    "plan/100000 filters",
    "plan/500 subscribers",
    "subscribe and unsubscribe/10000 filters",
    "subscribe and unsubscribe/500 subscribers",
    "publish/QoS 0/V5",
    "publish/QoS 1/V5",
    "publish/QoS 2/V5",
    "deliver/QoS 0/V5",
    "deliver/QoS 1/V5",
    "deliver/QoS 2/V5",
    "queue and pump/QoS 1/V5",
    "in to out/QoS 0/V5/store off",
    "in to out/QoS 1/V5/store off",
    "in to out/QoS 2/V5/store off",
    "in to out/QoS 0/V5/store on",
    "in to out/QoS 1/V5/store on",
    "in to out/QoS 2/V5/store on",
    "across shards/QoS 1/V5/store on",
    "visit/store off",
    "visit/store on, no history",
    "visit/store on",
];

/// A million would take valgrind minutes to build.
const SIZES: [usize; 2] = [10_000, 100_000];

/// Steps before the count begins: afterwards buffers and tables have their final size.
const STEPS_BEFORE: u32 = 100;
const STEPS: u32 = 1000;

/// Argument of the process under valgrind, before the name of its case.
const COUNT_CASE: &str = "--count-case";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value_of = |option: &str| {
        let at = arguments.iter().position(|argument| argument == option)?;
        arguments.get(at + 1).map(String::as_str)
    };
    // The inner run, under valgrind: it performs one case and prints nothing.
    if let Some(name) = value_of(COUNT_CASE) {
        all_cases(&mut OneCase { name });
        return ExitCode::SUCCESS;
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS; // `cargo test --benches` only starts it
    }
    let (save, compare) = (value_of("--save-baseline"), value_of("--baseline"));
    let is_value = |argument: &str| [save, compare].contains(&Some(argument));
    let part = arguments.iter().find(|argument| !argument.starts_with('-') && !is_value(argument));
    match count(&names(part.map(String::as_str)), save, compare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to count instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn names(part: Option<&str>) -> Vec<String> {
    let mut all = Names::default();
    all_cases(&mut all);
    let unknown = CHOICE.iter().find(|name| !all.0.iter().any(|known| known == *name));
    assert_eq!(unknown, None, "the choice is of cases that there are");
    all.0.retain(|name| {
        part.map_or_else(|| CHOICE.contains(&name.as_str()), |part| name.contains(part))
    });
    all.0
}

fn all_cases(measure: &mut impl Measure) {
    codec::cases(measure);
    routing::cases(measure, &SIZES);
    session::cases(measure);
    passage::cases(measure);
    visit::cases(measure);
}

/// Counts, prints, and saves the counts if they become a baseline.
fn count(names: &[String], save: Option<&str>, compare: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(directory())?;
    let baseline = compare.map(|name| fs::read_to_string(baseline_path(name))).transpose()?;
    let baseline = read_baseline(baseline.as_deref().unwrap_or_default());
    let mut lines = String::new();
    println!("{:48}{:>14}", "instructions of", "a step");
    for name in names {
        let instructions = count_case(name)?;
        let change = baseline.get(name.as_str()).map_or(String::new(), |before| {
            format!("{:>+10.2} %", (instructions / before - 1.0) * 100.0)
        });
        println!("{name:48}{instructions:>14.1}{change}");
        lines.push_str(&format!("{name}\t{instructions}\n"));
    }
    match save {
        Some(name) => fs::write(baseline_path(name), lines),
        None => Ok(()),
    }
}

/// Runs one case under valgrind.
fn count_case(name: &str) -> io::Result<f64> {
    let profile = directory().join(format!("{}.callgrind", name.replace(['/', ' '], "_")));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_steps*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args([COUNT_CASE, name])
        .output()
        .map_err(|error| io::Error::other(format!("valgrind cannot be run: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, number)| number.trim().parse::<f64>().ok()) {
        Some(collected) if output.status.success() => Ok(collected / f64::from(STEPS)),
        Some(_) | None => Err(io::Error::other(said.into_owned())),
    }
}

fn read_baseline(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(name, number)| Some((name, number.parse().ok()?))).collect()
}

fn baseline_path(name: &str) -> PathBuf {
    directory().join(name).with_extension("baseline")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("instructions")
}

/// Collects the names of all cases.
#[derive(Default)]
struct Names(Vec<String>);

impl Measure for Names {
    fn case<T, S: FnMut() -> T>(&mut self, name: &str, _: impl FnOnce() -> S) {
        self.0.push(name.to_owned());
    }
}

/// Runs the steps of one case.
struct OneCase<'a> {
    name: &'a str,
}

impl Measure for OneCase<'_> {
    fn case<T, S: FnMut() -> T>(&mut self, name: &str, prepare: impl FnOnce() -> S) {
        if name == self.name {
            let mut step = prepare();
            for _ in 0..STEPS_BEFORE {
                black_box(step());
            }
            counted_steps(&mut step);
        }
    }
}

/// Callgrind counts inside the function of this name.
#[inline(never)]
fn counted_steps<T>(step: &mut impl FnMut() -> T) {
    for _ in 0..STEPS {
        black_box(step());
    }
}
