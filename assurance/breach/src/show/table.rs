//! For people at a terminal: at most 110 columns, plain words, the answer first.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{headline, widest};
use crate::compare::Comparison;
use crate::report::sight::{Sight, sights};
use crate::report::theft::lines;
use crate::report::{Extent, How, Kind, Measured, Pace, Profile, Report, SLOWER_FACTOR, SLOWER_MS, words};
use crate::technique::Outcome;

/// Columns at most.
const WIDTH: usize = 108;

/// The whole report.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    wrapped(&mut out, "", &answer(report));
    out.push('\n');
    let _ = writeln!(
        out,
        "{:<20}{:>6}{:>7}{:>5}{:>8}{:>8}{:>9}  the widest",
        "attacker", "reads", "writes", "does", "secrets", "outside", "disturbs"
    );
    for (profile, radius) in &report.attackers {
        let n = |kind| radius.of(kind).count();
        let _ = writeln!(
            out,
            "{:<20}{:>6}{:>7}{:>5}{:>8}{:>8}{:>9}  {}",
            profile.to_string(),
            n(Kind::Read),
            n(Kind::Written),
            n(Kind::Done),
            n(Kind::Secret),
            n(Kind::Egress),
            n(Kind::Disturbed),
            widest(radius)
        );
    }
    out.push('\n');
    for profile in report.attackers.keys() {
        wrapped(&mut out, "", &headline(report, profile));
    }
    movement(&mut out, report);
    alone(&mut out, report);
    unserved(&mut out, report);
    neighbours(&mut out, report);
    thefts(&mut out, report);
    attempts(&mut out, report);
    circumstances(&mut out, report);
    out
}

/// How strong the sandboxes were, and how long it took.
fn circumstances(out: &mut String, report: &Report) {
    let level =
        |(name, at): (&String, &Measured)| format!("{name} {}", at.at.iter().map(|level| words(*level)).collect::<Vec<_>>().join(" and "));
    let levels: Vec<String> = report.isolation.iter().map(level).collect();
    if !levels.is_empty() {
        wrapped(out, "\nmeasured at isolation: ", &levels.join(", "));
    }
    for unshown in report.isolation.iter().filter_map(|(name, at)| at.unshown(name)) {
        wrapped(out, "", &unshown);
    }
    if let Some(took) = &report.took {
        let _ = writeln!(out, "predicted in {} ms, measured in {} s", took.prediction_ms, took.suite_ms / 1000);
    }
}

/// One sentence for the whole system.
fn answer(report: &Report) -> String {
    let services: Vec<_> =
        report.attackers.iter().filter_map(|(p, r)| if let Profile::Service(name) = p { Some((name.as_str(), r)) } else { None }).collect();
    let of_everybody: BTreeSet<&str> = services
        .iter()
        .filter(|(_, r)| r.reached.keys().any(|c| matches!(c.kind, Kind::Read | Kind::Written) && c.extent == Extent::Everybody))
        .map(|(name, _)| *name)
        .collect();
    let with = |kind: Kind| services.iter().filter(|(_, r)| r.of(kind).next().is_some()).count();
    let everybody = if of_everybody.is_empty() { String::new() } else { format!(" ({})", super::listed(&of_everybody)) };
    let how = if report.how == How::Predicted { "Predicted; nothing ran." } else { "Measured by attack." };
    format!(
        "Of the {} services of {}, once taken over, {} can reach everybody's data{everybody}, {} a secret, {} the outside, {} another service. {how}",
        services.len(),
        report.system,
        of_everybody.len(),
        with(Kind::Secret),
        with(Kind::Egress),
        services.iter().filter(|(name, _)| report.lateral.reach(name) > 0).count(),
    )
}

/// One attacker, cell by cell.
#[must_use]
pub fn attacker(report: &Report, profile: &Profile) -> String {
    let mut out = String::new();
    wrapped(&mut out, "", &headline(report, profile));
    let Some(radius) = report.attackers.get(profile) else { return out };
    out.push('\n');
    for kind in Kind::ALL {
        for (i, cell) in radius.of(*kind).enumerate() {
            let heading = if i == 0 { kind.words() } else { "" };
            let what = if cell.action.is_empty() { cell.target.clone() } else { format!("{} {}", cell.target, cell.action) };
            let extent = if matches!(kind, Kind::Secret | Kind::Disturbed) { "" } else { cell.extent.words() };
            let _ = writeln!(out, "  {heading:<9} {what:<52} {extent}");
        }
    }
    let behind: Vec<_> = report.deputies.iter().filter(|deputy| deputy.profile == *profile).collect();
    if !behind.is_empty() {
        out.push_str("\n  With a second weakness, others could be made to do this with the authority in hand:\n");
        for deputy in behind {
            let _ = writeln!(out, "  {:<20} {:<8} {}", deputy.via, deputy.cell.kind.words(), deputy.cell);
        }
    }
    let alone: Vec<_> = report
        .defence
        .iter()
        .flat_map(|p| p.alone.iter().filter(|(_, who)| who.contains(profile)).map(move |(control, _)| (control, &p.target)))
        .collect();
    if !alone.is_empty() {
        out.push_str("\n  Behind one control alone:\n");
        for (control, target) in alone {
            wrapped(&mut out, &format!("  {target:<40} {control}: "), control.words());
        }
    }
    out
}

/// What differs, a line each.
#[must_use]
pub fn differences(comparison: &Comparison) -> String {
    let mut out = String::new();
    for difference in &comparison.differences {
        wrapped(&mut out, &format!("{:<22} ", difference.rule(comparison.between)), &difference.sentence(comparison.between));
    }
    out
}

/// What came of the controls that were switched off.
#[must_use]
pub fn absent(report: &Report) -> String {
    let mut out = String::new();
    for one in &report.absent {
        let at = one.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let found = if one.is_found() { "found" } else { "NOT FOUND" };
        let _ = writeln!(out, "without {}{at}: {found}", one.control);
        for noticed in &one.noticed {
            wrapped(&mut out, "  seen missing   ", noticed);
        }
        for stands in &one.stands {
            wrapped(&mut out, "  it stands      ", stands);
        }
        for beyond in &one.reached {
            let listed = match (beyond.listed, beyond.unsure) {
                (true, _) => "behind it alone",
                (false, false) => "NOT LISTED as behind it alone",
                (false, true) => "perhaps because of another that is missing, too: leave out one at a time",
            };
            let by = beyond.by.iter().cloned().collect::<Vec<_>>().join(", ");
            wrapped(
                &mut out,
                "  reached        ",
                &format!("{} {} {} ({listed}; {by})", beyond.profile, beyond.cell.kind.words(), beyond.cell),
            );
        }
        for (technique, by) in &one.stopped {
            let by = by.iter().map(|control| control.as_str()).collect::<Vec<_>>().join(", ");
            wrapped(&mut out, "  still stopped  ", &format!("{technique} by {by}"));
        }
    }
    out
}

fn movement(out: &mut String, report: &Report) {
    out.push_str("\nlateral movement: routes that the row can call of the column\n");
    let names: Vec<&str> = report.services.iter().map(String::as_str).collect();
    let width = names.iter().map(|n| n.len()).max().unwrap_or_default().clamp(6, 24) + 2;
    if width.saturating_mul(names.len().saturating_add(1)) > WIDTH {
        // Too many for columns: what there is, as a list.
        for (from, row) in &report.lateral.0 {
            for (to, routes) in row {
                let _ = writeln!(out, "  {from} -> {to}: {}", routes.iter().cloned().collect::<Vec<_>>().join(", "));
            }
        }
        return;
    }
    let _ = writeln!(out, "{:<width$}{}", "", names.iter().map(|n| format!("{n:>width$}")).collect::<String>());
    for from in &names {
        let cell = |to: &&str| match report.lateral.routes(from, to) {
            _ if from == to => format!("{:>width$}", "-"),
            Some(routes) => format!("{:>width$}", routes.len()),
            None => format!("{:>width$}", "."),
        };
        let _ = writeln!(out, "{from:<width$}{}", names.iter().map(cell).collect::<String>());
    }
}

fn alone(out: &mut String, report: &Report) {
    let lines: Vec<_> = report.defence.iter().flat_map(|p| p.alone.iter().map(move |(control, who)| (&p.target, control, who))).collect();
    if report.defence.is_empty() {
        return;
    }
    let deep = report.defence.iter().filter(|p| p.alone.is_empty()).count();
    let _ = writeln!(
        out,
        "\ndefence in depth: {deep} of {} things have two controls or more everywhere; behind one alone:",
        report.defence.len()
    );
    for (target, control, who) in lines {
        let names = who.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        wrapped(out, &format!("  {target:<36} {:<18} ", control.as_str()), &names);
    }
}

fn neighbours(out: &mut String, report: &Report) {
    if report.neighbours.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\nothers' requests while one uses up all that it can, and in quiet: ms at the median / at the 95th percentile, errors\n  \
         (disturbed: more errors, or a 95th percentile over {SLOWER_FACTOR} times that in quiet and over {SLOWER_MS} ms)"
    );
    for one in &report.neighbours {
        let pace = |pace: &Pace| format!("{} / {}, {} of {}", pace.p50_ms, pace.p95_ms, pace.errors, pace.requests);
        let verdict = if one.is_disturbed() { "  disturbed" } else { "" };
        let (who, quiet, during) = (one.profile.to_string(), pace(&one.quiet), pace(&one.during));
        let _ = writeln!(out, "  {who:<22}{:<16}{during:>22}   quiet {quiet:>20}{verdict}", one.neighbour);
    }
}

fn unserved(out: &mut String, report: &Report) {
    if report.unserved.is_empty() {
        return;
    }
    out.push_str("\ndeclared, and served by nothing yet, so that nobody reaches anything by it\n");
    for (service, flows) in &report.unserved {
        wrapped(out, &format!("  {service}: "), &flows.iter().cloned().collect::<Vec<_>>().join(", "));
    }
}

fn thefts(out: &mut String, report: &Report) {
    if report.thefts.is_empty() {
        return;
    }
    out.push_str("\nwhat was stolen, where it was shown, and what came of that\n");
    for (artefact, contexts, came) in lines(&report.thefts) {
        wrapped(out, &format!("  {artefact:<38} {came:<30} "), &contexts.join("; "));
    }
}

fn attempts(out: &mut String, report: &Report) {
    if report.attempts.is_empty() {
        return;
    }
    let of = |f: fn(&Outcome) -> bool| report.attempts.iter().filter(|a| f(&a.outcome)).count();
    let _ = writeln!(
        out,
        "\n{} tries of {} techniques: {} stopped, {} worked, {} could not be tried",
        report.attempts.len(),
        report.techniques.len(),
        of(|o| matches!(o, Outcome::Stopped { .. })),
        of(|o| matches!(o, Outcome::Reached)),
        of(|o| matches!(o, Outcome::Untried { .. }))
    );
    let sights = sights(report);
    let looked: Vec<&Sight<'_>> = sights.iter().filter(|one| one.of > 0).collect();
    let named = |is: fn(&Sight<'_>) -> bool| {
        let names: Vec<&str> = looked.iter().copied().filter(|one| is(one)).map(|one| one.technique.id.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let whole = looked.iter().filter(|one| one.by == one.of).count();
    let _ = writeln!(out, "told of by the audit log within a second: {whole} of the {} techniques that were stopped", looked.len());
    wrapped(out, "  of some attackers only: ", &named(|one| one.by > 0 && one.by < one.of));
    wrapped(out, "  not told of: ", &named(|one| one.by == 0));
    for (service, calls) in &report.beyond {
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        let calls = if calls.is_empty() { "none".to_owned() } else { calls.join(", ") };
        wrapped(out, &format!("  system calls beyond the list of {service}: "), &calls);
    }
    for attempt in &report.attempts {
        if let Outcome::Untried { why } = &attempt.outcome {
            wrapped(out, &format!("  {} {}: ", attempt.profile, attempt.technique), why);
        }
    }
}

/// `first`, then `text` broken at words, with what follows indented.
fn wrapped(out: &mut String, first: &str, text: &str) {
    let indent = first.chars().count().min(60);
    let (mut line, mut used) = (first.to_owned(), first.chars().count());
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > indent && used.saturating_add(length) > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(indent.max(2));
            used = line.len();
        }
        line.push_str(word);
        line.push(' ');
        used = used.saturating_add(length).saturating_add(1);
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
