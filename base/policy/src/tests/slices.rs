//! Slices against the whole set: the same answer to every question that a slice's owner asks.

use super::*;

/// A small generator of its own (xorshift64), so that a seed gives the same questions for ever.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i + 1));
        }
    }
}

pub(super) type Asked = (String, Action, Resource, Option<Authority>);

/// Random questions over the names of the manifest; near enough to its flows that a good part is allowed.
pub(super) fn questions(seed: u64, count: usize) -> Vec<Asked> {
    let (mut random, examples) = (Random(seed.max(1)), &bundle().examples);
    let callers = ["api", "web", "validator", "transcoder", "internet", "edge", "objects", "console", "operator", "stranger"];
    let people = ["someone", "ada", "eve", "friend"];
    let purposes = ["upload", "view", "manage", "process", "operate", "steal"];
    let mut all = Vec::new();
    for _ in 0..count {
        let example = random.pick(examples).clone();
        let (mut caller, mut action, mut resource, mut authority) = (example.caller, example.action, example.resource, example.authority);
        // Zero to three changes to a request that is allowed.
        for _ in 0..random.below(4) {
            match random.below(8) {
                0 => caller = (*random.pick(&callers)).to_owned(),
                1 => {
                    let fits: Vec<_> = Action::ALL.iter().filter(|a| a.resource_type() == action.resource_type()).collect();
                    action = **random.pick(&fits);
                }
                2 => authority = None,
                3 => authority = authority.map(|a| Authority { purpose: (*random.pick(&purposes)).to_owned(), ..a }),
                4 => authority = authority.map(|a| Authority { user: (*random.pick(&people)).to_owned(), ..a }),
                5 => {
                    let (scopes, admin, step_up) = (random.below(2) == 0, random.below(2) == 0, random.below(2) == 0);
                    let set = |yes: bool, word: &str| if yes { BTreeSet::from([word.to_owned()]) } else { BTreeSet::new() };
                    authority = authority.map(|a| Authority { scopes: set(scopes, "videos"), roles: set(admin, "admin"), step_up, ..a });
                }
                6 => {
                    let consumer = (*random.pick(&callers)).to_owned();
                    let input = format!("{}/folder/object", random.pick(&["originals", "renditions"]));
                    let folder = (*random.pick(&["folder", "other"])).to_owned();
                    let job = (random.below(4) > 0).then(|| worker("x", &consumer, &[&input], &folder).job.unwrap());
                    authority = authority.map(|a| Authority { job, ..a });
                }
                _ => {
                    if let Resource::Object(facts) = &mut resource {
                        facts.verdict = *random.pick(&[Verdict::Untyped, Verdict::Clean, Verdict::Rejected]);
                        facts.owner = random.pick(&[None, Some("someone"), Some("ada"), Some("eve")]).map(str::to_owned);
                        facts.shared_with = BTreeSet::from([(*random.pick(&people)).to_owned()]);
                        let (bucket, folder) = (*random.pick(&["originals", "renditions", "backups"]), *random.pick(&["folder", "other"]));
                        facts.reference = format!("{bucket}/{folder}/object").parse().unwrap();
                    }
                }
            }
        }
        all.push((caller, action, resource, authority));
    }
    all
}

// E4, POLICY section 5: 20,000 random questions, each asked of the whole set and of every slice whose owner would ask it.
#[test]
fn a_slice_answers_as_the_whole_set_does() {
    let bundle = bundle();
    let whole = Engine::whole(bundle, 1).unwrap();
    let names = ["api", "web", "validator", "transcoder", "edge", "objects", "queue", "secrets", "console"];
    let slices: BTreeMap<&str, Engine> = names.map(|n| (n, Engine::load(&slice_for(&workload(n), bundle).unwrap(), 1).unwrap())).into();
    let (mut compared, mut allowed) = (0, 0);
    for (caller, action, resource, authority) in questions(20_261_121, 20_000) {
        let question = Question { caller: &caller, action, resource: &resource, authority: authority.as_ref() };
        let expect = whole.decide(&question);
        let owner = match &resource {
            Resource::Object(_) | Resource::Bucket(_) => "objects",
            Resource::Queue(_) => "queue",
            Resource::Secret(_) => "secrets",
            Resource::Plane(_) => "console",
            Resource::Route { .. } if action == Action::Enter => "edge",
            Resource::Route { service, .. } => service.as_str(),
            Resource::Outside { .. } => caller.as_str(),
        };
        for slice in [owner, caller.as_str()].iter().collect::<BTreeSet<_>>().into_iter().filter_map(|n| slices.get(n)) {
            let relevant = action != Action::Enter || owner == "edge";
            let got = slice.decide(&question);
            if relevant && caller != "stranger" {
                assert_eq!(got.decision.is_allow(), expect.decision.is_allow(), "{question:?}\n{got:?}\n{expect:?}");
                assert!(!expect.decision.is_allow() || got == expect, "{question:?}\n{got:?}\n{expect:?}");
                assert_eq!(got.errors.is_empty(), expect.errors.is_empty());
            }
            compared += 1;
            allowed += usize::from(got.decision.is_allow());
        }
    }
    assert!(compared > 20_000 && allowed > compared / 10 && allowed < compared * 9 / 10, "{allowed} of {compared} allowed");
}

// Least knowledge: a guard's slice has no policy of flows that are not its own.
#[test]
fn a_guard_gets_only_its_own_cells() {
    let bundle = bundle();
    let transcoder = slice_for(&workload("transcoder"), bundle).unwrap();
    assert!(!transcoder.cells.is_empty() && transcoder.cells.iter().all(|c| c.caller == "transcoder"), "nobody calls the transcoder");
    let api = slice_for(&workload("api"), bundle).unwrap();
    assert!(api.cells.iter().all(|c| c.caller == "api" || c.action == Action::Call));
    assert!(slice_for(&workload("login"), bundle).unwrap().cells.is_empty());
    // Groups and facts are folded away: what is left does not depend on the store's hierarchy.
    for cell in slice_for(&workload("objects"), bundle).unwrap().cells {
        assert!(!serde_json::to_string(&cell.policies).unwrap().contains("objectGet\""), "{cell:?}");
    }
}

// E16: a slice survives its journey as JSON, and is the same bytes for the same system.
#[test]
fn a_slice_is_stable_and_travels_as_json() {
    let slice = slice_for(&workload("objects"), bundle()).unwrap();
    let text = serde_json::to_string(&slice).unwrap();
    assert_eq!(serde_json::from_str::<PolicySlice>(&text).unwrap(), slice);
    assert_eq!(serde_json::to_string(&slice_for(&workload("objects"), bundle()).unwrap()).unwrap(), text);
}

// E5: a measurement, not a timed test. `cargo nextest run -p policy --release --run-ignored all -E 'test(measure)' --no-capture`
#[test]
#[ignore = "a measurement; run it in release"]
fn measure_decisions() {
    let clock = trust::SystemClock::shared();
    let bundle = bundle();
    let rows = [
        ("edge", Action::Enter),
        ("api", Action::Call),
        ("queue", Action::Publish),
        ("objects", Action::ObjectPresignGet),
        ("objects", Action::ObjectRead),
    ];
    let whole = Engine::whole(bundle, 1).unwrap();
    for (name, action) in rows {
        let engine = Engine::load(&slice_for(&workload(name), bundle).unwrap(), 1).unwrap();
        let serves = |e: &&Example| e.action == action && engine.decide(&e.question()).decision.is_allow();
        let example = bundle.examples.iter().find(serves).unwrap();
        for (kind, engine) in [("slice", &engine), ("whole", &whole)] {
            let mut times: Vec<u128> = (0..20_000)
                .map(|_| {
                    let start = clock.monotonic();
                    std::hint::black_box(engine.decide(&example.question()));
                    (clock.monotonic() - start).as_nanos()
                })
                .collect();
            times.sort_unstable();
            let us = |q: usize| times[times.len() * q / 1000] as f64 / 1000.0;
            eprintln!("{:<40} {kind}: p50 {:.1} us, p99 {:.1} us", example.flow, us(500), us(990));
        }
    }
}
