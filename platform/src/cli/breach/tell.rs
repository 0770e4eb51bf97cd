//! Telling a system that runs what a breach found, so that its console shows it.

use ::breach::show::headline;
use ::breach::{Between, Comparison, How, Kind, Report};
use contract::Call;
use contract::console::{BreachLine, BreachTold};
use http::Method;

use crate::cli::{Failure, block_on, people};
use crate::system::Layout;

/// Tells it.
pub(super) fn tell(report: &Report, comparison: Option<&Comparison>, layout: &Layout) -> Result<(), Failure> {
    let told = words(report, comparison);
    block_on(async {
        let client = people::operator(layout, "evidence")?;
        let taken = client.bytes(&Call::default(), Method::PUT, "/breach", Some(&told)).await;
        taken.map(drop).map_err(Failure::failed)
    })?
}

fn words(report: &Report, comparison: Option<&Comparison>) -> BreachTold {
    let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let kinds = [Kind::Read, Kind::Written, Kind::Done, Kind::Secret, Kind::Egress, Kind::Disturbed];
    let attackers = report.attackers.iter().map(|(profile, radius)| BreachLine {
        who: profile.to_string(),
        counts: kinds.map(|kind| few(radius.of(kind).count())),
        sentence: headline(report, profile),
    });
    let routes = |from: &str, to: &str| few(report.lateral.routes(from, to).map_or(0, std::collections::BTreeSet::len));
    let measured = comparison.filter(|comparison| comparison.between == Between::Measurement);
    BreachTold {
        at_ms: 0,
        measured: report.how == How::Measured,
        manifest: report.manifest,
        attackers: attackers.collect(),
        services: report.services.iter().cloned().collect(),
        matrix: report.services.iter().map(|from| report.services.iter().map(|to| routes(from, to)).collect()).collect(),
        differences: measured.into_iter().flat_map(|c| c.differences.iter().map(|d| d.sentence(c.between))).collect(),
    }
}
