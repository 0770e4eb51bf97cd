//! What an attacker reaches, as the last breach has it: a line for each attacker, and who can call whom.

use askama::Template;
use contract::console::{BreachLine, BreachTold, MapFacts};

use crate::page::{Page, message};
use crate::phrase;

#[derive(Template)]
#[template(path = "breach.html")]
struct BreachPage<'a> {
    how: &'static str,
    at: String,
    /// It is about another manifest than the one that is in force.
    old: bool,
    lines: &'a [BreachLine],
    services: &'a [String],
    rows: Vec<Row<'a>>,
    differences: &'a [String],
    measured: bool,
}

/// A row of the matrix: who was taken over, and a cell for each service.
struct Row<'a> {
    name: &'a str,
    cells: Vec<Spot>,
}

struct Spot {
    tone: &'static str,
    text: String,
    tip: String,
}

pub(crate) fn page(told: Option<&BreachTold>, facts: &MapFacts) -> Page {
    let Some(told) = told else {
        return Page {
            tab: "breach",
            ..message(
                "No breach was told",
                "`palisade breach --predict --tell` shows here what an attacker reaches who owns one part of the system.",
            )
        };
    };
    let template = BreachPage {
        how: if told.measured { "Measured by attack on a copy of the system" } else { "Predicted from the manifest; nothing ran" },
        at: phrase::instant(told.at_ms),
        old: facts.system.as_ref().is_some_and(|system| system.manifest != told.manifest),
        lines: &told.attackers,
        services: &told.services,
        rows: told.services.iter().enumerate().map(|(at, name)| row(told, at, name)).collect(),
        differences: &told.differences,
        measured: told.measured,
    };
    Page::of("Blast radius", "breach", false, &template)
}

fn row<'a>(told: &'a BreachTold, at: usize, name: &'a str) -> Row<'a> {
    let cell = |(column, to): (usize, &String)| {
        let routes = told.matrix.get(at).and_then(|row| row.get(column)).copied().unwrap_or_default();
        match routes {
            _ if column == at => Spot { tone: "self", text: String::new(), tip: format!("{name} itself") },
            0 => Spot { tone: "none", text: "·".to_owned(), tip: format!("{name} cannot call {to}") },
            some => Spot { tone: "some", text: some.to_string(), tip: format!("{name} can call {some} routes of {to}") },
        }
    };
    Row { name, cells: told.services.iter().enumerate().map(cell).collect() }
}
