//! Theft: what becomes of each thing that was stolen, wherever it is shown.
//!
//! Guarantees: L11 every artefact in every context that was tried, with what came of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::technique::{Control, Outcome};

/// One artefact in one context.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theft {
    /// What was stolen: `a person's session`.
    pub artefact: String,
    /// Where and how it was shown: `in the field cookie`.
    pub context: String,
    /// Whether it was taken for good there.
    pub counts: bool,
    /// What stopped it, as far as the answers and the audit log tell.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stopped: BTreeSet<Control>,
    /// Techniques that showed it.
    pub by: BTreeSet<String>,
}

/// Gathers them.
#[derive(Debug, Default)]
pub struct Thefts(BTreeMap<(String, String), Theft>);

impl Thefts {
    /// Notes one that was shown; what could not be tried says nothing.
    pub fn add(&mut self, artefact: &str, context: &str, outcome: &Outcome, technique: &str) {
        if matches!(outcome, Outcome::Untried { .. }) {
            return;
        }
        let new = || Theft {
            artefact: artefact.to_owned(),
            context: context.to_owned(),
            counts: false,
            stopped: BTreeSet::new(),
            by: BTreeSet::new(),
        };
        let one = self.0.entry((artefact.to_owned(), context.to_owned())).or_insert_with(new);
        one.counts |= *outcome == Outcome::Reached;
        if let Outcome::Stopped { by: Some(by) } = outcome {
            one.stopped.insert(*by);
        }
        one.by.insert(technique.to_owned());
    }

    /// All, in the order of artefacts and contexts.
    #[must_use]
    pub fn gathered(self) -> Vec<Theft> {
        self.0.into_values().collect()
    }
}

/// Lines of a table: an artefact, the contexts in which the same came of it, and what that was.
#[must_use]
pub fn lines(thefts: &[Theft]) -> Vec<(&str, Vec<&str>, String)> {
    let mut lines: Vec<(&str, Vec<&str>, String)> = Vec::new();
    for one in thefts {
        let by = one.stopped.iter().map(|control| control.as_str()).collect::<Vec<_>>().join(", ");
        let came = match (one.counts, by.is_empty()) {
            (true, _) => "counts".to_owned(),
            (false, true) => "refused".to_owned(),
            (false, false) => format!("refused: {by}"),
        };
        match lines.iter_mut().find(|(artefact, _, other)| *artefact == one.artefact && *other == came) {
            Some((_, contexts, _)) => contexts.push(&one.context),
            None => lines.push((&one.artefact, vec![&one.context], came)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    // L11: one that counted once counts, whatever refused it besides; what was not tried is not there.
    #[test]
    fn what_counts_anywhere_in_a_context_counts_and_like_ends_are_one_line() {
        let mut all = Thefts::default();
        let stopped = |by| Outcome::Stopped { by };
        all.add("a key", "in the field cookie", &stopped(Some(Control::SignIn)), "elsewhere");
        all.add("a key", "in the field cookie", &stopped(None), "elsewhere");
        all.add("a key", "as Basic", &stopped(Some(Control::SignIn)), "elsewhere");
        all.add("a key", "at home", &stopped(Some(Control::SignIn)), "elsewhere");
        all.add("a key", "at home", &Outcome::Reached, "elsewhere");
        all.add("a key", "nowhere", &Outcome::Untried { why: "no place".to_owned() }, "elsewhere");
        let all = all.gathered();
        assert_eq!(
            all.iter().map(|one| (one.context.as_str(), one.counts)).collect::<Vec<_>>(),
            [("as Basic", false), ("at home", true), ("in the field cookie", false)]
        );
        let lines = lines(&all);
        assert_eq!(lines.len(), 2);
        assert!(lines.contains(&("a key", vec!["as Basic", "in the field cookie"], "refused: sign-in".to_owned())), "{lines:?}");
    }
}
