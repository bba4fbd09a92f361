//! A wrong command line: what clap says, and what was probably meant.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Prints help, version, or what is wrong.
pub(super) fn wrong_command_line(error: &Error) -> ExitCode {
    drop(error.print()); // without standard output or error there is nobody to tell
    if let Some(file) = configuration_file(error) {
        drop(writeln!(io::stderr(), "\n  did you mean --config {file}?"));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What was given where no file is expected, in the way of other programs: `-c FILE`, or the file
/// alone.
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
