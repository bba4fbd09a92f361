//! The command line: the commands of the program, and how it ends.
//!
//! Exit codes: 0 for success, 1 for failure (one line on standard error gives the reason), 2 for a
//! wrong command line. Commands that ask a running broker have more (`remote.rs`). It is not a failure if
//! the reader of standard output, such as `head`, has enough.

mod check;
mod control;
mod crl;
mod export;
mod files;
mod first_start;
mod generated;
mod hint;
mod http;
mod huge_pages;
mod import;
mod listeners;
mod log;
mod log_queue;
mod migrate;
mod notify;
mod open_files;
mod passwd;
mod program;
mod reload;
mod remote;
mod run;
mod serve;
mod serve_error;
mod sources;
mod store;
mod tls;
mod warnings;

use std::{
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::LazyLock,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use hearthmq::{
    auth::FileError,
    config::{Config, ConfigError, EXAMPLE},
    metrics::COMMIT,
    store::StoreError,
};

/// An MQTT broker whose live sessions an application can control
///
/// Without a command it runs the broker. Every option of the configuration is also an environment
/// variable: limits.connections_max is HEARTHMQ_LIMITS__CONNECTIONS_MAX.
#[derive(Parser)]
#[command(version = version(), args_conflicts_with_subcommands = true, after_help = PLACES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// Returns the version, with the commit if the build knows it.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let commit = COMMIT.map(|commit| format!(" ({commit})")).unwrap_or_default();
        format!("{}{commit}", env!("CARGO_PKG_VERSION"))
    });
    &VERSION
}

/// The default places of all files.
const PLACES: &str = "\
Places:
  /etc/hearthmq/hearthmq.toml  the configuration, if it exists and neither --config nor
                               HEARTHMQ_CONFIG names another (--config /dev/null: only defaults)
  ./hearthmq-data              the data directory (option data_dir), with
    users.toml                   the accounts (option auth.users)
    policy.toml                  their permissions (option auth.policy)
    store/                       sessions, messages, Wills";

/// The configuration file, unless another one is named.
const CONFIG: &str = "/etc/hearthmq/hearthmq.toml";

// The arguments of a command are described when it is called: a start needs few of them.
#[derive(Subcommand)]
#[command(defer = true)]
enum Command {
    /// Run the broker (the default)
    Run(Options),
    /// Check everything that a start would check, and start nothing
    CheckConfig(check::Arguments),
    /// Add an account, change its password (asked for, or read from standard input), or remove it
    Passwd(passwd::Arguments),
    /// Check, count, export, import or compact the stored data
    Store(store::Arguments),
    /// Print a commented configuration file with every option at its default
    ExampleConfig,
    /// Print the policy of a first start: rules for its account, and examples of more
    ExamplePolicy,
    /// Make configuration, policy and accounts from those of another broker
    #[command(subcommand)]
    Import(migrate::ImportCommand),
    #[command(flatten)]
    Remote(remote::RemoteCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: generated::CompletedShell,
    },
    /// Print the man page, or write those of all commands
    Man(generated::ManArguments),
}

/// The sources of the configuration.
#[derive(Args, Clone)]
struct Options {
    /// A TOML file [default: /etc/hearthmq/hearthmq.toml if it exists]
    #[arg(long, value_name = "FILE", env = "HEARTHMQ_CONFIG")]
    config: Option<PathBuf>,
    /// Sets one option, such as limits.connections_max=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Options {
    fn load(&self) -> Result<Config, ConfigError> {
        // Skips variables that are not Unicode: all of HearthMQ's names and values are.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(self.file().as_deref(), variables, &self.set)
    }

    /// Returns the configuration file, if there is one. A file that cannot be examined counts as
    /// existing, so that the error is reported.
    fn file(&self) -> Option<PathBuf> {
        let place =
            || Some(PathBuf::from(CONFIG)).filter(|file| !matches!(file.try_exists(), Ok(false)));
        self.config.clone().or_else(place)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Accounts(#[from] FileError),
    #[error(transparent)]
    Start(#[from] serve_error::ServeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Unwritable(#[from] files::Unwritable),
    #[error(transparent)]
    FirstStart(#[from] first_start::FirstStartError),
    #[error(transparent)]
    Password(#[from] passwd::PasswordError),
    #[error(transparent)]
    StoreCommand(#[from] store::StoreCommandError),
    #[error(transparent)]
    Import(#[from] import::ImportError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
    #[error(transparent)]
    Control(#[from] control::ExportError),
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
    #[error("the input cannot be read: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Returns whether the reader of standard output has enough.
    fn is_of_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns the exit code of the program.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Remote(error) => ExitCode::from(error.exit_code()),
            Self::Config(_)
            | Self::Accounts(_)
            | Self::Start(_)
            | Self::Store(_)
            | Self::Unwritable(_)
            | Self::FirstStart(_)
            | Self::Password(_)
            | Self::StoreCommand(_)
            | Self::Import(_)
            | Self::Migrate(_)
            | Self::Control(_)
            | Self::Input(_)
            | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs the command of the command line.
pub(crate) fn main() -> ExitCode {
    // First: memory that has a huge page keeps it.
    let huge_pages = huge_pages::WithheldHugePages::withhold();
    // Files that the program writes are private to its owner. (Sockets have permissions of their
    // own.)
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return hint::wrong_command_line(&error),
    };
    let done = match command_line.command {
        None => run::run(&command_line.options, huge_pages),
        Some(Command::Run(options)) => run::run(&options, huge_pages),
        Some(Command::CheckConfig(arguments)) => check::check_config(arguments),
        Some(Command::Passwd(arguments)) => passwd::passwd(&arguments),
        Some(Command::Store(arguments)) => store::store(&arguments),
        Some(Command::ExampleConfig) => print(EXAMPLE),
        Some(Command::ExamplePolicy) => print(first_start::POLICY),
        Some(Command::Import(command)) => migrate::run(command),
        Some(Command::Remote(command)) => remote::run(command),
        Some(Command::Completions { shell }) => {
            generated::completions(shell, CommandLine::command())
        }
        Some(Command::Man(arguments)) => generated::man(&arguments, CommandLine::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_of_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            // Without standard error the exit code alone reports the failure.
            drop(writeln!(io::stderr(), "hearthmq: {failure}"));
            failure.exit_code()
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Prints a warning on standard error; the command goes on.
fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// Prints a note on standard error.
fn note(text: &str) {
    drop(writeln!(io::stderr(), "hearthmq: {text}"));
}

/// Logs whether a file was read again.
fn tell_reread<E: fmt::Display>(what: &str, outcome: Result<(), E>) {
    match outcome {
        Ok(()) => tracing::info!("{what} read again"),
        Err(error) => tracing::error!("{what} stay as they were: {error}"),
    }
}
