//! `palisade breach`: what an attacker reaches who owns one part of the system, and what a change does to that.
//!
//! Exit codes: 0 nothing to say, 1 findings (prediction and measurement differ, a revision reaches more, something was not tried for no
//! known reason; of controls that were left out: all were found), 64 a bad manifest or command line, 69 measuring is not possible here.

mod revision;
mod tell;

use std::process::ExitCode;

use ::breach::show;
use ::breach::{Absent, Between, Comparison, Control, Prediction, Profile, Report, Took, compare, measurable, predict};
use manifest::Isolation;

use super::{DirArgument, Failure, ManifestArgument, Written, say};
use crate::breach::{Wish, measure};
use crate::dangerous::{DangerousSwitch, dangerous_switches};
use crate::system::{Applied, Layout};

/// Exit code when something differs.
const EXIT_FINDINGS: u8 = 1;
/// Exit code when this program cannot measure (sysexits.h, EX_UNAVAILABLE).
const EXIT_UNAVAILABLE: u8 = 69;

/// What an attacker reaches.
#[derive(Debug, clap::Args)]
pub(crate) struct Breach {
    /// Predict from the manifest and its policies alone; nothing runs.
    #[arg(long)]
    predict: bool,
    /// Attackers: external, person, service.NAME, insider, insider-mfa, vendor. All, if none is named.
    #[arg(long, value_name = "ATTACKER")]
    profile: Vec<Profile>,
    /// One service, by its name, or one technique, by the beginning of its id.
    #[arg(long, value_name = "SERVICE|TECHNIQUE")]
    only: Vec<String>,
    /// List the attackers of this manifest, and the techniques.
    #[arg(long)]
    list: bool,
    /// What the manifest of now changes: against a revision of git, or another manifest's file. Predicts.
    #[arg(long, value_name = "REF|FILE")]
    compare: Option<String>,
    /// Show it on the console of the system that runs.
    #[arg(long)]
    tell: bool,
    /// Measure at the weaker isolation that every service of the manifest accepts, as on a machine without user namespaces. Not as root.
    #[arg(long, conflicts_with_all = ["predict", "compare"])]
    confined: bool,
    /// Measure a copy that goes without a control, everywhere or at one service or role, to see that this is found. Not as root.
    #[arg(long, value_name = "CONTROL[@PLACE]", conflicts_with_all = ["predict", "compare", "tell"])]
    dangerous_without: Vec<String>,
    #[command(flatten)]
    manifest: ManifestArgument,
    #[command(flatten)]
    dir: DirArgument,
}

impl Breach {
    pub(super) fn run(self, written: Written) -> Result<ExitCode, Failure> {
        let applied = Applied::open(&self.manifest.manifest)?;
        let clock = trust::SystemClock::shared();
        let begun = clock.monotonic();
        let prediction = predict(&applied.manifest, &applied.policies).map_err(refused)?;
        let predicted_in = clock.monotonic().saturating_sub(begun);
        let profiles = self.profiles(&applied)?;
        if self.list {
            return list(&prediction.report, written);
        }
        let before = self.compare.as_deref().map(|reference| revision::open(&self.manifest.manifest, reference)).transpose()?;
        if let Some(before) = before {
            let before = narrowed(predict(&before.manifest, &before.policies).map_err(refused)?.report, &profiles);
            let after = narrowed(prediction.report, &profiles);
            let comparison = compare(&before, &after, Between::Revisions);
            return self.told(&after, Some(&comparison), &applied, written);
        }
        let whole = prediction.report.clone();
        let predicted = narrowed(prediction.report, &profiles);
        if self.predict {
            return self.told(&predicted, None, &applied, written);
        }
        let begun = clock.monotonic();
        let took =
            |clock: &dyn trust::Clock| Took { prediction_ms: ms(predicted_in), suite_ms: ms(clock.monotonic().saturating_sub(begun)) };
        self.measure((predicted, &Prediction { ways: prediction.ways, report: whole }), profiles, &applied, written, &|| took(&*clock))
    }

    /// Breaks into a copy, and holds what is reached against what was predicted. Some techniques alone reach a part of it, so that of them
    /// only what was not predicted counts.
    fn measure(
        &self,
        (predicted, prediction): (Report, &Prediction),
        profiles: Vec<Profile>,
        applied: &Applied,
        written: Written,
        took: &dyn Fn() -> Took,
    ) -> Result<ExitCode, Failure> {
        let only = self.techniques(applied)?;
        let partial = !only.is_empty();
        let dangerous_without = self.dangerous_without.clone();
        if !dangerous_without.is_empty() {
            let services = applied.manifest.services.keys().map(String::as_str).collect();
            dangerous_switches(&dangerous_without, &services).map_err(|why| Failure::of(64, why))?;
            if nix::unistd::geteuid().is_root() {
                let advice = "a control is switched off by a user without rights alone; run this as one (`runuser -u nobody`)";
                return Err(Failure::of(EXIT_UNAVAILABLE, advice));
            }
        }
        if self.confined {
            accepts_confined(applied)?;
        }
        let (manifest, confined) = (self.manifest.manifest.clone(), self.confined);
        let wish = Wish { manifest, only: only.clone(), profiles, confined, dangerous_without };
        let mut measured = measure(&wish).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::of(EXIT_UNAVAILABLE, format_args!("{error}{cause}"))
        })?;
        let predicted = measurable(predicted, &measured);
        measured.complete(&prediction.report, &|id| only.is_empty() || only.iter().any(|wanted| id.starts_with(wanted.as_str())));
        measured.deputies.clone_from(&predicted.deputies);
        measured.defence.clone_from(&predicted.defence);
        measured.judge_absent(prediction);
        let took = took();
        measured.took = Some(took);
        let taken_over = measured.isolation.iter().filter(|(name, _)| measured.attackers.contains_key(&Profile::Service((*name).clone())));
        let unshown = taken_over.filter_map(|(service, at)| at.unshown(service));
        for said in unshown.chain(took.slow()) {
            super::complain(said);
        }
        let between = if partial { Between::Part } else { Between::Measurement };
        // What goes without a control differs, and nothing else is to be learned from that.
        let comparison = measured.absent.is_empty().then(|| compare(&predicted, &measured, between));
        self.told(&measured, comparison.as_ref(), applied, written)
    }

    /// The techniques that are asked for, by the beginnings of their ids.
    fn techniques(&self, applied: &Applied) -> Result<Vec<String>, Failure> {
        let wanted = self.only.iter().filter(|only| !applied.manifest.services.contains_key(*only));
        let wanted: Vec<String> = wanted.cloned().collect();
        let known = ::breach::attacker::techniques::catalogue();
        match wanted.iter().find(|only| !known.iter().any(|technique| technique.id.starts_with(only.as_str()))) {
            Some(only) => Err(Failure::of(
                64,
                format_args!("'{only}' is neither a service nor the beginning of a technique's id; see `palisade breach --list`"),
            )),
            None => Ok(wanted),
        }
    }

    /// The attackers that are asked for; all of them, if none is.
    fn profiles(&self, applied: &Applied) -> Result<Vec<Profile>, Failure> {
        let services = self.only.iter().filter(|only| applied.manifest.services.contains_key(*only));
        let all: Vec<Profile> = self.profile.iter().cloned().chain(services.map(|name| Profile::Service(name.clone()))).collect();
        for profile in &all {
            if let Profile::Service(name) = profile
                && !applied.manifest.services.contains_key(name)
            {
                let known: Vec<&str> = applied.manifest.services.keys().map(String::as_str).collect();
                return Err(Failure::of(64, format_args!("the manifest has no service {name}; it has {}", known.join(", "))));
            }
        }
        Ok(all)
    }

    fn told(&self, report: &Report, comparison: Option<&Comparison>, applied: &Applied, written: Written) -> Result<ExitCode, Failure> {
        let nothing = Comparison { between: Between::Revisions, differences: Vec::new() };
        match written {
            Written::Text => text(report, comparison),
            Written::Json => {
                let told = match comparison {
                    Some(comparison) => serde_json::to_string_pretty(&serde_json::json!({ "report": report, "comparison": comparison })),
                    None => report.to_json(),
                };
                say(told.map_err(Failure::failed)?);
            }
            Written::Markdown => say(show::markdown(report, comparison).trim_end()),
            Written::Sarif => {
                let file = self.manifest.manifest.display().to_string();
                let log = show::sarif(comparison.unwrap_or(&nothing), &file, &applied.text);
                say(serde_json::to_string_pretty(&log).map_err(Failure::failed)?);
            }
            Written::Svg => say(show::matrix(report).trim_end()),
        }
        if self.tell {
            tell::tell(report, comparison, &Layout { dir: self.dir.dir.clone() })?;
        }
        let gaps = report.gaps();
        for gap in &gaps {
            super::complain(gap);
        }
        Ok(if fails(report, comparison) { ExitCode::from(EXIT_FINDINGS) } else { ExitCode::SUCCESS })
    }
}

/// Where user namespaces are refused, a service that accepts no weaker isolation does not start.
fn accepts_confined(applied: &Applied) -> Result<(), Failure> {
    let strict = applied.manifest.services.iter().filter(|(_, service)| service.isolation == Isolation::Full);
    let strict: Vec<&str> = strict.map(|(name, _)| name.as_str()).collect();
    if !strict.is_empty() {
        let names = strict.join(", ");
        return Err(Failure::of(
            64,
            format_args!(
                "{names}: the manifest accepts no weaker isolation (`isolation = \"confined\"`), so there is nothing weaker to measure"
            ),
        ));
    }
    if nix::unistd::geteuid().is_root() {
        let advice = "user namespaces are refused to a user without rights alone; run this as one (`runuser -u nobody`)";
        return Err(Failure::of(EXIT_UNAVAILABLE, advice));
    }
    Ok(())
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether there are findings. Of controls that were left out it is asked whether each of them was found.
fn fails(report: &Report, comparison: Option<&Comparison>) -> bool {
    if !report.absent.is_empty() {
        return report.absent.iter().all(Absent::is_found);
    }
    comparison.is_some_and(Comparison::fails) || !report.gaps().is_empty()
}

/// For people: one attacker in full, several as a table.
fn text(report: &Report, comparison: Option<&Comparison>) {
    if let Some(comparison) = comparison {
        match (comparison.differences.is_empty(), comparison.between) {
            (true, Between::Revisions) => say("Nobody reaches more or less than before."),
            (true, Between::Measurement) => say("Prediction and measurement agree in every cell."),
            (true, Between::Part) => say("What was tried reached nothing that was not predicted."),
            (false, _) => say(show::differences(comparison).trim_end()),
        }
        if comparison.between == Between::Revisions {
            return;
        }
        say("");
    }
    if !report.absent.is_empty() {
        return say(show::absent(report).trim_end());
    }
    let mut profiles = report.attackers.keys();
    match (profiles.next(), profiles.next()) {
        (Some(one), None) => say(show::attacker(report, one).trim_end()),
        _ => say(show::table(report).trim_end()),
    }
}

/// The report of some attackers; of all, if none is named.
fn narrowed(mut report: Report, profiles: &[Profile]) -> Report {
    if profiles.is_empty() {
        return report;
    }
    report.attackers.retain(|profile, _| profiles.contains(profile));
    report.deputies.retain(|deputy| profiles.contains(&deputy.profile));
    for protected in &mut report.defence {
        for who in protected.alone.values_mut() {
            who.retain(|profile| profiles.contains(profile));
        }
        protected.alone.retain(|_, who| !who.is_empty());
    }
    report
}

fn list(report: &Report, written: Written) -> Result<ExitCode, Failure> {
    let attackers: Vec<String> = report.attackers.keys().map(ToString::to_string).collect();
    let techniques = ::breach::attacker::techniques::catalogue();
    match written.plain()? {
        super::Format::Json => {
            let switches: Vec<Control> = DangerousSwitch::all().into_iter().map(|(control, _)| control).collect();
            say(serde_json::json!({ "attackers": attackers, "techniques": techniques, "dangerous_without": switches }));
        }
        super::Format::Text => {
            say(attackers.join("\n"));
            for technique in techniques {
                say(format_args!("{:<18} {:<10} {:?}  {}", technique.id, technique.attack, technique.stride, technique.title));
            }
            for (control, what) in DangerousSwitch::all() {
                say(format_args!("without {:<28} {what}", control.as_str()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A manifest or policy that could not be put into force is a bad manifest.
fn refused(error: ::breach::PredictError) -> Failure {
    Failure::of(64, error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ::breach::{Attempt, Cell, Extent, How, Outcome};
    use manifest::Manifest;

    use super::*;

    const SMALL: &str = "[system]\nname = \"small\"\npurposes = [\"view\"]\ntrust_domain = \"small.example\"\n[edge]\nlisten = \"127.0.0.1:8443\"\nhosts = [\"localhost\"]\n[data.page]\nsensitivity = 1\n[service.web]\nrun = [\"./web\"]\ndata = \"page\"\npublic = [ { path = \"/\", methods = [\"GET\"], purpose = \"view\" } ]\n";

    fn report() -> Report {
        let manifest = Manifest::parse("m.toml", SMALL);
        assert!(manifest.is_ok());
        manifest.map_or_else(|_| std::process::abort(), |manifest| Report::new(How::Measured, &manifest))
    }

    // L8: more than was predicted fails also where some techniques alone were tried; so does what was not tried for no known reason.
    #[test]
    fn what_was_not_predicted_and_what_was_not_tried_fail_the_command() {
        let (before, mut after) = (report(), report());
        after.attackers.entry(Profile::External).or_default();
        let compared = |after: &Report| compare(&before, after, Between::Part);
        let mut known = before.clone();
        known.attackers.entry(Profile::External).or_default();
        assert!(!fails(&after, Some(&compare(&known, &after, Between::Part))));
        after.attackers.entry(Profile::External).or_default().add(Cell::read("bucket.b", Extent::Everybody), "console");
        assert!(fails(&after, Some(&compared(&after))));
        let mut untried = report();
        let attempt = |why: &str| Attempt {
            profile: Profile::External,
            technique: "console".to_owned(),
            outcome: Outcome::Untried { why: why.to_owned() },
            seen: String::new(),
            detected: None,
        };
        untried.attempts.push(attempt(::breach::untried::NOBODY_ELSE));
        assert!(!fails(&untried, None));
        untried.attempts.push(attempt("its process was killed"));
        assert!(fails(&untried, None));
    }

    // L13: that one of several missing controls was found says nothing of the others.
    #[test]
    fn every_control_that_was_left_out_must_be_found() {
        let found = Absent::new(Control::Policy, None, BTreeSet::from(["seen".to_owned()]));
        let unseen = Absent::new(Control::Limits, None, BTreeSet::new());
        let of = |absent: &[&Absent]| fails(&Report { absent: absent.iter().map(|one| (*one).clone()).collect(), ..report() }, None);
        assert!(of(&[&found]) && !of(&[&unseen]) && !of(&[&found, &unseen]));
    }
}
