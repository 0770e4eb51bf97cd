//! How long a decision takes: 1,000 people, 100 services, 10,000 objects, questions of every kind in random order, each timed by itself.
//!
//! `cargo bench -p policy --bench decision` prints p50 and p99 of each kind. Every question is a flow's own example with another person
//! and another object, or somebody else's object, so most are allowed and some are not; both count.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement: it prints, it reads the clock, and it stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Instant;

use manifest::{Manifest, Verdict};
use policy::{Action, Bundle, Engine, ObjectFacts, Question, Resource, slice_for};
use trust::{Authority, ObjectRef, Workload};

const PEOPLE: usize = 1_000;
const SERVICES: usize = 100;
const OBJECTS: usize = 10_000;
const DECISIONS: usize = 50_000;

/// Of which one looks at uploads, one hands out URLs, and the others call each other in turn.
fn system() -> String {
    let mut text = r#"
[system]
name = "large"
trust_domain = "large.example"
purposes = ["upload", "view", "manage", "process"]

[data.video]
sensitivity = 2

[service.api]
owner = "web"
run = ["./api"]
data = "video"
public = [
  { path = "/api/videos", methods = ["POST"], purpose = "upload", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["GET"], purpose = "view", scope = "videos" },
  { path = "/api/videos/{id}", methods = ["DELETE"], purpose = "manage", scope = "videos" },
]
calls = [
  "bucket.originals:presign-put for upload",
  "bucket.originals:delete for manage",
  "bucket.renditions:presign-get for view",
]

[service.validator]
owner = "media"
run = ["./validator"]
untrusted_input = true
consumes = "queue.uploaded"
calls = ["bucket.originals:read", "bucket.originals:verdict", "bucket.renditions:write", "queue.validated:publish"]

[bucket.originals]
data = "video"
quarantine_until = "validator"
max_object = "2GiB"
types = ["video/mp4"]
events = { created = "queue.uploaded" }

[bucket.renditions]
data = "video"
clean_from = ["validator"]
max_object = "4GiB"
types = ["video/mp4"]

[queue.uploaded]
data = "video"
purpose = "process"
[queue.validated]
data = "video"
purpose = "process"
"#
    .to_owned();
    for n in 0..SERVICES - 2 {
        let consumes = if n == 0 { "consumes = \"queue.validated\"\n" } else { "" };
        write!(
            text,
            "\n[service.s{n}]\nowner = \"s\"\nrun = [\"./s\"]\ndata = \"video\"\n{consumes}\
             public = [{{ path = \"/s{n}/{{id}}\", methods = [\"GET\"], purpose = \"view\", scope = \"videos\" }}]\n\
             internal = [{{ path = \"/things/{{id}}\", methods = [\"GET\"], purpose = \"view\" }}]\n\
             calls = [\"service.s{}:GET /things/{{id}}\"]\n",
            (n + 1) % (SERVICES - 2)
        )
        .unwrap();
    }
    text
}

struct Asked {
    kind: &'static str,
    engine: usize,
    caller: String,
    action: Action,
    resource: Resource,
    authority: Option<Authority>,
}

/// xorshift64: the same questions in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

fn kind(action: Action) -> &'static str {
    match action {
        Action::Enter => "public route",
        Action::Call => "mesh call",
        Action::Publish | Action::Consume => "queue",
        _ => "object",
    }
}

fn main() {
    let manifest = Manifest::parse("large.toml", &system()).unwrap_or_else(|error| panic!("{error:?}"));
    let bundle = Bundle::build(&manifest, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
    let role = |name: &str| Workload::Role(name.to_owned());
    let mut deciders = vec![role("edge"), role("objects"), role("queue")];
    deciders.extend((0..10).map(|n| Workload::Service(format!("s{n}"))));
    let mut random = Random(7);
    let objects: Vec<(String, String, BTreeSet<String>)> = (0..OBJECTS)
        .map(|n| {
            let shared = (0..n % 4).map(|_| format!("user-{}", random.below(PEOPLE))).collect();
            (format!("folder-{}/object-{n}", n % 500), format!("user-{}", n % PEOPLE), shared)
        })
        .collect();
    let (mut engines, mut asked) = (Vec::new(), Vec::new());
    for decider in &deciders {
        let slice = slice_for(decider, &bundle).unwrap();
        for example in slice.examples.iter().cycle().take(slice.examples.len().max(1) * 200).take(4_000) {
            let mut authority = example.authority.clone();
            let mut resource = example.resource.clone();
            let (key, owner, shared) = &objects[random.below(OBJECTS)];
            if let Resource::Object(facts) = &mut resource {
                // Two of three by the owner, the third by anybody.
                let user = if random.below(3) < 2 { owner.clone() } else { format!("user-{}", random.below(PEOPLE)) };
                let by_job = authority.as_ref().is_some_and(|a| a.job.is_some());
                let reference = if by_job { facts.reference.clone() } else { ObjectRef::new(&*facts.reference.bucket, &**key).unwrap() };
                let verdict = if by_job { facts.verdict } else { Verdict::Clean };
                *facts = ObjectFacts { reference, verdict, owner: Some(owner.clone()), shared_with: shared.clone() };
                authority = authority.map(|a| Authority { user, ..a });
            } else {
                authority = authority.map(|a| Authority { user: format!("user-{}", random.below(PEOPLE)), ..a });
            }
            let (caller, action) = (example.caller.clone(), example.action);
            asked.push(Asked { kind: kind(action), engine: engines.len(), caller, action, resource, authority });
        }
        engines.push(Engine::load(&slice, 1).unwrap_or_else(|error| panic!("{decider:?}: {error}")));
    }
    let (mut times, mut allowed) = (BTreeMap::<&str, Vec<u64>>::new(), BTreeMap::<&str, usize>::new());
    for n in 0..DECISIONS + DECISIONS / 10 {
        let one = &asked[random.below(asked.len())];
        let question = Question { caller: &one.caller, action: one.action, resource: &one.resource, authority: one.authority.as_ref() };
        let began = Instant::now();
        let answer = std::hint::black_box(engines[one.engine].decide(std::hint::black_box(&question)));
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap();
        assert!(answer.errors.is_empty(), "{:?}", answer.errors);
        // The first tenth warms up.
        if n >= DECISIONS / 10 {
            times.entry(one.kind).or_default().push(took);
            *allowed.entry(one.kind).or_default() += usize::from(answer.decision.is_allow());
        }
    }
    println!("{PEOPLE} people, {SERVICES} services, {OBJECTS} objects, {} policies; microseconds", bundle.rules.len());
    println!("{:14} {:>7} {:>8} {:>7} {:>7} {:>7}", "kind", "asked", "allowed", "p50", "p99", "max");
    for (kind, mut took) in times {
        took.sort_unstable();
        let at = |part: usize| took[(took.len() - 1) * part / 1000] as f64 / 1000.0;
        let share = allowed[kind] * 100 / took.len();
        println!("{kind:14} {:>7} {share:>7}% {:>7.1} {:>7.1} {:>7.1}", took.len(), at(500), at(990), at(1000));
    }
}
