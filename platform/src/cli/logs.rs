//! `palisade logs`: the access log, filtered, and followed if wanted. It reads the files themselves, so it works when nothing runs.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::{DirArgument, Failure, Format, block_on, say};
use crate::access_log::files_of;
use crate::system::Layout;

/// How often files are looked at that are followed.
const LOOK: Duration = Duration::from_millis(200);
/// Longest line that is read; what is longer is none of ours.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The access log: a line for each request, oldest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Requests to this service alone, as in `api`; also `login`, `objects`, `edge` for its own pages.
    #[arg(long)]
    service: Option<String>,
    /// Requests of this person alone, by id as `user list` prints it.
    #[arg(long)]
    person: Option<String>,
    /// Requests with this status alone, as in `404` or `5xx`; may be given several times.
    #[arg(long = "status", value_parser = Status::parse)]
    statuses: Vec<Status>,
    /// Requests of this trace alone.
    #[arg(long)]
    trace: Option<String>,
    /// Requests whose path begins so.
    #[arg(long)]
    path: Option<String>,
    /// Refused requests alone.
    #[arg(long)]
    denied: bool,
    /// The last so many alone.
    #[arg(long, short = 'n', value_name = "LINES")]
    last: Option<usize>,
    /// Go on with what comes.
    #[arg(long, short)]
    follow: bool,
    /// The log of this guard instead of the edge's, as in `api`, or `api.2` for its second replica.
    #[arg(long)]
    guard: Option<String>,
    #[command(flatten)]
    dir: DirArgument,
}

/// A status, or a class of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    least: u64,
    most: u64,
}

impl Status {
    fn parse(text: &str) -> Result<Self, String> {
        let help = || format!("'{text}' is no status; write one as in 404, or a class as in 5xx");
        if let Some(class) = text.strip_suffix("xx") {
            let hundreds: u64 = class.parse().ok().filter(|h| (1..=5).contains(h)).ok_or_else(help)?;
            return Ok(Self { least: hundreds.saturating_mul(100), most: hundreds.saturating_mul(100).saturating_add(99) });
        }
        let one: u64 = text.parse().ok().filter(|s| (100..=599).contains(s)).ok_or_else(help)?;
        Ok(Self { least: one, most: one })
    }
}

impl Logs {
    pub(super) fn run(self, format: Format) -> Result<ExitCode, Failure> {
        let folder = Layout { dir: self.dir.dir.clone() }.access_logs();
        let door = self.guard.as_ref().map_or_else(|| "edge".to_owned(), |guard| format!("guard-{guard}"));
        if !self.follow && files_of(&folder, &door).is_empty() {
            return Err(Failure::failed(format_args!(
                "there is no access log of {door} in {}: has it run, and for a guard, does its service say access_log = true?",
                folder.display()
            )));
        }
        let mut reader = Reader { folder, door, file: None, done: None };
        let mut kept = std::collections::VecDeque::new();
        reader.each(|line| {
            if !self.wants(&line) {
                return;
            }
            match self.last {
                Some(last) => {
                    kept.push_back(line);
                    if kept.len() > last {
                        kept.pop_front();
                    }
                }
                None => print(&line, format),
            }
        })?;
        kept.iter().for_each(|line| print(line, format));
        if self.follow {
            block_on(async {
                // Until somebody ends it.
                loop {
                    tokio::time::sleep(LOOK).await;
                    reader.each(|line| {
                        if self.wants(&line) {
                            print(&line, format);
                        }
                    })?;
                }
            })?
        } else {
            Ok(ExitCode::SUCCESS)
        }
    }

    fn wants(&self, line: &Value) -> bool {
        let is = |name: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| line[name].as_str() == Some(wanted));
        let status = line["status"].as_u64().unwrap_or_default();
        is("service", &self.service)
            && is("person", &self.person)
            && is("trace", &self.trace)
            && (self.statuses.is_empty() || self.statuses.iter().any(|one| (one.least..=one.most).contains(&status)))
            && self.path.as_ref().is_none_or(|path| line["path"].as_str().unwrap_or_default().starts_with(path.as_str()))
            && (!self.denied || line["decision"] == "deny")
    }
}

/// For eyes: time, status, duration, what, where, who, why not, trace. What was written is clean already (`telemetry::access`).
fn print(line: &Value, format: Format) {
    if format == Format::Json {
        return say(line);
    }
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let refused = if text("reason").is_empty() { String::new() } else { format!(" refused={}", text("reason")) };
    say(format_args!(
        "{} {} {:>9.3}ms {} {} {} {} {}{refused} {}",
        text("time"),
        line["status"],
        line["duration_ms"].as_f64().unwrap_or_default(),
        text("method"),
        text("path"),
        or(text("service"), "-"),
        or(text("person"), text("shown")),
        or(text("address"), text("caller")),
        text("trace"),
    ));
}

/// Reads one door's files in order, and remembers how far it has come.
#[derive(Debug)]
struct Reader {
    folder: PathBuf,
    door: String,
    file: Option<(PathBuf, BufReader<File>, Vec<u8>)>,
    /// The last file that was read to its end with a newer one beside it.
    done: Option<PathBuf>,
}

impl Reader {
    /// Each line that has come since the last time.
    fn each(&mut self, mut act: impl FnMut(Value)) -> Result<(), Failure> {
        loop {
            let newer = self.newer();
            if let Some((path, file, torn)) = &mut self.file {
                lines(file, torn, &mut act).map_err(|error| unreadable(path, &error))?;
                // A newer file was there before this one was read to its end: nothing more will come here.
                if newer.is_none() {
                    return Ok(());
                }
                self.done = self.file.take().map(|(path, ..)| path);
            }
            let Some(path) = newer else { return Ok(()) };
            match File::open(&path) {
                Ok(file) => self.file = Some((path, BufReader::new(file), Vec::new())),
                // It was the oldest, and has gone in between.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.done = Some(path),
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
    }

    fn newer(&self) -> Option<PathBuf> {
        let than = self.file.as_ref().map(|(path, ..)| path).or(self.done.as_ref());
        files_of(&self.folder, &self.door).into_iter().find(|path| than.is_none_or(|than| path > than))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{} cannot be read: {error}", path.display()))
}

/// Whole lines that are there; one that is not whole waits in `torn`.
fn lines(file: &mut BufReader<File>, torn: &mut Vec<u8>, act: &mut impl FnMut(Value)) -> std::io::Result<()> {
    loop {
        if file.read_until(b'\n', torn)? == 0 {
            return Ok(());
        }
        if torn.last() != Some(&b'\n') {
            if torn.len() > LINE_BYTES_MAX {
                torn.clear();
            }
            continue;
        }
        if let Ok(line) = serde_json::from_slice(torn) {
            act(line);
        }
        torn.clear();
    }
}

#[cfg(test)]
mod tests;
