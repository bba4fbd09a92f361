//! Configuration errors: the fault, its place and its remedy, in one line.
//!
//! Only `load` creates them; the text needs no addition.

use std::{fmt, ops::Range, path::PathBuf};

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct ConfigError {
    /// Where the mistake is.
    pub place: Place,
    /// The fault.
    pub what: String,
    /// The remedy.
    pub remedy: String,
}

/// Where a value of the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A file as a whole.
    File(PathBuf),
    /// A point in a file.
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// An environment variable, by name.
    Variable(String),
    /// `--set` on the command line, by key.
    Setting(String),
    /// The default of this key, which was given nowhere.
    Default(String),
}

impl Place {
    /// Returns the position in `text`, the contents of `path`, at which `span` begins.
    pub(super) fn in_text(path: PathBuf, text: &str, span: Option<Range<usize>>) -> Self {
        let Some(before) = span.and_then(|span| text.get(..span.start)) else {
            return Self::File(path);
        };
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::Line {
            path,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) => f.write_str(name),
            Self::Setting(key) => write!(f, "--set {key}"),
            Self::Default(key) => write!(f, "{key} (not given)"),
        }
    }
}
