//! Sandboxes: how long a start takes, and what a transcode costs beside the bare program (I13, I14, O11).
//!
//! What is measured is a program of crate `sandbox`, `benches/cost.rs`; here it is built, asked and read.

use std::process::Command;

use serde_json::Value;

use super::rig;
use crate::{Outcome, tree};

/// Starts of each kind.
const STARTS: u32 = 500;
/// Pairs of transcodes.
const PAIRS: u32 = 16;

/// Builds the program, runs it, prints tables, and gives the figures.
///
/// # Errors
/// When it cannot be built, or a sandbox does not start.
pub fn measure() -> Outcome<Value> {
    let program = rig::built("sandbox", "cost")?;
    println!("starting {STARTS} sandboxes of each kind, then {PAIRS} pairs of transcodes (five minutes)");
    let said = tree::output(Command::new(program).args([format!("starts={STARTS}"), format!("pairs={PAIRS}")]))?;
    let figures: Value = serde_json::from_str(said.trim())?;
    println!("\nFrom the wish to the program's exec, {STARTS} starts each (ms; the goal is 10 at p99)");
    for (what, times) in [("an init waits already", "milliseconds"), ("nothing waits", "nothing_waits_milliseconds")] {
        println!("  {what:<36} {:>10} {:>8} {:>8} {:>8} {:>8}", "KB", "p50", "p90", "p99", "worst");
        for kind in figures["starts"].as_array().into_iter().flatten() {
            let times = sorted(&kind[times]);
            let kilobytes = kind["program_bytes"].as_u64().unwrap_or_default() / 1000;
            let cells: String = [50, 90, 99, 100].iter().map(|part| format!(" {:>8.1}", percentile(&times, *part))).collect();
            println!("    {:<34} {kilobytes:>10}{cells}", kind["what"].as_str().unwrap_or_default());
        }
    }
    let (bare, boxed) = (seconds(&figures["transcodes"]["bare_s"]), seconds(&figures["transcodes"]["boxed_s"]));
    let mut ratios: Vec<f64> = boxed.iter().zip(&bare).map(|(boxed, bare)| boxed / bare).collect();
    ratios.sort_by(f64::total_cmp);
    println!("\nFFmpeg on 12 s of 720p, {} pairs (the goal is a ratio below 1.03)", ratios.len());
    println!("  bare {:.2} s, in a sandbox {:.2} s (medians)", middle(bare), middle(boxed));
    let [low, median, high] = [25, 50, 75].map(|part| percentile(&ratios, part));
    println!("  in a sandbox / bare, within pairs: {median:.3} (quartiles {low:.3} to {high:.3})");
    Ok(figures)
}

fn seconds(of: &Value) -> Vec<f64> {
    of.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn sorted(of: &Value) -> Vec<f64> {
    let mut all = seconds(of);
    all.sort_by(f64::total_cmp);
    all
}

fn middle(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    percentile(&of, 50)
}

/// The value below which that many hundredths are; the largest for 100, and nought of nothing.
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let all: Vec<f64> = (1..=500).map(f64::from).collect();
        assert_eq!([50, 90, 99, 100].map(|part| percentile(&all, part)), [251.0, 451.0, 496.0, 500.0]);
        assert_eq!(percentile(&[], 99), 0.0);
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
