//! The process that everything happens in: inside an outer network from its first line on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use breach::attacker::http::Ask;
use breach::attacker::note::{Said, Tried};
use breach::attacker::techniques::{ALL, Run, Visitor, Who};
use breach::{Act, Control, Mark, Notes, Profile, Report};
use sandbox::attack::outer::{self, Inner};
use tokio::signal::unix::{SignalKind, signal};

use super::bound::Tokens;
use super::browser::Browser;
use super::nearby::Neighbourhood;
use super::neighbours::{self, Neighbours};
use super::people::People;
use super::probe::{self, Probed, chain, disk, page, program, stranger};
use super::rounds::{EXHAUSTION, Rounds};
use super::stage::Stage;
use super::watch::{self, Watch};
use super::{BreachError, Wish, another, copy, doors, measured, review};
use crate::dangerous::{DangerousSwitch, dangerous_switches};

/// First argument of this process.
pub(crate) const INSIDE: &str = "breach-inside";
/// Second argument of it where the copy has no user namespaces.
pub(crate) const CONFINED: &str = "confined";
/// First argument of the process that runs the copy.
pub(crate) const SYSTEM: &str = "breach-system";
/// Exit code when something that is needed is not there (sysexits.h, EX_UNAVAILABLE).
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;

/// Runs everything in the scratch folder of the arguments; the last line on standard output is the report.
#[must_use]
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    // Before anything else: whatever happens later happens where nothing leads out.
    let inner = if arguments.get(1).is_some_and(|word| word == CONFINED) { Inner::Refused } else { Inner::Granted };
    if let Err(error) = outer::enter(doors::ADDRESSES, doors::ADDRESSES_6, inner) {
        crate::cli::complain(format_args!("this machine gives no network of its own to break in, so nothing is started: {error}"));
        return ExitCode::from(EXIT_UNAVAILABLE);
    }
    let Some(scratch) = arguments.first().map(PathBuf::from) else { return ExitCode::from(EXIT_UNAVAILABLE) };
    match measured(&scratch).map(|report| report.to_json()) {
        Ok(Ok(text)) => {
            // As one line, after everything else.
            let line: String = text.lines().map(str::trim_start).collect();
            crate::cli::say(line);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut cause = Some(error);
    while let Some(error) = cause {
        crate::cli::complain(error);
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// Runs the copy itself: manifest, folder, and the controls that it goes without are the arguments. Only where nothing leads out.
#[must_use]
pub(crate) fn run_system(arguments: &[String]) -> ExitCode {
    if !outer::is_closed().unwrap_or(false) {
        crate::cli::complain(format_args!("a copy for breaking in runs inside its outer network only; start it with `palisade breach`"));
        return ExitCode::from(EXIT_UNAVAILABLE);
    }
    // It ends with the process that broke in.
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM) {
        return failed(&error);
    }
    let (Some(manifest), Some(dir)) = (arguments.first(), arguments.get(1)) else { return ExitCode::from(EXIT_UNAVAILABLE) };
    let dangerous_without = arguments.get(2..).unwrap_or_default();
    crate::cli::up_copy(Path::new(manifest), Path::new(dir), dangerous_without)
}

fn measured(scratch: &Path) -> Result<Report, BreachError> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(|error| BreachError::Process(error.into()))?;
    let wish = std::fs::read(scratch.join("wish.json")).map_err(BreachError::Copy)?;
    let wish: Wish = serde_json::from_slice(&wish).map_err(|error| BreachError::Ended(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(BreachError::Process)?;
    let handle = runtime.handle().clone();
    ends_when_asked(&runtime).map_err(BreachError::Process)?;
    let progress = Progress::new();
    let doors = doors::Doors::open(scratch).map_err(BreachError::Process)?;
    let copy = copy::make(scratch, &wish)?;
    let stage = Stage::start(&copy.path, &copy.dir, &wish.dangerous_without)?;
    progress.tell("the copy is up");
    let people = People::come(&handle, &stage, breach::vendor_scopes(&copy.original)).map_err(BreachError::Process)?;
    let mut rounds = Rounds { script: &copy.script, people: &people, watch: Watch::new(copy.dir.join("log")), stolen: Vec::new() };
    rounds.calm().map_err(BreachError::Ended)?;
    progress.tell("people have come in and have things of every kind");
    let mut seen = measured::Seen::default();
    let wanted = |profile: &Profile| wish.profiles.is_empty() || wish.profiles.contains(profile);
    let visits = Visits { scratch, stage: &stage, people: &people, script: &copy.script, progress: &progress, wanted: &wanted };
    doors.came();
    for service in copy.original.services.keys().filter(|service| wanted(&Profile::Service((*service).clone()))) {
        rounds.attack(service);
        progress.tell(&format!("{service} was taken over"));
        seen.came.insert(service.clone(), doors.came());
    }
    if copy.script.wants(EXHAUSTION) {
        let neighbours = Neighbours::of(&copy.script, &people.bob);
        let quiet = in_quiet(&neighbours);
        for service in copy.original.services.keys().filter(|service| wanted(&Profile::Service((*service).clone()))) {
            let during = rounds.press(service, &neighbours);
            let mut tried = rounds.watch.said.iter().filter_map(|(name, said)| match said {
                Said::Tried(tried) if name == service && tried.technique == EXHAUSTION => Some((tried.from_ms, tried.until_ms)),
                _ => None,
            });
            if let Some((from_ms, until_ms)) = tried.next_back() {
                seen.neighbours.extend(neighbours::paces(&quiet, &during, service, from_ms, until_ms));
            }
            progress.tell(&format!("{service} used up what it could"));
        }
    }
    // Each has things of its own, which nobody has touched yet.
    let everybody = [(&people.bob, VICTIM), (&people.ada, "ada"), (&people.root, "root"), (&people.partner, "partner")];
    if [Profile::Person, Profile::Insider, Profile::InsiderMfa, Profile::Vendor].iter().any(&wanted) {
        rounds.things(&everybody, OUTSIDE);
    }
    if wanted(&Profile::InsiderMfa) {
        // The same person, whose first turn has stored what it was granted.
        rounds.things(&[(&people.root, "root")], OUTSIDE_PROVEN);
    }
    let whos = [
        (Who::Stranger, Profile::External),
        (Who::Person, Profile::Person),
        (Who::Insider, Profile::Insider),
        (Who::InsiderMfa, Profile::InsiderMfa),
        (Who::Vendor, Profile::Vendor),
    ];
    visits.all(&whos, &rounds.stolen, &mut seen)?;
    let services = copy.original.services.keys().map(String::as_str).collect();
    let switches = dangerous_switches(&wish.dangerous_without, &services).map_err(BreachError::Ended)?;
    let Looked { mut probed, called, asked } =
        while_it_runs(&handle, &mut rounds, &copy, scratch, &switches).map_err(BreachError::Process)?;
    seen.said.append(&mut rounds.watch.said);
    seen.lost.append(&mut rounds.watch.lost);
    drop(rounds);
    stage.stop()?;
    let log = crate::roles::evidence::log_folder(&copy.dir.join("data/evidence"));
    seen.alarms = watch::alarms(&log);
    let mut report = measured::report(&copy.original, seen, &wanted);
    if !switches.is_empty() {
        let mut entries = watch::entries(&log);
        entries.retain(|entry| Some(&entry.record.trace) != asked.as_ref());
        probed.extend(stranger::judged(&called, &entries));
        probed.push(chain::try_changes(&copy.dir, scratch).map_err(BreachError::Copy)?);
        if probe::is_out(&switches, Control::Sealing) {
            probed.extend(disk::read(&copy.dir, &copy.script.canaries()).map_err(BreachError::Copy)?);
        }
        report.absent = review::absent(&copy, &switches, &probed, &entries)?;
    }
    report.isolation = watch::levels(&copy.original, &watch::entries(&log), &wanted);
    let other = report
        .isolation
        .iter()
        .find(|(name, levels)| levels.at.iter().any(|level| copy.script.services.get(*name).is_none_or(|part| part.isolation != *level)));
    if let Some((name, levels)) = other {
        let why = format!("{name} was started at isolation {:?}, and the attack was made for another", levels.at);
        return Err(BreachError::Ended(why));
    }
    report.beyond = copy.beyond;
    runtime.shutdown_background();
    Ok(report)
}

/// What was looked at in the copy while it ran.
struct Looked {
    probed: Vec<Probed>,
    called: stranger::Called,
    /// The trace of what the run asked for itself in the gateway's place.
    asked: Option<String>,
}

/// What is looked at in the copy while it runs, of controls that are left out somewhere.
fn while_it_runs(
    handle: &tokio::runtime::Handle,
    rounds: &mut Rounds<'_>,
    copy: &copy::Copy,
    scratch: &Path,
    switches: &[DangerousSwitch],
) -> std::io::Result<Looked> {
    let (mut probed, mut called, mut asked) = (Vec::new(), stranger::Called::new(), None);
    if probe::is_out(switches, Control::GuardIn) {
        called = stranger::as_no_caller(handle, &copy.dir, scratch)?;
    }
    if probe::is_out(switches, Control::Role) {
        let token = rounds.lent().ok_or_else(|| std::io::Error::other("no service of the copy has a person's authority to ask with"))?;
        let page = page::asked(handle, &copy.dir, scratch, &token)?;
        probed.push(page.probed);
        asked = Some(page.trace);
    }
    if probe::is_out(switches, Control::ArtefactDigest) {
        let (out, stand): (Vec<&String>, Vec<&String>) =
            copy.original.services.keys().partition(|service| probe::is_out_at(switches, Control::ArtefactDigest, service));
        // Those that go without, and one that does not.
        for (service, number) in out.into_iter().chain(stand.into_iter().take(1)).zip(1000_u32..) {
            probed.extend(program::change(rounds, copy, service, number)?);
        }
    }
    Ok(Looked { probed, called, asked })
}

/// How long quiet is looked at.
const QUIET: std::time::Duration = std::time::Duration::from_secs(3);

/// Bob's requests while nobody attacks.
fn in_quiet(neighbours: &Neighbours<'_>) -> Vec<neighbours::Sample> {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| neighbours.ask_until(&over, None));
        std::thread::sleep(QUIET);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap_or_default()
    })
}

/// Number of the things that visitors from outside have, and whose things they are after.
const OUTSIDE: u32 = 2_000;
/// The same of an administrator with a second proof.
const OUTSIDE_PROVEN: u32 = 2_010;
const VICTIM: &str = "bob";
/// Who comes to the door.
struct Visits<'a> {
    scratch: &'a Path,
    stage: &'a Stage,
    people: &'a People,
    script: &'a breach::Script,
    progress: &'a Progress,
    wanted: &'a dyn Fn(&Profile) -> bool,
}

impl Visits<'_> {
    /// Each of these in turn, with what was stolen inside.
    fn all(&self, whos: &[(Who, Profile)], stolen: &[(String, String)], seen: &mut measured::Seen) -> Result<(), BreachError> {
        let wanted: Vec<_> = whos.iter().filter(|(_, profile)| (self.wanted)(profile)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let own = Mark::new(Act::Calm, "none", "ada", 0).to_string();
        let tokens = Tokens::of(self.scratch, self.stage, self.people, self.script, &own).map_err(BreachError::Process)?;
        let nearby = Neighbourhood::of(&self.stage.origin).map_err(BreachError::Process)?;
        let another = |socket: &str, modes_aside: bool| another::call(self.scratch, socket, modes_aside);
        let around = Around { stolen, tokens: &tokens, nearby: &nearby, as_another_user: &another };
        for (who, profile) in wanted {
            // Signed in just now, and not before it is their turn: a proof is one of just now for five minutes.
            let proven = matches!(who, Who::InsiderMfa).then(|| self.people.proven()).transpose().map_err(BreachError::Process)?;
            let tries = from_outside((*who, proven.as_ref()), self.script, self.people, &around);
            self.progress.tell(&format!("{profile} has tried"));
            seen.outside.extend(tries.into_iter().map(|tried| (profile.clone(), tried)));
        }
        Ok(())
    }
}

/// What there is to be had besides the door.
struct Around<'a> {
    stolen: &'a [(String, String)],
    tokens: &'a Tokens,
    nearby: &'a Neighbourhood,
    as_another_user: &'a dyn Fn(&str, bool) -> std::io::Result<String>,
}

/// Everything that one visitor tries.
fn from_outside((who, proven): (Who, Option<&Browser>), script: &breach::Script, people: &People, around: &Around<'_>) -> Vec<Tried> {
    let door: &Browser = match who {
        Who::Stranger => &people.stranger,
        Who::Person => &people.ada,
        Who::Insider => &people.root,
        Who::InsiderMfa => proven.unwrap_or(&people.root),
        Who::Vendor => &people.partner,
    };
    let owner = match who {
        Who::Stranger | Who::Person => "ada",
        Who::Insider | Who::InsiderMfa => "root",
        Who::Vendor => "partner",
    };
    let own = Mark::new(Act::Calm, "none", owner, if who == Who::InsiderMfa { OUTSIDE_PROVEN } else { OUTSIDE });
    let owners = [(&people.ada, "a person's session"), (&people.root, "an administrator's session"), (&people.partner, "a partner's key")];
    let credentials: Vec<_> =
        owners.into_iter().filter_map(|(browser, what)| browser.credential(what)).chain(around.tokens.bearers.clone()).collect();
    let visitor = Visitor {
        who,
        door,
        bare: &people.stranger,
        script,
        own: own.to_string(),
        victim: Mark::new(Act::Calm, "none", VICTIM, OUTSIDE).to_string(),
        scopes: (who == Who::Vendor).then(|| people.partner_scopes.clone()),
        lesser: (who == Who::Vendor).then_some(&people.lesser as &dyn Ask),
        stolen: around.stolen,
        credentials: &credentials,
        bound: &around.tokens.bound,
        unbound: &around.tokens.unbound,
        thief: &around.tokens.thief,
        as_another_user: around.as_another_user,
        nearby: around.nearby,
        by_password_alone: &|| people.by_password_alone(),
    };
    let mut tries = Vec::new();
    for technique in ALL.iter().filter(|technique| script.wants(technique.id)) {
        if let Run::Outside(run, by) = technique.run
            && by.contains(&who)
        {
            let mut notes = Notes::new(technique.id, &own);
            run(&visitor, &mut notes);
            tries.extend(notes.gathered());
        }
    }
    tries
}

/// How far the run is, for whoever looks at its standard error.
struct Progress(std::sync::Arc<dyn trust::Clock>, std::time::Duration);

impl Progress {
    fn new() -> Self {
        let clock = trust::SystemClock::shared();
        let now = clock.monotonic();
        Self(clock, now)
    }

    fn tell(&self, what: &str) {
        let passed = self.0.monotonic().saturating_sub(self.1);
        crate::cli::complain(format_args!("{:>6.1} s  {what}", passed.as_secs_f64()));
    }
}

/// SIGTERM ends this process; the copy ends with it.
fn ends_when_asked(runtime: &tokio::runtime::Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    runtime.spawn(async move {
        terminate.recv().await;
        std::process::exit(1);
    });
    Ok(())
}
