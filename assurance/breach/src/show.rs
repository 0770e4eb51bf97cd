//! Reports for readers: a table for people, Markdown for pull requests, SARIF for tools, an SVG of the matrix.
//!
//! Guarantees: L8 (the first line is the answer), L9; the same report gives the same bytes.
//! Not here:   JSON (`Report::to_json`), files, the terminal.

mod markdown;
mod matrix;
mod sarif;
mod table;

pub use markdown::markdown;
pub use matrix::matrix;
pub use sarif::sarif;
pub use table::{absent, attacker, differences, table};

use std::collections::BTreeSet;

use crate::report::{Cell, Extent, Kind, Lasts, Profile, Radius, Report};

/// The answer to "what does an attacker reach who is this one", in one sentence.
#[must_use]
pub fn headline(report: &Report, profile: &Profile) -> String {
    let nothing = Radius::default();
    let radius = report.attackers.get(profile).unwrap_or(&nothing);
    let cells: Vec<&Cell> = radius.widest().into_keys().collect();
    let mut parts = Vec::new();
    let data =
        |kind: Kind, extent: Extent| cells.iter().filter(move |c| c.kind == kind && c.extent == extent && is_data(&c.target)).count();
    let (inputs, folders) = (data(Kind::Read, Extent::JobInput), data(Kind::Written, Extent::JobFolder));
    if radius.lasts == Lasts::Job {
        parts.push(counted(inputs, "input object", "input objects"));
        parts.push(counted(folders, "output folder", "output folders"));
    }
    for (extent, words) in [
        (Extent::Everybody, "everybody's data in"),
        (Extent::InFlight, "data of whoever is in flight in"),
        (Extent::Own, "its own data in"),
    ] {
        let targets: BTreeSet<&str> = cells
            .iter()
            .filter(|c| matches!(c.kind, Kind::Read | Kind::Written) && c.extent == extent)
            .map(|c| c.target.as_str())
            .filter(|target| is_data(target))
            .collect();
        if !targets.is_empty() {
            parts.push(format!("{words} {}", listed(&targets)));
        }
    }
    parts.push(counted(cells.iter().filter(|c| c.kind == Kind::Secret).count(), "secret", "secrets"));
    if let Profile::Service(name) = profile {
        parts.push(counted(report.lateral.reach(name), "other service", "other services"));
    }
    let outside: BTreeSet<&str> = cells.iter().filter(|c| c.kind == Kind::Egress).map(|c| c.target.as_str()).collect();
    parts.push(counted(outside.len(), "destination outside", "destinations outside"));
    let verb = if report.how == crate::report::How::Predicted { "reaches" } else { "was seen to reach" };
    format!("{} {verb} {}{}.", who(profile), parts.join(", "), until(radius.lasts))
}

/// Whether a target holds somebody's data.
fn is_data(target: &str) -> bool {
    ["bucket.", "state.", "service.", "plane."].iter().any(|kind| target.starts_with(kind))
}

/// An attacker, at the beginning of a sentence.
fn who(profile: &Profile) -> String {
    match profile {
        Profile::External => "Whoever has no credential".to_owned(),
        Profile::Person => "A signed-in person".to_owned(),
        Profile::Service(name) => format!("Whoever takes over `{name}`"),
        Profile::Insider => "An administrator".to_owned(),
        Profile::InsiderMfa => "An administrator with a second proof".to_owned(),
        Profile::Vendor => "Whoever has a partner's key".to_owned(),
    }
}

fn until(lasts: Lasts) -> &'static str {
    match lasts {
        Lasts::Job => "; it ends with the job",
        Lasts::Start => "; it lasts until the service is started again",
        Lasts::Credential => "",
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// The widest that is reached of anybody's data, for a column.
fn widest(radius: &Radius) -> String {
    let data = radius.widest().into_keys().filter(|c| matches!(c.kind, Kind::Read | Kind::Written) && is_data(&c.target));
    let widest = data.max_by_key(|cell| cell.extent);
    widest.map_or_else(|| "nobody's data".to_owned(), |cell| format!("{}: {}", cell.target, cell.extent.words()))
}

#[cfg(test)]
mod tests;
