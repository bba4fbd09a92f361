//! A wrong command line: prints clap's error, and what was probably meant.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Prints the help, the version, or the fault.
pub(super) fn wrong_command_line(error: &Error) -> ExitCode {
    drop(error.print()); // fails only without standard output or error
    if let Some(file) = configuration_file(error) {
        drop(writeln!(io::stderr(), "\n  did you mean --config {file}?"));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Returns the file of an argument that other programs accept but this one does not: `-c FILE`, or
/// the file alone.
fn configuration_file(error: &Error) -> Option<String> {
    let kind = if error.kind() == ErrorKind::InvalidSubcommand {
        ContextKind::InvalidSubcommand
    } else {
        ContextKind::InvalidArg
    };
    let Some(ContextValue::String(wrong)) = error.get(kind) else { return None };
    match wrong.as_str() {
        "-c" | "-f" => {
            let after = env::args().skip_while(|argument| argument != wrong).nth(1);
            Some(after.unwrap_or_else(|| "FILE".to_owned()))
        }
        file if file.ends_with(".toml") || Path::new(file).is_file() => Some(file.to_owned()),
        _ => None,
    }
}
