//! `hearthmq users import` and `export`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::{
    OutputOptions, Remote, RemoteError, RemoteOptions,
    table::{TextTable, field, write_json},
};
use crate::cli::{
    Failure,
    files::{open_private, sync_file},
};

/// Lines of one call: the answer begins when all of them were read.
const LINES_AT_A_TIME: usize = 10_000;

#[derive(Args)]
pub(in crate::cli) struct ImportArguments {
    /// The file with one account on each line [default: standard input]
    file: Option<PathBuf>,
    /// How to treat accounts that exist already
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    existing: Existing,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum Existing {
    /// Their lines fail
    Fail,
    /// They stay as they are
    Skip,
    /// They are replaced, with their credentials
    Replace,
}

impl Existing {
    const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Replace => "replace",
        }
    }
}

#[derive(Args)]
pub(in crate::cli) struct ExportArguments {
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteOptions,
}

/// The sums of the calls of an import.
#[derive(Default)]
struct Sums {
    lines: u64,
    created: u64,
    replaced: u64,
    skipped: u64,
    failed: u64,
    sessions_touched: u64,
}

pub(super) fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let mut input: Box<dyn BufRead> = match &arguments.file {
        Some(path) => Box::new(BufReader::new(File::open(path).map_err(Failure::Input)?)),
        None => Box::new(io::stdin().lock()),
    };
    let remote = arguments.remote.remote()?;
    let is_json = arguments.output.is_json();
    let mut sums = Sums::default();
    let mut failures = TextTable::new(&["LINE", "CODE", "MESSAGE"]);
    loop {
        // In portions, so that a failure repeats little and memory has a bound.
        let portion = take_lines(&mut input)?;
        if portion.is_empty() {
            break;
        }
        send(&remote, arguments.existing, portion, &mut sums, |result| {
            // The table has failures alone, which would be lost among many thousand lines.
            if is_json {
                write_json(&result)?;
            } else if result["result"] == "failed" {
                failures.add(["line", "code", "message"].map(|name| field(&result, name)));
            }
            Ok(())
        })?;
    }
    let Sums { lines, created, replaced, skipped, failed, sessions_touched } = sums;
    if is_json {
        write_json(&json!({
            "lines": lines, "created": created, "replaced": replaced, "skipped": skipped,
            "failed": failed, "sessions_touched": sessions_touched,
        }))?;
    } else {
        if failed > 0 {
            failures.write()?;
        }
        crate::cli::note(&format!(
            "{created} created, {replaced} replaced, {skipped} skipped, {failed} failed; sessions \
             touched: {sessions_touched}"
        ));
    }
    // A failed line makes the command fail, so that a script notices it.
    match failed {
        0 => Ok(()),
        failed => {
            Err(RemoteError::LinesFailed { failed: failed as usize, all: lines as usize }.into())
        }
    }
}

/// Takes the next lines of the input.
fn take_lines(input: &mut dyn BufRead) -> Result<Vec<u8>, Failure> {
    let mut portion = Vec::new();
    for _ in 0..LINES_AT_A_TIME {
        if input.read_until(b'\n', &mut portion).map_err(Failure::Input)? == 0 {
            break;
        }
    }
    Ok(portion)
}

/// Imports some lines. Results get the numbers of the lines of the whole file that are not empty.
fn send(
    remote: &Remote,
    existing: Existing,
    portion: Vec<u8>,
    sums: &mut Sums,
    mut take: impl FnMut(Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let target = format!("/api/v1/users/import?existing={}", existing.name());
    // The broker numbers the lines of each portion from 1.
    let before = sums.lines;
    let mut is_whole = false;
    let body = Some(("application/x-ndjson", portion));
    for line in remote.lines("POST", &target, body)?.lines() {
        let line = line.map_err(|_| RemoteError::CutOff)?;
        let Ok(mut result) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(number) = result["line"].as_u64() {
            result["line"] = (before + number).into();
            take(result)?;
            continue;
        }
        let number = |name: &str| result[name].as_u64().unwrap_or_default();
        sums.lines += number("lines");
        sums.created += number("created");
        sums.replaced += number("replaced");
        sums.skipped += number("skipped");
        sums.failed += number("failed");
        sums.sessions_touched += number("sessions_touched");
        // Only a summary without this member says that all lines were read.
        is_whole = result.get("ended").is_none();
    }
    if is_whole { Ok(()) } else { Err(RemoteError::CutOff.into()) }
}

pub(super) fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let mut lines = arguments.remote.remote()?.lines("GET", "/api/v1/users/export", None)?;
    let mut copy = |output: &mut dyn io::Write| {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            // The broker cuts the connection if it fails, so a normal end means a complete export.
            if read.map_err(|_| Failure::from(RemoteError::CutOff))? == 0 {
                return Ok::<(), Failure>(output.flush()?);
            }
            output.write_all(&line)?;
        }
    };
    match &arguments.file {
        Some(path) => {
            // The lines have the hashes of passwords.
            let mut file = io::BufWriter::new(open_private(path)?);
            copy(&mut file)?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            Ok(sync_file(&file)?)
        }
        None => copy(&mut io::stdout().lock()),
    }
}
