//! `hearthmq store`: what an operator asks of a data directory while no broker has it.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use hearthmq::store::{DirectoryStore, Examination};

use super::{Failure, Options, export::export, print};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read everything, and say what does not fit together; exit code 1 if anything does not
    Check(Place),
    /// Say how much there is of what
    Stats(Place),
    /// Write sessions, what is queued, and retained messages as lines of JSON
    Export {
        /// Where to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Write the files anew, without what was removed
    Compact(Place),
}

/// Which store.
#[derive(Args)]
struct Place {
    /// The data directory [default: what the configuration says]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Why a command on a store has failed, where the store itself has not.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreCommandError {
    #[error("the store has {0} faults; restore it from a backup, or export what can be read")]
    Faults(u64),
    #[error("cannot write {path}: {source}; name another file")]
    Output { path: String, source: io::Error },
}

impl Place {
    fn open(&self) -> Result<DirectoryStore, Failure> {
        let directory = match &self.data_dir {
            Some(directory) => directory.clone(),
            None => self.options.load()?.data_dir,
        };
        Ok(DirectoryStore::open_existing(&directory)?)
    }
}

pub(super) fn store(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Check(place) => check(&place.open()?),
        Command::Stats(place) => stats(&place.open()?),
        Command::Export { output, place } => write_export(&place.open()?, output.as_ref()),
        Command::Compact(place) => compact(&place.open()?),
    }
}

fn check(store: &DirectoryStore) -> Result<(), Failure> {
    let found = store.examine()?;
    let mut text = kinds(&found);
    for fault in &found.faults {
        text.push_str(&format!("fault: {fault}\n"));
    }
    text.push_str(&format!("{} faults\n", found.faults_in_all));
    print(&text)?;
    match found.faults_in_all {
        0 => Ok(()),
        faults => Err(StoreCommandError::Faults(faults).into()),
    }
}

fn stats(store: &DirectoryStore) -> Result<(), Failure> {
    let found = store.examine()?;
    print(&format!("{}{} bytes on the disk\n", kinds(&found), store.disk_bytes()?))
}

/// A line for each kind.
fn kinds(found: &Examination) -> String {
    let lines = found.kinds.iter();
    let lines = lines.map(|kind| format!("{} {}, {} bytes\n", kind.records, kind.name, kind.bytes));
    lines.collect()
}

fn compact(store: &DirectoryStore) -> Result<(), Failure> {
    let before = store.disk_bytes()?;
    store.compact()?;
    print(&format!("{before} bytes on the disk before, {} after\n", store.disk_bytes()?))
}

fn write_export(store: &DirectoryStore, output: Option<&PathBuf>) -> Result<(), Failure> {
    let Some(path) = output else {
        return export(store, &mut BufWriter::new(io::stdout().lock()));
    };
    let fault = |source| StoreCommandError::Output { path: path.display().to_string(), source };
    let mut file = BufWriter::new(File::create(path).map_err(fault)?);
    export(store, &mut file)?;
    let file = file.into_inner().map_err(|error| fault(error.into_error()))?;
    Ok(file.sync_all().map_err(fault)?)
}
