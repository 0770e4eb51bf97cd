//! The matrix of lateral movement as a picture: a row for each service that was taken over, a column for each that it could call.
//!
//! Colours follow the reader's scheme, light or dark; what a cell means is also written in it, so that no colour alone says anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::report::{Extent, Kind, Profile, Report};

const CELL_W: usize = 96;
const CELL_H: usize = 34;
const LEFT: usize = 150;
const TOP: usize = 92;
const GAP: usize = 3;
/// Columns behind the services: what is reached besides.
const BESIDES: &[(&str, &[Kind])] =
    &[("everybody's data", &[Kind::Read, Kind::Written]), ("secrets", &[Kind::Secret]), ("outside", &[Kind::Egress])];

const STYLE: &str = "<style>\
.b{fill:#ffffff}.t{fill:#1c2330;font:13px system-ui,sans-serif}.q{fill:#5b6472;font:12px system-ui,sans-serif}\
.n{fill:#eef1f5}.y{fill:#f3b44b}.r{fill:#e5604d}.s{fill:none;stroke:#c9d0d9;stroke-dasharray:3 3}\
.c{font:600 13px system-ui,sans-serif;fill:#1c2330}\
@media (prefers-color-scheme:dark){.b{fill:#12161d}.t{fill:#e6eaf0}.q{fill:#9aa5b4}.n{fill:#1e2530}.s{stroke:#3a4454}}\
</style>";

/// The picture, as SVG.
#[must_use]
pub fn matrix(report: &Report) -> String {
    let names: Vec<&str> = report.services.iter().map(String::as_str).collect();
    let columns = names.len().saturating_add(BESIDES.len());
    let step = |n: usize, by: usize| n.saturating_mul(by.saturating_add(GAP));
    let (width, height) = (LEFT + step(columns, CELL_W) + 24, TOP + step(names.len(), CELL_H) + 44);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"Which service can call which, once it is taken over\">{STYLE}<rect class=\"b\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    let _ = writeln!(
        out,
        "<text class=\"t\" x=\"16\" y=\"28\" font-weight=\"600\">{}: who owns the row reaches the column</text>",
        escaped(&report.system)
    );
    let _ = writeln!(out, "<text class=\"q\" x=\"16\" y=\"48\">numbers are routes that can be called, or things that are reached</text>");
    for (i, name) in names.iter().copied().chain(BESIDES.iter().map(|(name, _)| *name)).enumerate() {
        let x = LEFT + step(i, CELL_W) + besides(i, names.len()) + CELL_W / 2;
        let class = if i < names.len() { "t" } else { "q" };
        let _ =
            writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>", TOP - 12, escaped(&short(name)));
    }
    for (row, from) in names.iter().enumerate() {
        let y = TOP + step(row, CELL_H);
        let _ =
            writeln!(out, "<text class=\"t\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LEFT - 12, y + 22, escaped(&short(from)));
        for (column, to) in names.iter().enumerate() {
            let x = LEFT + step(column, CELL_W);
            let routes = report.lateral.routes(from, to);
            let tip = match routes {
                Some(routes) => format!("{from} can call {to}: {}", routes.iter().cloned().collect::<Vec<_>>().join(", ")),
                None if from == to => format!("{from} itself"),
                None => format!("{from} cannot call {to}"),
            };
            let (class, text) = if from == to { ("s", String::new()) } else { shade(routes.map_or(0, BTreeSet::len), "y") };
            square(&mut out, (x, y), class, &text, &tip);
        }
        for (column, (name, kinds)) in BESIDES.iter().enumerate() {
            let x = LEFT + step(names.len() + column, CELL_W) + besides(names.len(), names.len());
            let things = things(report, from, kinds);
            let (class, text) = shade(things.len(), "r");
            let list = if things.is_empty() { "none".to_owned() } else { things.into_iter().collect::<Vec<_>>().join(", ") };
            square(&mut out, (x, y), class, &text, &format!("{from}, {name}: {list}"));
        }
    }
    let how = if report.how == crate::report::How::Predicted { "predicted from the manifest; nothing ran" } else { "measured by attack" };
    let _ = writeln!(out, "<text class=\"q\" x=\"16\" y=\"{}\">{how}</text>\n</svg>", height - 14);
    out
}

/// Things of those kinds that somebody reaches; of data only everybody's.
fn things(report: &Report, service: &str, kinds: &[Kind]) -> BTreeSet<String> {
    let radius = report.attackers.get(&Profile::Service(service.to_owned()));
    let cells = radius.into_iter().flat_map(|radius| radius.widest().into_keys());
    let data = |kind: Kind| matches!(kind, Kind::Read | Kind::Written);
    let counted = cells.filter(|cell| kinds.contains(&cell.kind) && (!data(cell.kind) || cell.extent == Extent::Everybody));
    counted.map(|cell| cell.target.clone()).collect()
}

fn besides(column: usize, services: usize) -> usize {
    if column >= services { 18 } else { 0 }
}

fn shade(count: usize, class: &'static str) -> (&'static str, String) {
    if count == 0 { ("n", String::new()) } else { (class, count.to_string()) }
}

fn square(out: &mut String, (x, y): (usize, usize), class: &str, text: &str, tip: &str) {
    let _ = write!(
        out,
        "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{CELL_W}\" height=\"{CELL_H}\" rx=\"4\"/>",
        escaped(tip)
    );
    if !text.is_empty() {
        let _ = write!(out, "<text class=\"c\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", x + CELL_W / 2, y + 22);
    }
    out.push_str("</g>\n");
}

/// What fits above a column.
fn short(name: &str) -> String {
    if name.chars().count() <= 16 { name.to_owned() } else { name.chars().take(15).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
