//! What was measured, in the form that predictions have.

use std::collections::BTreeMap;

use breach::attacker::note::{Said, Tried};
use breach::attacker::techniques::{ALL, NOT_PERMITTED, Run, catalogue};
use breach::{Act, Attempt, Cell, Control, Detected, Extent, How, Lasts, Mark, Neighbour, Outcome, Profile, Radius, Report};
use manifest::{Fresh, Manifest};

use super::rounds::EXHAUSTION;
use super::watch::{Alarm, SYSCALL_DENIED};

/// Everything that was seen of a run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What services said.
    pub(super) said: Vec<(String, Said)>,
    /// What was tried from outside.
    pub(super) outside: Vec<(Profile, Tried)>,
    /// Who came to the doors of the outer network while it was a service's turn.
    pub(super) came: BTreeMap<String, Vec<String>>,
    /// What the audit log has.
    pub(super) alarms: Vec<Alarm>,
    /// How others' work went while each service used up all that it could.
    pub(super) neighbours: Vec<Neighbour>,
}

/// Clocks of one machine, read in different processes.
const SLACK_MS: u64 = 1;
/// An alarm that comes later than this does not count as seen (J11).
const SEEN_MS_MAX: u64 = 1000;

/// The report.
pub(super) fn report(manifest: &Manifest, seen: Seen, wanted: &dyn Fn(&Profile) -> bool) -> Report {
    let mut report = Report::new(How::Measured, manifest);
    for (name, service) in &manifest.services {
        let lasts = if service.fresh == Fresh::Job { Lasts::Job } else { Lasts::Start };
        report.attackers.insert(Profile::Service(name.clone()), Radius { lasts, ..Radius::default() });
    }
    for profile in [Profile::External, Profile::Person, Profile::Insider, Profile::InsiderMfa, Profile::Vendor] {
        report.attackers.insert(profile, Radius { lasts: Lasts::Credential, ..Radius::default() });
    }
    report.attackers.retain(|profile, _| wanted(profile));
    let mut attempts: BTreeMap<(Profile, String, Outcome, String), Option<Detected>> = BTreeMap::new();
    let inside = seen.said.iter().filter_map(|(service, said)| match said {
        Said::Tried(tried) if Mark::find(&tried.mark).is_some_and(|mark| mark.act != Act::Calm) => {
            Some((Profile::Service(service.clone()), tried.clone()))
        }
        _ => None,
    });
    for (profile, tried) in inside.chain(seen.outside) {
        // A replay is made in a service whose turn it may not be.
        if let Some(radius) = report.attackers.get_mut(&profile) {
            for cell in &tried.cells {
                radius.add(cell.clone(), tried.technique.clone());
            }
        }
        if let Profile::Service(from) = &profile {
            for (to, route) in &tried.routes {
                report.lateral.add(from, to, route.clone());
            }
        }
        // What is in its hands by right is no try.
        if tried.technique == "steal" || !wanted(&profile) {
            continue;
        }
        let (outcome, detected) = judged(&profile, &tried, &seen.alarms);
        let place = (profile, tried.technique, outcome, tried.seen);
        let kept = attempts.entry(place).or_default();
        if !matches!(kept, Some(Detected::Yes { .. })) {
            *kept = detected;
        }
    }
    for (service, doors) in seen.came.iter().filter(|(_, doors)| !doors.is_empty()) {
        let way = if doors.iter().any(|door| door.starts_with("udp")) { "udp" } else { "tcp" };
        if let Some(radius) = report.attackers.get_mut(&Profile::Service(service.clone())) {
            radius.add(Cell::egress("outside", way, Extent::Standing), "doors");
        }
    }
    for one in seen.neighbours.iter().filter(|one| one.is_disturbed()) {
        if let Some(radius) = report.attackers.get_mut(&one.profile) {
            radius.add(Cell::disturbed(one.neighbour.clone()), EXHAUSTION);
        }
    }
    report.neighbours = seen.neighbours;
    report.attempts = attempts
        .into_iter()
        .map(|((profile, technique, outcome, seen), detected)| Attempt { profile, technique, outcome, seen, detected })
        .collect();
    report.techniques = catalogue();
    report
}

/// How it ended and whether it was seen, with what the audit log tells of both.
fn judged(profile: &Profile, tried: &Tried, alarms: &[Alarm]) -> (Outcome, Option<Detected>) {
    // What a program does by itself inside its sandbox makes no request that somebody could refuse; of its system calls some are denied.
    let row = ALL.iter().find(|row| row.id == tried.technique);
    let calls = match row.map(|row| row.run) {
        Some(Run::Alone(_, calls)) => Some(calls),
        _ if tried.technique == "memory" => Some(&[] as &[&str]),
        _ => None,
    };
    let (from, until) = (tried.from_ms.saturating_sub(SLACK_MS), tried.until_ms.saturating_add(SLACK_MS));
    let during = |alarm: &&Alarm| match (calls, &alarm.call) {
        // Denied calls are told by kind, and a little later: one of a kind that it makes is about it.
        (Some(calls), Some(call)) => {
            (from..=until.saturating_add(SEEN_MS_MAX)).contains(&alarm.at_ms)
                && calls.iter().any(|kind| is_of(call, kind))
                && of(profile, alarm)
        }
        (None, None) => (from..=until).contains(&alarm.at_ms) && of(profile, alarm),
        _ => false,
    };
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for alarm in alarms.iter().filter(during) {
        *reasons.entry(alarm.what.as_str()).or_default() += 1;
    }
    let most = reasons.iter().max_by_key(|(_, count)| **count).map(|(reason, _)| *reason);
    // A request and its refusal are one moment; a denied call was made somewhere in the technique's time.
    let since = |alarm: &Alarm| if calls.is_some() { tried.until_ms.min(alarm.at_ms) } else { alarm.at_ms };
    let seen = alarms.iter().filter(during).map(|alarm| (alarm.taken_ms.saturating_sub(since(alarm)), alarm));
    let seen = seen.min_by_key(|(after, _)| *after);
    let detected = match seen {
        // What its own authority is good for is no attack, and is recorded as what it is.
        _ if tried.outcome == Outcome::Reached => None,
        Some((after_ms, alarm)) if after_ms <= SEEN_MS_MAX => Some(Detected::Yes { event: alarm.what.clone(), after_ms }),
        _ => Some(Detected::No),
    };
    let outcome = match (&tried.outcome, most) {
        (Outcome::Stopped { by: None }, Some(SYSCALL_DENIED)) if is_denial(&tried.seen) => Outcome::Stopped { by: Some(Control::Seccomp) },
        (Outcome::Stopped { by: None }, Some(reason)) => Outcome::Stopped { by: control(reason) },
        (outcome, _) => outcome.clone(),
    };
    (outcome, detected)
}

/// Whether a denied call is of this kind: `socket inet raw` is of `socket`.
fn is_of(call: &str, kind: &str) -> bool {
    call.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Whether what was seen is the answer of a filter.
fn is_denial(seen: &str) -> bool {
    seen.ends_with("EPERM") || seen.contains(NOT_PERMITTED)
}

/// Whether an alarm is about what this attacker did.
fn of(profile: &Profile, alarm: &Alarm) -> bool {
    match profile {
        // A denied call is told by the guard, which runs in the service's name.
        Profile::Service(name) => alarm.principal.ends_with(&format!("/service/{name}")),
        // Whoever shows no certificate that counts is told of by where they knocked, under whatever name they gave.
        Profile::External if alarm.connection => true,
        _ => matches!(alarm.point.as_str(), "edge" | "login" | "objects" | "evidence") && !alarm.principal.contains("/service/"),
    }
}

/// The control that refuses for this reason.
fn control(reason: &str) -> Option<Control> {
    Some(match reason {
        "policy_denied" => Control::Policy,
        "job_mismatch" => Control::JobToken,
        "lease_ended" => Control::Lease,
        "authority_not_in_flight" | "authority_missing" | "authority_ended" => Control::TransactionToken,
        "route_unknown" | "method_unlisted" | "host_unknown" | "request_ambiguous" => Control::GuardOut,
        "peer_undeclared" => Control::GuardIn,
        "client_certificate_missing" | "svid_untrusted" | "svid_malformed" => Control::Mtls,
        "credential_missing" | "session_ended" | "token_invalid" | "token_malformed" | "token_inactive" | "token_key_unknown" => {
            Control::SignIn
        }
        "scope_missing" => Control::Scope,
        "rate_exceeded" => Control::Limits,
        "role_missing" => Control::Role,
        "step_up_missing" => Control::StepUp,
        other if other.starts_with("token_") || other.starts_with("proof_") => Control::SignIn,
        other if other.contains("quarantine") || other.contains("verdict") => Control::Quarantine,
        _ => return None,
    })
}
