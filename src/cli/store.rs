//! `hearthmq store`: commands on a data directory that no broker uses; `export` also works while a
//! broker uses it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use hearthmq::store::{DirectoryStore, Examination, StoreError};

use super::{
    Failure, Options,
    control::export_by_broker,
    export::export,
    files::{open_private, sync_file},
    import::{ImportError, ImportedStore, LineReader, import},
    print,
};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read everything and report inconsistencies; exit code 1 if there are any
    Check(OpenStore),
    /// Count the records of each kind
    Stats(OpenStore),
    /// Write sessions, queued and retained messages as lines of JSON, also while a broker runs
    Export {
        /// The file to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        place: OpenStore,
    },
    /// Build a new store from the output of `export`
    Import {
        /// The output of `export`; - for standard input
        file: PathBuf,
        /// Maximum length of a line: an exported message of n bytes has about 4 n / 3
        #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
        line_bytes_max: u64,
        /// Import an export that lacks its last line: a part of one, or one of an earlier version
        #[arg(long)]
        incomplete: bool,
        #[command(flatten)]
        place: OpenStore,
    },
    /// Rewrite the files without removed data
    Compact(OpenStore),
}

/// The store to work on.
#[derive(Args)]
struct OpenStore {
    /// The data directory [default: as configured]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Why a command failed although the store works.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreCommandError {
    #[error("the store has {0} faults; restore it from a backup, or export what can be read")]
    Faults(u64),
    #[error("cannot write {path}: {source}; name another file")]
    Output { path: String, source: io::Error },
}

impl OpenStore {
    fn directory(&self) -> Result<PathBuf, Failure> {
        Ok(match &self.data_dir {
            Some(directory) => directory.clone(),
            None => self.options.load()?.data_dir,
        })
    }

    fn open(&self) -> Result<DirectoryStore, Failure> {
        Ok(DirectoryStore::open_existing(&self.directory()?)?)
    }
}

pub(super) fn store(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Check(place) => check(&place.open()?),
        Command::Stats(place) => stats(&place.open()?),
        Command::Export { output, place } => write_export(&place.directory()?, output.as_ref()),
        Command::Import { file, line_bytes_max, incomplete, place } => {
            read_import(&place.directory()?, file, *line_bytes_max, !incomplete)
        }
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

/// Returns a line for each kind of record.
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

/// Exports the store; a broker that uses the directory does it itself.
fn write_export(directory: &Path, output: Option<&PathBuf>) -> Result<(), Failure> {
    let write = |output: &mut dyn Write| -> Result<(), Failure> {
        match DirectoryStore::open_existing(directory) {
            Ok(store) => export(&store.snapshot()?, output).map(drop),
            // A running broker has the lock; only it can make a snapshot.
            Err(StoreError::InUse { .. }) => export_by_broker(directory, output),
            Err(error) => Err(error.into()),
        }
    };
    let Some(path) = output else {
        let mut output = BufWriter::new(io::stdout().lock());
        let written = write(&mut output).and_then(|()| Ok(output.flush()?));
        return written.map_err(|failure| {
            let Failure::Output(source) = failure else { return failure };
            // An export that is cut off is useless, so the command fails even if its reader has gone.
            StoreCommandError::Output { path: "standard output".to_owned(), source }.into()
        });
    };
    let fault = |source| StoreCommandError::Output { path: path.display().to_string(), source };
    let mut file = BufWriter::new(open_private(path).map_err(fault)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(|error| fault(error.into_error()))?;
    // A backup counts only when it is on the disk.
    Ok(sync_file(&file).map_err(fault)?)
}

/// Builds a store in a directory that has none.
fn read_import(
    directory: &Path,
    file: &Path,
    line_bytes_max: u64,
    must_be_whole: bool,
) -> Result<(), Failure> {
    let fault = |source| ImportError::Input { path: file.display().to_string(), source };
    let (mut input, path): (Box<dyn BufRead>, _) = match file == Path::new("-") {
        true => (Box::new(io::stdin().lock()), "standard input".to_owned()),
        false => {
            let opened = File::open(file).map_err(fault)?;
            (Box::new(BufReader::new(opened)), file.display().to_string())
        }
    };
    // The length of a line is bounded, so that a wrong file does not fill the memory.
    let mut lines = LineReader { input: &mut input, path, bytes_max: line_bytes_max, count: 0 };
    let ImportedStore { lines, is_whole } = import(directory, &mut lines, must_be_whole)?;
    // An earlier version wrote no last line, so its absence is only a doubt.
    let doubt =
        if is_whole { "" } else { "; the export has no last line, so it may be incomplete" };
    print(&format!("{lines} lines were imported{doubt}\n"))
}
