//! `hearthmq completions` and `hearthmq man`: files that are made from the definition of the command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::Failure;

/// Shells with completion scripts.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum CompletedShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args)]
pub(super) struct ManArguments {
    /// The directory for the pages, one for each command [default: the page of the program is printed]
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Prints a completion script.
pub(super) fn completions(shell: CompletedShell, mut command: Command) -> Result<(), Failure> {
    let shell = match shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command, "hearthmq", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}

/// Prints the man page of the program, or writes those of all commands.
pub(super) fn man(arguments: &ManArguments, command: Command) -> Result<(), Failure> {
    match &arguments.directory {
        None => Ok(Man::new(command).render(&mut io::stdout())?),
        Some(directory) => {
            fs::create_dir_all(directory)?;
            let mut command = command;
            command.build();
            Ok(write_pages(&command, "hearthmq", directory)?)
        }
    }
}

fn write_pages(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    let shown = command.clone().display_name(name.to_owned());
    let mut page = Vec::new();
    Man::new(shown).render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_pages(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(())
}
