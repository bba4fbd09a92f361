//! Reads the lines of a `mosquitto.conf`, with the files of its `include_dir`.
//!
//! Knows the form of a line, not its meaning.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::MigrateError;

/// Levels of `include_dir` within included files.
const LEVELS_MAX: usize = 8;

/// The place of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: Arc<Path>,
    line: usize,
}

impl Place {
    pub(super) fn new(file: &Arc<Path>, line: usize) -> Self {
        Self { file: Arc::clone(file), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// An option and its value.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) value: String,
}

impl Line {
    /// Returns the value as Mosquitto reads a boolean.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.value.parse().ok()
    }

    /// Returns the value as a path; a relative one starts at the working directory.
    pub(super) fn path(&self) -> PathBuf {
        absolute(&self.value)
    }
}

/// Returns the absolute form of a path.
pub(super) fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned())
}

/// Returns the text of a file of the installation.
pub(super) fn read_text(path: &Path) -> Result<String, MigrateError> {
    let unreadable = |source| MigrateError::Unreadable { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Returns all lines of a configuration, in the order in which Mosquitto reads them.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, MigrateError> {
    let mut lines = Vec::new();
    read_into(&mut lines, path, 0)?;
    Ok(lines)
}

fn read_into(lines: &mut Vec<Line>, path: &Path, level: usize) -> Result<(), MigrateError> {
    let text = read_text(path)?;
    let file: Arc<Path> = path.into();
    for (number, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let place = Place::new(&file, number);
        let line = Line { place, name: name.to_owned(), value: value.trim().to_owned() };
        // Bounded: a directory may include itself.
        if line.name == "include_dir" && level < LEVELS_MAX {
            for included in configurations(&line.path())? {
                read_into(lines, &included, level + 1)?;
            }
            continue;
        }
        lines.push(line);
    }
    Ok(())
}

/// Returns the configurations of a directory, in the order of their names.
fn configurations(directory: &Path) -> Result<Vec<PathBuf>, MigrateError> {
    let unreadable = |source| MigrateError::Unreadable { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
