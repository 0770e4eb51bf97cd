//! For pull requests: what a change means, in a comment.

use std::fmt::Write as _;

use super::headline;
use crate::compare::{Between, Change, Comparison};
use crate::report::sight::sights;
use crate::report::theft::lines;
use crate::report::{Kind, Report};

/// The report, and what differs if something was compared.
#[must_use]
pub fn markdown(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut out = format!("## Blast radius of `{}`\n\n", report.system);
    if let Some(comparison) = comparison {
        changes(&mut out, comparison);
    }
    out.push_str("| attacker | reads | writes | does | secrets | outside | disturbs |\n|---|---|---|---|---|---|---|\n");
    for (profile, radius) in &report.attackers {
        let n = |kind| radius.of(kind).count();
        let [r, w, d, s, e, t] = [Kind::Read, Kind::Written, Kind::Done, Kind::Secret, Kind::Egress, Kind::Disturbed].map(n);
        let _ = writeln!(out, "| `{profile}` | {r} | {w} | {d} | {s} | {e} | {t} |");
    }
    out.push('\n');
    for profile in report.attackers.keys() {
        let _ = writeln!(out, "- {}", headline(report, profile));
    }
    for (service, flows) in &report.unserved {
        let flows = flows.iter().map(|flow| format!("`{}`", escaped(flow))).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "- `{service}` declares {flows}: served by nothing yet, so nobody reaches anything by it.");
    }
    if !report.thefts.is_empty() {
        out.push_str("\n| stolen | shown | came of it |\n|---|---|---|\n");
        for (artefact, contexts, came) in lines(&report.thefts) {
            let _ = writeln!(out, "| {} | {} | {} |", escaped(artefact), escaped(&contexts.join("; ")), escaped(&came));
        }
    }
    if !report.attempts.is_empty() {
        out.push_str("\n| technique | ATT&CK | told of within a second | as |\n|---|---|---|---|\n");
        for one in sights(report) {
            let (id, attack, words) = (&one.technique.id, &one.technique.attack, one.words());
            let _ = writeln!(out, "| `{id}` | {attack} | {words} | {} |", one.events.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
    let _ = writeln!(out, "\nManifest `{}`.", report.manifest);
    out
}

fn changes(out: &mut String, comparison: &Comparison) {
    if comparison.differences.is_empty() {
        out.push_str(match comparison.between {
            Between::Measurement => "Prediction and measurement agree in every cell.\n\n",
            Between::Part => "What was tried reached nothing that was not predicted.\n\n",
            Between::Revisions => "Nobody reaches more or less than before.\n\n",
        });
        return;
    }
    out.push_str("| | for whom | what | by |\n|---|---|---|---|\n");
    for difference in &comparison.differences {
        let sign = if difference.change == Change::Added { "**+**" } else { "−" };
        let by = difference.by.iter().map(|id| format!("`{}`", escaped(id))).collect::<Vec<_>>().join(" ");
        let sentence = escaped(&difference.sentence(comparison.between));
        let _ = writeln!(out, "| {sign} | `{}` | {sentence} | {by} |", difference.profile);
    }
    out.push('\n');
}

/// A text within a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
