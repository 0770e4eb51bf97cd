//! The command line. What a command prints for people it also prints as JSON (`--format json`).

mod audit;
mod breach;
mod contain;
mod explain;
mod files;
mod keys;
mod logs;
mod metrics;
mod people;
mod posture;
mod syscalls;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Exit code for bad configuration or a bad command line (sysexits.h, EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Break your monolith without breaking your security.
#[derive(Debug, Parser)]
#[command(name = "palisade", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How answers are written.
    #[arg(long, global = true, value_enum, default_value_t = Written::Text)]
    format: Written,
}

/// Every way in which some command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// One JSON value.
    Json,
    /// For a pull request (`breach`).
    Markdown,
    /// SARIF 2.1.0, for tools (`breach`).
    Sarif,
    /// A picture (`breach`).
    Svg,
}

impl Written {
    /// For commands that write text and JSON.
    fn plain(self) -> Result<Format, Failure> {
        match self {
            Self::Text => Ok(Format::Text),
            Self::Json => Ok(Format::Json),
            Self::Markdown | Self::Sarif | Self::Svg => Err(Failure::of(EXIT_USAGE, "this command writes text and json; see --help")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

/// Which manifest.
#[derive(Debug, clap::Args)]
struct ManifestArgument {
    /// The manifest of the system.
    #[arg(long, default_value = "palisade.toml", value_name = "FILE")]
    manifest: PathBuf,
}

/// Which running system.
#[derive(Debug, clap::Args)]
struct DirArgument {
    /// The folder in which the system keeps its data, keys and sockets.
    #[arg(long, default_value = ".palisade", value_name = "FOLDER")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system of a manifest on this machine, every service behind its guard.
    Up(up::Up),
    /// Check a manifest; every problem is shown with its place.
    Check(ManifestArgument),
    /// Pin the digest of every artefact that the manifest's services run.
    Lock {
        #[command(flatten)]
        manifest: ManifestArgument,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Print the JSON Schema of manifests, for editors.
    Schema,
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Sandboxes.
    #[command(subcommand)]
    Sandbox(explain::Sandbox),
    /// People who may sign in.
    #[command(subcommand)]
    User(people::User),
    /// API keys, for programs that cannot sign in.
    #[command(subcommand)]
    Key(keys::Key),
    /// Put a changed manifest into force: all of it, everywhere, or nothing.
    Apply {
        #[command(flatten)]
        manifest: ManifestArgument,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Refuse all that was issued to a workload before now; its guard must be started anew.
    Revoke {
        /// SPIFFE ID, as `spiffe://video.example/service/transcoder`.
        spiffe_id: trust::SpiffeId,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// Cut a service off and freeze it; the evidence is kept and everything else stays up.
    Contain(contain::Contain),
    /// Undo `contain`: the service is started anew.
    Release(contain::Release),
    /// The metrics of every process of a running system, as Prometheus reads them.
    Metrics {
        /// As OpenMetrics, with exemplars: traces that stand for what is counted.
        #[arg(long)]
        openmetrics: bool,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// The access log: a line for each request, oldest first.
    Logs(logs::Logs),
    /// What an attacker reaches who owns one part of the system.
    Breach(breach::Breach),
    /// How well the system is kept: what evidence shows, by area and trust boundary.
    Posture(posture::PostureOf),
    /// The spans of one trace.
    Trace {
        /// 32 hexadecimal digits.
        trace: String,
        #[command(flatten)]
        dir: DirArgument,
    },
    /// One of Palisade's own processes. Started by `up`.
    #[command(hide = true)]
    Role {
        /// Which.
        name: String,
    },
    /// The guard of a service. Started by `up`.
    #[command(hide = true)]
    Guard {
        /// Which.
        service: String,
    },
    /// The decision point of an enforcement point. Started by `up`.
    #[command(hide = true)]
    Pdp {
        /// Which.
        pep: String,
    },
}

/// Runs the copy of a system that is broken into, by the same code as `up`.
pub(crate) fn up_copy(manifest: &std::path::Path, dir: &std::path::Path, dangerous_without: &[String]) -> ExitCode {
    let up = up::Up::on_a_free_port(manifest.to_path_buf(), dir.to_path_buf(), dangerous_without.to_vec());
    up.run(Format::Json).unwrap_or_else(|failure| {
        failure.print();
        ExitCode::from(failure.code)
    })
}

/// Parses the command line and runs the command.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no mistakes.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // Nothing can be done when the terminal is gone.
            let _gone = error.print();
            return ExitCode::from(code);
        }
    };
    match done(arguments) {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn done(arguments: Arguments) -> Result<ExitCode, Failure> {
    let written = arguments.format;
    let format = if let Command::Breach(_) = arguments.command { Format::Text } else { written.plain()? };
    match arguments.command {
        Command::Up(up) => up.run(format),
        Command::Check(manifest) => files::check(&manifest.manifest, format),
        Command::Lock { manifest, dir } => files::lock(&manifest.manifest, &dir.dir, format),
        Command::Schema => files::schema(),
        Command::Audit(audit) => audit.run(format),
        Command::Sandbox(sandbox) => sandbox.run(format),
        Command::User(user) => user.run(format),
        Command::Key(key) => key.run(format),
        Command::Apply { manifest, dir } => files::apply(&manifest.manifest, &dir.dir, format),
        Command::Revoke { spiffe_id, dir } => people::revoke(&spiffe_id, &dir.dir, format),
        Command::Contain(contain) => contain.run(format),
        Command::Release(release) => release.run(format),
        Command::Metrics { openmetrics, dir } => metrics::metrics(&dir.dir, openmetrics, format),
        Command::Logs(logs) => logs.run(format),
        Command::Trace { trace, dir } => people::trace(&trace, &dir.dir),
        Command::Breach(breach) => breach.run(written),
        Command::Posture(posture) => posture.run(format),
        Command::Role { name } => Ok(crate::process::run_role(&name)),
        Command::Guard { service } => Ok(crate::process::run_guard(&service)),
        Command::Pdp { pep } => Ok(crate::process::run_pdp(&pep)),
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    code: u8,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// Shown with its places in the file.
    Placed(Box<miette::Report>),
    /// Shown as it is: paths and commands stay whole, so that they can be copied.
    Said(String),
}

impl Failure {
    /// Bad configuration or arguments.
    fn usage(error: impl miette::Diagnostic + Send + Sync + 'static) -> Self {
        Self { code: EXIT_USAGE, why: Why::Placed(Box::new(miette::Report::new(error))) }
    }
    /// With an exit code of its own.
    fn of(code: u8, text: impl std::fmt::Display) -> Self {
        Self { code, why: Why::Said(text.to_string()) }
    }
    /// Something did not work.
    fn failed(text: impl std::fmt::Display) -> Self {
        Self { code: 1, why: Why::Said(text.to_string()) }
    }
    fn print(&self) {
        match &self.why {
            Why::Placed(report) => complain(format_args!("{report:?}")),
            Why::Said(text) => complain(format_args!("error: {text}")),
        }
    }
}

impl From<crate::system::SystemError> for Failure {
    fn from(error: crate::system::SystemError) -> Self {
        use crate::system::SystemError;
        match error {
            SystemError::Manifest(error) => Self::usage(Problems(*error)),
            SystemError::Io { ref source, .. } => Self::failed(format_args!("{error}: {source}")),
            other => Self::failed(other),
        }
    }
}

/// Prints a line of an answer. A closed pipe ends the program quietly, as in other tools.
pub(crate) fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a line for people, beside the answer. Where nobody reads it, what is done goes on: the exit code still says how it ended.
pub(crate) fn complain(text: impl std::fmt::Display) {
    use std::io::Write;
    // A closed pipe is no reason to stop, and there is no other place to say so.
    let _unread = writeln!(std::io::stderr().lock(), "{text}");
}

/// A manifest's problems, each in its place, under one line that counts them.
#[derive(Debug)]
struct Problems(manifest::ManifestError);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.problems.len();
        write!(f, "the manifest has {count} {}; nothing was done", if count == 1 { "problem" } else { "problems" })
    }
}

impl std::error::Error for Problems {}

impl miette::Diagnostic for Problems {
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.0.source_code()
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        self.0.related()
    }
}

/// Runs a future of a command.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    Ok(runtime.block_on(future))
}
