//! The command line: what can be asked of the program, and how it ends.
//!
//! Exit codes: 0 done, 1 it could not be done (one line on standard error says why), 2 the
//! command line was wrong.

mod export;
mod first_start;
mod listeners;
mod log;
mod log_queue;
mod open_files;
mod passwd;
mod reload;
mod run;
mod serve;
mod store;
mod tls;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use hearthmq::{
    auth::FileError,
    config::{Config, ConfigError, EXAMPLE},
    store::StoreError,
};

/// An MQTT broker whose live sessions an application can control
///
/// Without a command it runs the broker. Every option of the configuration is also an environment
/// variable: limits.connections_max is HEARTHMQ_LIMITS__CONNECTIONS_MAX.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker (the default)
    Run(Options),
    /// Say whether a configuration file is right
    CheckConfig {
        /// A TOML file
        file: PathBuf,
    },
    /// Add an account, or change its password (asked for, or read from standard input)
    Passwd(passwd::Arguments),
    /// Check, count, export or compact what is stored, while no broker runs on it
    Store(store::Arguments),
    /// Print a commented configuration file with every option at its default
    ExampleConfig,
}

/// Where the configuration comes from.
#[derive(Args, Clone)]
struct Options {
    /// A TOML file; without one everything has its default
    #[arg(long, value_name = "FILE", env = "HEARTHMQ_CONFIG")]
    config: Option<PathBuf>,
    /// Sets one option, such as limits.connections_max=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Options {
    fn load(&self) -> Result<Config, ConfigError> {
        // A variable that is no Unicode cannot be one of ours, whose names and values are.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(self.config.as_deref(), variables, &self.set)
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Accounts(#[from] FileError),
    #[error(transparent)]
    Start(#[from] serve::StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    FirstStart(#[from] first_start::FirstStartError),
    #[error(transparent)]
    Password(#[from] passwd::PasswordError),
    #[error(transparent)]
    StoreCommand(#[from] store::StoreCommandError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let done = match command_line.command {
        None => run::run(&command_line.options),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::Passwd(arguments)) => passwd::passwd(&arguments),
        Some(Command::Store(arguments)) => store::store(&arguments),
        Some(Command::ExampleConfig) => print(EXAMPLE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Without standard error there is nobody to tell; the exit code still says it.
            drop(writeln!(io::stderr(), "hearthmq: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn check_config(file: &Path) -> Result<(), Failure> {
    Config::load(Some(file), [], &[])?;
    print(&format!("{}: the configuration is right\n", file.display()))
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
