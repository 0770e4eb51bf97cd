//! What was measured, in the form that predictions have.

use std::collections::{BTreeMap, BTreeSet};

use breach::attacker::heard::control;
use breach::attacker::note::{Said, Tried};
use breach::attacker::techniques::{ALL, NO_WAY, NOT_PERMITTED, Run, catalogue};
use breach::{Act, Attempt, Cell, Control, Detected, Extent, How, Lasts, Mark, Neighbour, Outcome, Profile, Radius, Report, Thefts, names};
use manifest::{Fresh, Manifest};

use super::rounds::EXHAUSTION;
use super::watch::{Alarm, GATHERED, SYSCALL_DENIED};

/// Everything that was seen of a run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What services said.
    pub(super) said: Vec<(String, Said)>,
    /// Lines of services that were lost.
    pub(super) lost: BTreeMap<String, u64>,
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
    report.unheard = unheard(&seen, wanted);
    let mut attempts: BTreeMap<(Profile, String, Outcome, String), Option<Detected>> = BTreeMap::new();
    let mut thefts = Thefts::default();
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
        for (artefact, context) in &tried.thefts {
            thefts.add(artefact, context, &outcome, &tried.technique);
        }
        let place = (profile, tried.technique, outcome, tried.seen);
        let kept = attempts.entry(place).or_default();
        if !matches!(kept, Some(Detected::Yes { .. })) {
            *kept = detected;
        }
    }
    for (service, doors) in seen.came.iter().filter(|(_, doors)| !doors.is_empty()) {
        let way = if doors.iter().any(|door| door.starts_with("udp")) { names::UDP } else { names::TCP };
        if let Some(radius) = report.attackers.get_mut(&Profile::Service(service.clone())) {
            radius.add(Cell::egress(names::OUTSIDE, way, Extent::Standing), "doors");
        }
    }
    for one in seen.neighbours.iter().filter(|one| one.is_disturbed()) {
        if let Some(radius) = report.attackers.get_mut(&one.profile) {
            radius.add(Cell::disturbed(one.neighbour.clone()), EXHAUSTION);
        }
    }
    report.neighbours = seen.neighbours;
    report.thefts = thefts.gathered();
    report.attempts = attempts
        .into_iter()
        .map(|((profile, technique, outcome, seen), detected)| Attempt { profile, technique, outcome, seen, detected })
        .collect();
    report.techniques = catalogue();
    report
}

/// What was told and did not come, and turns without an end: what was reached in them nobody knows. While a service uses up all that it
/// has, its own end may be one of the things that go.
fn unheard(seen: &Seen, wanted: &dyn Fn(&Profile) -> bool) -> BTreeMap<Profile, BTreeSet<String>> {
    let lost = seen.lost.iter().map(|(service, count)| (service, format!("{count} lines of what it told were lost")));
    let is_over = |of: &str, turn: (&str, &str)| {
        let ends = |(service, said): &(String, Said)| matches!(said, Said::Ended { mark, entry } if service == of && (mark.as_str(), entry.as_str()) == turn);
        seen.said.iter().any(ends)
    };
    let unended = seen.said.iter().filter_map(|(service, said)| match said {
        Said::Began { mark, entry }
            if Mark::find(mark).is_none_or(|mark| mark.act != Act::Press) && !is_over(service, (mark.as_str(), entry.as_str())) =>
        {
            Some((service, format!("its turn at {entry} did not come to its end")))
        }
        _ => None,
    });
    let mut all: BTreeMap<Profile, BTreeSet<String>> = BTreeMap::new();
    for (service, why) in lost.chain(unended) {
        let profile = Profile::Service(service.clone());
        if wanted(&profile) {
            all.entry(profile).or_default().insert(why);
        }
    }
    all
}

/// How it ended and whether it was seen, with what the audit log tells of both. A record is about a try only if it is of that try: of its
/// own trace, of the reason that it was told, or of a system call that it was denied. What was not tried, or was not sent because there is
/// no way, cannot be seen.
fn judged(profile: &Profile, tried: &Tried, alarms: &[Alarm]) -> (Outcome, Option<Detected>) {
    let Outcome::Stopped { by } = tried.outcome else { return (tried.outcome.clone(), None) };
    let (calls, mine) = about(profile, tried, alarms);
    // What it was not told: where one reason alone is recorded of it, that is who refused.
    let reasons: BTreeSet<&str> = mine.iter().map(|alarm| alarm.what.as_str()).collect();
    let told = match (reasons.first(), reasons.len()) {
        (Some(&SYSCALL_DENIED), 1) => Some(Control::Seccomp),
        (Some(reason), 1) => control(reason),
        _ => None,
    };
    let outcome = Outcome::Stopped { by: by.or(told) };
    if tried.sent == 0 && tried.seen.ends_with(NO_WAY) {
        return (outcome, None);
    }
    // A request and its refusal are one moment; a denied call was made somewhere in the technique's time.
    let later = |alarm: &Alarm| calls || alarm.what == GATHERED;
    let since = |alarm: &Alarm| if later(alarm) { tried.until_ms.min(alarm.at_ms) } else { alarm.at_ms };
    let seen = mine.iter().map(|alarm| (alarm.taken_ms.saturating_sub(since(alarm)), alarm)).min_by_key(|(after, _)| *after);
    let detected = match seen {
        Some((after_ms, alarm)) if after_ms <= SEEN_MS_MAX => Detected::Yes { event: alarm.what.clone(), after_ms },
        _ => Detected::No,
    };
    (outcome, Some(detected))
}

/// Records of this try: whether they are of system calls, and which.
fn about<'a>(profile: &Profile, tried: &Tried, alarms: &'a [Alarm]) -> (bool, Vec<&'a Alarm>) {
    let (from, until) = (tried.from_ms.saturating_sub(SLACK_MS), tried.until_ms.saturating_add(SLACK_MS));
    let meanwhile = |alarm: &Alarm| (from..=until).contains(&alarm.at_ms) && of(profile, alarm);
    let in_time = |alarm: &Alarm| (from..=until.saturating_add(SEEN_MS_MAX)).contains(&alarm.at_ms) && of(profile, alarm);
    let singly = alarms.iter().any(|alarm| tried.traces.contains(&alarm.trace));
    let run = ALL.iter().find(|row| row.id == tried.technique).map(|row| row.run);
    let fits = |alarm: &&Alarm| match run {
        // A process alone makes no request. Denied calls are told by kind, and a little later.
        Some(Run::Alone(_, kinds)) => {
            let denied = tried.outcome == (Outcome::Stopped { by: Some(Control::Seccomp) }) || is_denial(&tried.seen);
            denied && in_time(alarm) && alarm.call.as_ref().is_some_and(|call| kinds.iter().any(|kind| is_of(call, kind)))
        }
        // Where nothing tells of them singly, they are in a number of refusals: of that point, and told a little later.
        Some(Run::Outside(..)) if !tried.traces.is_empty() => {
            tried.traces.contains(&alarm.trace) || (!singly && alarm.what == GATHERED && alarm.point == "edge" && in_time(alarm))
        }
        // No request of a person: certificates that are shown, sockets that are called.
        Some(Run::Outside(..)) => {
            let silent = tried.outcome == (Outcome::Stopped { by: Some(Control::FileModes) });
            !silent && tried.sent == 0 && meanwhile(alarm) && (alarm.trace.is_empty() || alarm.connection)
        }
        Some(Run::First(_) | Run::InHand(..) | Run::After(_)) => {
            // A guard tells its reason, the store does not.
            let unsaid = tried.unsaid && control(&alarm.what).is_some() && !alarm.point.starts_with("guard");
            alarm.call.is_none() && meanwhile(alarm) && (tried.reasons.contains(&alarm.what) || unsaid)
        }
        // It knocks at its flows without a pause, at a path that none of them has.
        Some(Run::Pressing(_)) => meanwhile(alarm) && matches!(alarm.what.as_str(), "route_unknown" | "method_unlisted" | GATHERED),
        None => false,
    };
    (matches!(run, Some(Run::Alone(..))), alarms.iter().filter(fits).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(at_ms: u64, what: &str, trace: &str) -> Alarm {
        Alarm {
            at_ms,
            taken_ms: at_ms + 5,
            principal: "spiffe://x.example/service/web".to_owned(),
            point: "objects".to_owned(),
            what: what.to_owned(),
            connection: false,
            call: None,
            trace: trace.to_owned(),
        }
    }

    fn tried(technique: &str, outcome: Outcome, seen: &str) -> Tried {
        Tried {
            mark: String::new(),
            technique: technique.to_owned(),
            outcome,
            seen: seen.to_owned(),
            cells: Vec::new(),
            routes: Vec::new(),
            stolen: Vec::new(),
            sent: 1,
            reasons: BTreeSet::new(),
            unsaid: false,
            thefts: BTreeSet::new(),
            traces: BTreeSet::new(),
            from_ms: 100,
            until_ms: 200,
        }
    }

    fn seen(profile: &Profile, tried: &Tried, alarms: &[Alarm]) -> Option<bool> {
        judged(profile, tried, alarms).1.map(|detected| matches!(detected, Detected::Yes { .. }))
    }

    // J11: a record in the time of a try is of that try only if it tells what the try was told.
    #[test]
    fn what_others_do_meanwhile_is_not_taken_for_a_record_of_a_try() {
        let (web, stopped) = (Profile::Service("web".to_owned()), || Outcome::Stopped { by: None });
        let other = [alarm(150, "route_unknown", "")];
        let mut own = tried("objects-of-others", stopped(), "read: 403");
        own.reasons.insert("policy_denied".to_owned());
        assert_eq!(seen(&web, &own, &other), Some(false));
        assert_eq!(judged(&web, &own, &other).0, stopped(), "another's refusal did not stop it");
        let both = [alarm(150, "route_unknown", ""), alarm(160, "policy_denied", "")];
        assert_eq!(seen(&web, &own, &both), Some(true));
        assert_eq!(judged(&web, &own, &both).0, Outcome::Stopped { by: Some(Control::Policy) });
        // Outside of its time, and in another's name.
        assert_eq!(seen(&web, &own, &[alarm(300, "policy_denied", "")]), Some(false));
        assert_eq!(seen(&Profile::Service("api".to_owned()), &own, &both), Some(false));
        // Refused without a word: one reason is whose it is, two tell nothing.
        let unsaid = Tried { unsaid: true, reasons: BTreeSet::new(), ..own };
        assert_eq!(judged(&web, &unsaid, &[alarm(150, "policy_denied", "")]).0, Outcome::Stopped { by: Some(Control::Policy) });
        assert_eq!(judged(&web, &unsaid, &both).0, stopped());
    }

    // L8, L10: what was told and did not come, and what was begun and not ended, is told of; but for what uses itself up.
    #[test]
    fn a_turn_without_an_end_and_lines_that_are_lost_are_told() {
        let (attack, press) = (Mark::new(Act::Attack, "web", "ada", 1).to_string(), Mark::new(Act::Press, "web", "ada", 2).to_string());
        let began = |mark: &String, entry: &str| ("web".to_owned(), Said::Began { mark: mark.clone(), entry: entry.to_owned() });
        let ended = |mark: &String, entry: &str| ("web".to_owned(), Said::Ended { mark: mark.clone(), entry: entry.to_owned() });
        let of = |said: Vec<(String, Said)>, lost: &[(&str, u64)]| {
            let lost = lost.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            unheard(&Seen { said, lost, ..Seen::default() }, &|profile| profile.to_string() == "service.web")
        };
        assert!(of(vec![began(&attack, "GET /"), ended(&attack, "GET /"), began(&press, "GET /")], &[("api", 2)]).is_empty());
        let both = of(vec![began(&attack, "GET /"), began(&attack, "GET /b"), ended(&attack, "GET /")], &[("web", 2)]);
        let said: Vec<&str> = both.values().flatten().map(String::as_str).collect();
        assert_eq!(said, ["2 lines of what it told were lost", "its turn at GET /b did not come to its end"]);
    }

    // J11: what was not tried or not sent cannot be seen.
    #[test]
    fn what_was_not_sent_or_not_tried_is_neither_seen_nor_unseen() {
        let web = Profile::Service("web".to_owned());
        let alarms = [alarm(150, "route_unknown", "")];
        let untried = tried("replay", Outcome::Untried { why: "x".to_owned() }, "");
        assert_eq!(seen(&web, &untried, &alarms), None);
        let unsent = Tried { sent: 0, ..tried("jobs-of-others", Outcome::Stopped { by: None }, &format!("take: {NO_WAY}")) };
        assert_eq!(seen(&web, &unsent, &alarms), None);
        let quiet = Tried { sent: 0, ..tried("memory", Outcome::Stopped { by: None }, "nothing") };
        assert_eq!(seen(&web, &quiet, &alarms), Some(false), "it was done, and nobody saw it");
    }

    // J11: from outside a record is found by its trace.
    #[test]
    fn a_persons_try_is_seen_by_the_record_of_its_own_trace() {
        let mut own = tried("console", Outcome::Stopped { by: None }, "403");
        own.traces.insert("t1".to_owned());
        let at_edge = |trace| Alarm { principal: "internet".to_owned(), point: "edge".to_owned(), ..alarm(150, "role_missing", trace) };
        assert_eq!(seen(&Profile::Person, &own, &[at_edge("t2")]), Some(false));
        assert_eq!(seen(&Profile::Person, &own, &[at_edge("t2"), at_edge("t1")]), Some(true));
        // Beyond what is recorded singly, the number tells of it, if it comes in time; not of what was recorded by itself.
        let gathered = |at_ms| Alarm { what: GATHERED.to_owned(), at_ms, taken_ms: at_ms + 5, ..at_edge("") };
        assert_eq!(seen(&Profile::Person, &own, &[at_edge("t2"), gathered(900)]), Some(true));
        assert_eq!(seen(&Profile::Person, &own, &[at_edge("t2"), gathered(1300)]), Some(false));
        let late = Alarm { taken_ms: 5000, ..at_edge("t1") };
        assert_eq!(seen(&Profile::Person, &own, &[late, gathered(900)]), Some(false));
    }

    // J11: a denied call is of a try that was denied one.
    #[test]
    fn a_denied_call_is_put_down_to_what_was_denied() {
        let web = Profile::Service("web".to_owned());
        let denied = Alarm { call: Some("socket netlink".to_owned()), ..alarm(150, SYSCALL_DENIED, "") };
        let netlink = tried("families", Outcome::Stopped { by: Some(Control::Seccomp) }, "socket netlink: EAFNOSUPPORT");
        assert_eq!(seen(&web, &netlink, std::slice::from_ref(&denied)), Some(true));
        let nothing_there = tried("sockets", Outcome::Stopped { by: Some(Control::MountNamespace) }, "not there");
        assert_eq!(seen(&web, &nothing_there, &[denied]), Some(false));
    }
}
