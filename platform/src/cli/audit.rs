//! `palisade audit`: look whether the log is what it was.

use std::path::PathBuf;
use std::process::ExitCode;

use evidence::note::VerifierKey;

use super::{DirArgument, Failure, Format, say};
use crate::roles::evidence::{anchor_file, log_folder};
use crate::system::Layout;

/// Exit code when the log was tampered with.
const EXIT_TAMPERED: u8 = 2;

/// The audit log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Audit {
    /// Find an edit, a drop, a reorder or a truncation; works on a running system's log and on a copy.
    Verify {
        #[command(flatten)]
        dir: DirArgument,
        /// The verifier key (`NAME+HASH+BASE64`); default: the one in the system's folder. Keep a copy elsewhere.
        #[arg(long)]
        key: Option<String>,
        /// The folder of the log, instead of the system's.
        #[arg(long, value_name = "FOLDER")]
        log: Option<PathBuf>,
        /// The anchor's file, instead of the system's.
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
    },
}

impl Audit {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        let Self::Verify { dir, key, log, anchor } = self;
        let layout = Layout { dir: dir.dir };
        let key = match key {
            Some(key) => key,
            None => {
                let path = layout.audit_key();
                std::fs::read_to_string(&path)
                    .map_err(|e| Failure::failed(format_args!("no verifier key at {}: {e}; name one with --key", path.display())))?
            }
        };
        let key: VerifierKey = key.trim().parse().map_err(|e| Failure::failed(format_args!("the verifier key is none: {e}")))?;
        let log = log.unwrap_or_else(|| log_folder(&layout.data("evidence")));
        let anchor = anchor.unwrap_or_else(|| anchor_file(&layout.data("anchor")));
        let report = evidence::log::verify(&log, &key, Some(&anchor))
            .map_err(|e| Failure::failed(format_args!("the log in {} cannot be read: {e}", log.display())))?;
        match format {
            Format::Json => say(serde_json::to_string(&report).map_err(Failure::failed)?),
            Format::Text => say(&report),
        }
        Ok(if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_TAMPERED) })
    }
}
