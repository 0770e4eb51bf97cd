//! `palisade sandbox`: which layers apply here, and why.

use std::process::ExitCode;

use manifest::Isolation;

use super::up::Up;
use super::{Failure, Format, ManifestArgument, say};
use crate::system::Applied;

/// Exit code when a service's required level cannot be reached here.
const EXIT_UNREACHED: u8 = 2;

/// Sandboxes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sandbox {
    /// Print which layers of isolation this host gives a service, and why; and what the service may have.
    Explain {
        /// The service.
        service: String,
        #[command(flatten)]
        manifest: ManifestArgument,
    },
    /// Run the system as `up` does, with the system calls of one service traced; when it ends, write them as that service's list.
    Trace {
        /// The service.
        service: String,
        #[command(flatten)]
        up: Up,
    },
}

/// The answer to a name that the manifest does not have.
pub(super) fn unknown(applied: &Applied, name: &str) -> Failure {
    let known: Vec<&str> = applied.manifest.services.keys().map(String::as_str).collect();
    Failure::failed(format_args!("the manifest has no service {name}; it has {}", known.join(", ")))
}

/// The system calls that a service's list allows, or the general list.
fn calls(applied: &Applied, service: &manifest::Service) -> Result<sandbox::Calls, Failure> {
    let Some(list) = &service.syscalls else { return Ok(sandbox::Calls::General) };
    let text =
        std::fs::read_to_string(applied.search.folder.join(list)).map_err(|error| Failure::failed(format_args!("{list}: {error}")))?;
    sandbox::Calls::parse(&text).map_err(|error| Failure::failed(format_args!("{list}: {error}")))
}

impl Sandbox {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        match self {
            Self::Explain { service, manifest } => explain(&service, &manifest, format),
            Self::Trace { service, up } => super::syscalls::trace(&service, up, format),
        }
    }
}

fn explain(name: &str, manifest: &ManifestArgument, format: Format) -> Result<ExitCode, Failure> {
    let applied = Applied::open(&manifest.manifest)?;
    let service = applied.manifest.services.get(name).ok_or_else(|| unknown(&applied, name))?;
    let calls = calls(&applied, service)?;
    let required = match service.isolation {
        Isolation::Full => sandbox::Level::Full,
        Isolation::Confined => sandbox::Level::Confined,
    };
    let report = sandbox::probe();
    let reached = report.level.is_some_and(|level| level >= required);
    if format == Format::Json {
        let limits = &service.limits;
        say(
            serde_json::json!({ "service": name, "required": required, "reached": reached, "report": report, "limits": limits, "tools": service.tools,
                    "syscalls": { "allowed": calls.count(), "general": sandbox::Calls::General.count(), "list": service.syscalls } }),
        );
    } else {
        say(format_args!(
            "{name} requires the level `{}`; this host {}.\n",
            level_name(required),
            if reached { "gives it" } else { "does not give it: it would refuse to start" }
        ));
        say(&report);
        let flows: Vec<String> = service.flows.iter().map(ToString::to_string).collect();
        say(format_args!("it runs      {}", service.run.join(" ")));
        say(format_args!("tools        {}", or_none(&service.tools.iter().cloned().collect::<Vec<_>>())));
        say(format_args!("flows        {}", or_none(&flows)));
        say(format_args!("calls        {}", calls.describe()));
        say(format_args!("built by     {}", if service.sandbox == manifest::Backend::Bwrap { "bubblewrap" } else { "Palisade" }));
        say(format_args!("own folder   {}", if service.state { "yes" } else { "none" }));
    }
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNREACHED) })
}

fn level_name(level: sandbox::Level) -> &'static str {
    match level {
        sandbox::Level::Full => "full",
        sandbox::Level::Confined => "confined",
    }
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}
