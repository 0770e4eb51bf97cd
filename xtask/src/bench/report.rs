//! Tables for people: the median of the rounds, their range, and ratios to the floor and the peers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Figures of targets in columns.
#[derive(Debug)]
pub struct Table {
    title: &'static str,
    unit: &'static str,
    base: Option<&'static str>,
    columns: Vec<(String, BTreeMap<&'static str, Vec<f64>>)>,
}

/// As they stand in tables.
const ORDER: [&str; 6] = ["Palisade", "records only", "floor", "HAProxy", "Envoy", "nginx"];

impl Table {
    /// An empty one. With a `base` the product is compared with it and with the peers; without, figures stand alone.
    #[must_use]
    pub fn new(title: &'static str, unit: &'static str, base: Option<&'static str>) -> Self {
        Self { title, unit, base, columns: Vec::new() }
    }

    /// One more column: the rounds of each target.
    pub fn column(&mut self, name: &str, figures: BTreeMap<&'static str, Vec<f64>>) {
        self.columns.push((name.to_owned(), figures));
    }

    /// Prints figures and ratios, and gives them as JSON.
    #[must_use]
    pub fn print(&self) -> Value {
        println!("\n{} ({}; median of the rounds, least to most)", self.title, self.unit);
        self.line("", |(name, _)| name.clone());
        for target in ORDER.into_iter().filter(|target| self.columns.iter().any(|(_, figures)| figures.contains_key(target))) {
            self.line(target, |(_, figures)| figures.get(target).map_or_else(String::new, |rounds| shown(rounds)));
        }
        for target in ORDER.into_iter().filter(|target| *target != "Palisade" && self.base.is_some()) {
            if self.columns.iter().any(|(_, figures)| figures.contains_key(target)) {
                let label = format!("ratio to {target}");
                self.line(&label, |(_, figures)| ratio(figures, target).map_or_else(String::new, |ratio| format!("{ratio:.2}")));
            }
        }
        let columns = self.columns.iter().map(
            |(name, figures)| json!({ "name": name, "rounds": figures, "ratio_to_base": self.base.and_then(|base| ratio(figures, base)), "base": self.base }),
        );
        json!({ "title": self.title, "unit": self.unit, "columns": columns.collect::<Vec<_>>() })
    }

    fn line(&self, label: &str, cell: impl Fn(&(String, BTreeMap<&'static str, Vec<f64>>)) -> String) {
        let cells: String =
            self.columns.iter().map(|column| format!("  {:>width$}", cell(column), width = column.0.chars().count().max(24))).collect();
        println!("  {label:<18}{cells}");
    }
}

/// The product's median over another's, of the same rounds: the median of the rounds' ratios.
fn ratio(figures: &BTreeMap<&'static str, Vec<f64>>, to: &str) -> Option<f64> {
    let ratios: Vec<f64> = figures.get("Palisade")?.iter().zip(figures.get(to)?).map(|(ours, other)| ours / other).collect();
    Some(median(&ratios))
}

fn shown(rounds: &[f64]) -> String {
    let (least, most) = rounds.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), one| (least.min(*one), most.max(*one)));
    if rounds.len() == 1 { format!("{least:.1}") } else { format!("{:.1} ({least:.1} to {most:.1})", median(rounds)) }
}

/// The middle one, or between the two in the middle.
fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 { at(sorted.len() / 2) } else { f64::midpoint(at(sorted.len() / 2), at((sorted.len() / 2).saturating_sub(1))) }
}
