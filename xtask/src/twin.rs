//! `cargo xtask twin`: the reference system and the same application as one process, side by side.
//!
//! Guarantees: L14, N8. Both pass the same suite, both are measured in the same way, and both are broken into by the same program in
//!             FFmpeg's place. Where the twin wins, the table says so.
//! Not here:   what follows from the figures (docs/twin.md).

pub mod broken_into;
pub mod figures;
pub mod monolith;
pub mod side;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::artefacts::Artefacts;
use crate::demo::Scratch;
use crate::functional::{self, Checked};
use crate::{Outcome, packages};
use broken_into::Reached;
use figures::{Crash, Figures};
use side::{Wanted, Which};

/// What to compare.
#[derive(Debug, Args)]
pub struct Comparison {
    /// One line of JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Folder with programs that are built already; absent: they are built as they ship.
    #[arg(long)]
    bin: Option<PathBuf>,
}

/// Everything that was seen of one side.
struct Seen {
    suite: Vec<Checked>,
    figures: Figures,
    crash: Crash,
    reached: Reached,
}

/// Runs the comparison and prints it.
///
/// # Errors
/// When a side does not come up, fails a check of the suite, or cannot be measured.
pub fn run(wanted: &Comparison) -> Outcome {
    for needs in [packages::RUN, packages::DEMO, packages::TEST, packages::BENCH] {
        packages::ensure(needs)?;
    }
    let built = match &wanted.bin {
        Some(bin) => Artefacts { bin: bin.canonicalize()? },
        None => Artefacts::build_for_release()?,
    };
    let (palisade, twin) = (seen(Which::Palisade, &built)?, seen(Which::Twin, &built)?);
    if wanted.json {
        println!("{}", json!({ "palisade": as_json(&palisade), "twin": as_json(&twin) }));
    } else {
        print!("{}", table(&palisade, &twin));
    }
    match [&palisade, &twin].iter().flat_map(|side| &side.suite).find_map(|check| Some((check.name, check.problem.as_ref()?))) {
        Some((name, problem)) => Err(format!("a check of the functional suite does not hold: {name}: {problem}").into()),
        None => Ok(()),
    }
}

fn seen(which: Which, built: &Artefacts) -> Outcome<Seen> {
    let scratch = Scratch::new()?;
    let side = Wanted { built, scratch: &scratch.0, stand_in: None }.start(which)?;
    let suite = functional::run(side.site(), &scratch.0)?;
    let figures = figures::measure(&side, &scratch.0)?;
    let crash = figures::crash(&side, &scratch.0)?;
    drop(side);
    let reached = broken_into::measure(which, built, &scratch.0)?;
    Ok(Seen { suite, figures, crash, reached })
}

fn as_json(seen: &Seen) -> Value {
    json!({ "suite": seen.suite, "figures": seen.figures, "crash": seen.crash, "reached": seen.reached })
}

/// A row: what, the reference system, the twin.
type Row = (String, String, String);

/// The table, as text.
fn table(palisade: &Seen, twin: &Seen) -> String {
    let row = |what: &str, of: &dyn Fn(&Seen) -> String| (what.to_owned(), of(palisade), of(twin));
    let mut rows: Vec<Row> = vec![
        row("functional suite, checks that hold", &|s| {
            format!("{} of {}", s.suite.iter().filter(|c| c.problem.is_none()).count(), s.suite.len())
        }),
        row("list, kept connection, p50 / p99 ms", &|s| times(s.figures.list)),
        row("upload of 1 MiB, p50 / p99 ms", &|s| times(s.figures.upload)),
        row("watch, p50 / p99 ms", &|s| times(s.figures.watch)),
        row("CPU for a request of the list, µs", &|s| format!("{:.0}", s.figures.request_cpu_us)),
        row("CPU for a video of 10 s, s", &|s| format!("{:.2}", s.figures.video_cpu_s)),
        row("a video of 10 s, until ready, s", &|s| format!("{:.1}", s.figures.video_s)),
        row("memory, idle, MiB", &|s| s.figures.idle_bytes.map_or_else(|| "root only".to_owned(), |b| format!("{}", b >> 20))),
        row("processes, idle", &|s| s.figures.processes.to_string()),
        row("ports for anybody / for peers with a certificate", &|s| format!("{} / {}", s.figures.ports.0, s.figures.ports.1)),
    ];
    for asset in &palisade.reached.assets {
        rows.push(row(&format!("code in FFmpeg's place: {asset}"), &|s| asset_reached(&s.reached, asset)));
    }
    rows.push(row("code in FFmpeg's place: doors outside", &|s| listed(&s.reached.doors)));
    rows.push(row("code in FFmpeg's place: memory of", &|s| listed(&s.reached.memories)));
    rows.push(row("kill -9 of what transcodes: process", &|s| s.crash.killed.clone()));
    rows.push(row("kill -9 of what transcodes: requests failed", &|s| format!("{} of {}", s.crash.failed, s.crash.asked)));
    rows.push(row("kill -9 of what transcodes: the video", &|s| {
        if s.crash.video_ready { "gets ready" } else { "waits for a restart" }.to_owned()
    }));
    let mut text = format!(
        "| {:<52} | {:<28} | {:<34} |\n|{}|{}|{}|\n",
        "",
        "taken apart, under Palisade",
        "one process",
        "-".repeat(54),
        "-".repeat(30),
        "-".repeat(36)
    );
    for (what, palisade, twin) in rows {
        text.push_str(&format!("| {what:<52} | {palisade:<28} | {twin:<34} |\n"));
    }
    text
}

fn times(times: figures::Times) -> String {
    format!("{:.2} / {:.2}", times.p50_ms, times.p99_ms)
}

fn asset_reached(reached: &Reached, asset: &str) -> String {
    let read = reached.read.iter().find(|(name, _)| name == asset).map(|(_, count)| *count);
    match (read, reached.changed.iter().any(|name| name == asset)) {
        (None, false) => "nothing".to_owned(),
        (None, true) => "changes".to_owned(),
        (Some(count), changed) => format!("reads {count} files{}", if changed { ", changes" } else { "" }),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
