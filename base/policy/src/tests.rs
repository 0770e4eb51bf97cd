//! Decisions as tables, slices against the whole, and the traps of POLICY.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use manifest::{Manifest, Verdict};
use trust::{Authority, Decision, DenyReason, Job, ObjectRef, TrustDomain, Workload};

use super::*;

mod dangerous;
mod shadow;
mod slices;
mod traps;

pub(crate) const VIDEO: &str = include_str!("../../../apps/video/palisade.toml");

/// The reference manifest with a secret that `api` reads and a destination outside that it calls.
pub(crate) fn video() -> Manifest {
    let more = "\n[data.credentials]\nsensitivity = 3\n[secret.catalogue-db]\ndata = \"credentials\"\n[egress.mail]\nhost = \"mail.example\"\ndata = \"page\"\ndeclassified = \"only the day is sent\"\n";
    let calls = "\"bucket.renditions:presign-get for view\",";
    assert!(VIDEO.contains(calls));
    let text = VIDEO
        .replace(calls, &format!("{calls}\n  \"secret.catalogue-db:read\",\n  \"egress.mail:POST /days/{{day}} for manage, view\","))
        + more;
    Manifest::parse("palisade.toml", &text).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn by_hand(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("extra.cedar".to_owned(), text.to_owned())])
}

pub(crate) fn bundle() -> &'static Bundle {
    static BUNDLE: std::sync::LazyLock<Bundle> =
        std::sync::LazyLock::new(|| Bundle::build(&video(), &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}")));
    &BUNDLE
}

pub(crate) fn workload(name: &str) -> Workload {
    let domain = TrustDomain::parse("video.example").unwrap();
    if manifest::ROLE_NAMES.contains(&name) { domain.role(name).workload } else { domain.service(name).workload }
}

pub(crate) fn engine(name: &str) -> Engine {
    Engine::load(&slice_for(&workload(name), bundle()).unwrap(), 7).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn person(user: &str, purpose: &str) -> Authority {
    Authority {
        txn: "t".into(),
        user: user.into(),
        purpose: purpose.into(),
        scopes: BTreeSet::from(["videos".to_owned()]),
        roles: BTreeSet::new(),
        step_up: false,
        job: None,
    }
}

pub(crate) fn worker(user: &str, consumer: &str, inputs: &[&str], folder: &str) -> Authority {
    let inputs = inputs.iter().map(|o| o.parse::<ObjectRef>().unwrap()).collect();
    let job = Job { id: "j".into(), lease: "l".into(), queue: "q".into(), consumer: consumer.into(), inputs, folder: folder.into() };
    Authority { job: Some(job), scopes: BTreeSet::new(), ..person(user, "process") }
}

pub(crate) fn object(reference: &str, verdict: Verdict, owner: Option<&str>) -> Resource {
    Resource::Object(ObjectFacts {
        reference: reference.parse().unwrap(),
        verdict,
        owner: owner.map(str::to_owned),
        shared_with: BTreeSet::from(["friend".to_owned()]),
    })
}

type Row = (&'static str, Action, Resource, Option<Authority>, Result<&'static str, DenyReason>);

/// How large slices are and how long they take to load here: `--run-ignored all -E 'test(sizes)' --no-capture`.
#[test]
#[ignore = "a measurement"]
fn measure_slice_sizes_and_loading() {
    let clock = trust::SystemClock::shared();
    for name in ["api", "web", "validator", "transcoder", "edge", "objects", "queue", "login"] {
        let slice = slice_for(&workload(name), bundle()).unwrap();
        let start = clock.monotonic();
        let engine = Engine::load(&slice, 1);
        let took = clock.monotonic() - start;
        let bytes = serde_json::to_string(&slice).unwrap().len();
        eprintln!("{name:<12} {bytes:>7} bytes, {:>3} cells, {:>3} examples, loaded in {took:?}", slice.cells.len(), slice.examples.len());
        assert!(engine.is_ok());
    }
}

fn check(engine: &Engine, rows: &[Row]) {
    for (caller, action, resource, authority, expect) in rows {
        let answer = engine.decide(&Question { caller, action: *action, resource, authority: authority.as_ref() });
        match (&answer.decision, expect) {
            (Decision::Allow { policies, epoch, .. }, Ok(flow)) => {
                assert_eq!(
                    (policies.as_slice(), *epoch),
                    ([(*flow).to_owned()].as_slice(), engine.epoch()),
                    "{caller} {action} {resource}"
                );
            }
            (Decision::Deny { reason, .. }, Err(expect)) if reason == expect => {}
            _ => panic!("{caller} {action} {resource} {authority:?}: expected {expect:?}, got {answer:?}"),
        }
    }
}

fn objects_rows() -> Vec<Row> {
    use Action::*;
    use DenyReason::*;
    use Verdict::*;
    let original = |v| object("originals/v1/original", v, Some("ada"));
    let rendition = |owner| object("renditions/v1/720p.mp4", Clean, owner);
    let job = |consumer: &str| Some(worker("ada", consumer, &["originals/v1/original"], "v1"));
    vec![
        // A person's way: upload, watch, delete.
        ("api", ObjectPresignPut, original(Untyped), Some(person("ada", "upload")), Ok("flow.api.bucket.originals.presign-put")),
        ("api", ObjectPresignPut, original(Untyped), Some(person("ada", "view")), Err(PolicyDenied)),
        ("api", ObjectPresignGet, rendition(Some("ada")), Some(person("ada", "view")), Ok("flow.api.bucket.renditions.presign-get")),
        ("api", ObjectPresignGet, rendition(Some("ada")), Some(person("friend", "view")), Ok("flow.api.bucket.renditions.presign-get")),
        ("api", ObjectDelete, rendition(Some("ada")), Some(person("ada", "manage")), Ok("flow.api.bucket.renditions.delete")),
        // d1, d2: another person's object, an object of nobody, a friend who would delete.
        ("api", ObjectPresignGet, rendition(Some("ada")), Some(person("eve", "view")), Err(PolicyDenied)),
        ("api", ObjectPresignGet, rendition(None), Some(person("eve", "view")), Err(PolicyDenied)),
        ("api", ObjectDelete, rendition(Some("ada")), Some(person("eve", "manage")), Err(PolicyDenied)),
        ("api", ObjectDelete, rendition(Some("ada")), Some(person("friend", "manage")), Err(PolicyDenied)),
        // d3: nobody's authority.
        ("api", ObjectPresignGet, rendition(Some("ada")), None, Err(AuthorityMissing)),
        ("transcoder", ObjectRead, original(Clean), None, Err(AuthorityMissing)),
        // f: quarantine, for everyone but the validator.
        ("validator", ObjectRead, original(Untyped), job("validator"), Ok("flow.validator.bucket.originals.read")),
        ("validator", ObjectRead, original(Rejected), job("validator"), Err(ObjectQuarantined)),
        ("validator", ObjectVerdict, original(Untyped), job("validator"), Ok("flow.validator.bucket.originals.verdict")),
        ("transcoder", ObjectRead, original(Clean), job("transcoder"), Ok("flow.transcoder.bucket.originals.read")),
        ("transcoder", ObjectRead, original(Untyped), job("transcoder"), Err(ObjectQuarantined)),
        ("transcoder", ObjectRead, original(Rejected), job("transcoder"), Err(ObjectQuarantined)),
        // g1: only what the job names, only the consumer of the job, only the job's person.
        ("transcoder", ObjectRead, object("originals/v2/original", Clean, Some("ada")), job("transcoder"), Err(JobMismatch)),
        ("transcoder", ObjectRead, original(Clean), job("validator"), Err(JobMismatch)),
        ("transcoder", ObjectRead, original(Clean), Some(person("ada", "process")), Err(JobMismatch)),
        ("transcoder", ObjectRead, object("originals/v1/original", Clean, Some("eve")), job("transcoder"), Err(PolicyDenied)),
        // g2: only into the job's folder.
        (
            "transcoder",
            ObjectWrite,
            object("renditions/v1/720p.mp4", Untyped, Some("ada")),
            job("transcoder"),
            Ok("flow.transcoder.bucket.renditions.write"),
        ),
        ("transcoder", ObjectWrite, object("renditions/v2/720p.mp4", Untyped, Some("ada")), job("transcoder"), Err(JobMismatch)),
        ("transcoder", ObjectWrite, object("renditions/v1x/720p.mp4", Untyped, Some("ada")), job("transcoder"), Err(JobMismatch)),
        ("transcoder", ObjectWrite, object("renditions/v1/720p.mp4", Untyped, Some("eve")), job("transcoder"), Err(PolicyDenied)),
        ("transcoder", ObjectWrite, original(Untyped), job("transcoder"), Err(PolicyDenied)),
        // No flow at all.
        ("transcoder", ObjectDelete, original(Clean), job("transcoder"), Err(PolicyDenied)),
        ("transcoder", ObjectVerdict, original(Untyped), job("transcoder"), Err(PolicyDenied)),
        ("web", ObjectRead, rendition(Some("ada")), Some(person("ada", "view")), Err(PolicyDenied)),
        ("api", BucketList, Resource::Bucket("originals".into()), Some(person("ada", "view")), Err(PolicyDenied)),
        // Undeclared names.
        ("stranger", ObjectRead, original(Clean), job("stranger"), Err(PeerUndeclared)),
        ("api", ObjectDelete, object("backups/v1/x", Clean, Some("ada")), Some(person("ada", "manage")), Err(PolicyDenied)),
        ("api", ObjectDelete, rendition(Some("ada")), Some(person("ada", "steal")), Err(PolicyDenied)),
        ("api", ObjectDelete, Resource::Bucket("renditions".into()), Some(person("ada", "manage")), Err(PolicyDenied)),
    ]
}

// E4, G11, H5: `objects` decides.
#[test]
fn objects_are_reached_by_declared_flows_on_the_owners_authority_only() {
    check(&engine("objects"), &objects_rows());
}

// E4: the same questions, asked of the whole set, are allowed and denied alike.
#[test]
fn the_same_question_has_the_same_answer_at_every_entry_point() {
    let bundle = bundle();
    let whole = Engine::whole(bundle, 7).unwrap();
    let at: BTreeMap<&str, Engine> =
        ["objects", "queue", "edge", "secrets", "api", "web", "validator", "transcoder"].map(|n| (n, engine(n))).into();
    let same = |question: &Question<'_>, points: &[&str]| {
        let expect = whole.decide(question).decision;
        for point in points {
            let got = at[point].decide(question).decision;
            assert_eq!(got.is_allow(), expect.is_allow(), "{question:?} at {point}");
            if expect.is_allow() {
                assert_eq!(got, expect, "{question:?} at {point}");
            }
        }
        expect.is_allow()
    };
    for (caller, action, resource, authority, expect) in &objects_rows() {
        let question = Question { caller, action: *action, resource, authority: authority.as_ref() };
        let points: Vec<&str> = if at.contains_key(caller) { vec!["objects", caller] } else { vec!["objects"] };
        assert_eq!(same(&question, &points), expect.is_ok(), "{question:?}");
    }
    for example in &bundle.examples {
        let points: Vec<&str> = match example.action {
            Action::Enter => vec!["edge"],
            Action::Call if example.caller == "edge" => vec!["edge", "api"],
            Action::Call => vec!["web", "api"],
            Action::Publish | Action::Consume => vec!["queue"],
            Action::SecretRead => vec!["secrets", "api"],
            _ => continue,
        };
        let points: Vec<&str> = match &example.resource {
            Resource::Route { service, .. } if service == "web" => points.into_iter().filter(|p| *p == "edge").collect(),
            _ => points,
        };
        assert!(same(&example.question(), &points), "{}", example.flow);
        for miss in example.near_misses() {
            assert!(!same(&miss, &points), "{}", example.flow);
        }
    }
}

// D6, H2, H11
#[test]
fn calls_queues_and_secrets_follow_the_declared_flows() {
    use Action::*;
    use DenyReason::*;
    let videos = |method: &str| Resource::route("api", method, "/api/videos");
    let queue = |name: &str| Resource::Queue(name.to_owned());
    let secret = Resource::Secret("catalogue-db".into());
    let no_scope = |p: &str| Some(Authority { scopes: BTreeSet::new(), ..person("ada", p) });
    let job = |consumer: &str| Some(worker("ada", consumer, &[], "v1"));
    let mail = |method: &str| Resource::outside("mail", method, "/days/{day}");
    let rows: Vec<Row> = vec![
        ("internet", Enter, videos("POST"), Some(person("ada", "upload")), Ok("flow.internet.service.api.POST /api/videos")),
        ("internet", Enter, videos("POST"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("internet", Enter, videos("POST"), no_scope("upload"), Err(ScopeMissing)),
        ("internet", Enter, videos("POST"), None, Err(AuthorityMissing)),
        ("internet", Enter, Resource::route("web", "GET", "/"), no_scope("view"), Ok("flow.internet.service.web.GET /")),
        ("internet", Enter, Resource::route("api", "GET", "/metrics"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("edge", Call, videos("POST"), Some(person("ada", "upload")), Ok("flow.edge.service.api.POST /api/videos")),
        ("web", Call, videos("GET"), no_scope("view"), Ok("flow.web.service.api.GET /api/videos")),
        ("web", Call, videos("GET"), None, Err(AuthorityMissing)),
        ("web", Call, videos("POST"), Some(person("ada", "upload")), Err(PolicyDenied)),
        ("transcoder", Call, videos("GET"), job("transcoder"), Err(PolicyDenied)),
        ("internet", Call, videos("GET"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("validator", Publish, queue("validated"), job("validator"), Ok("flow.validator.queue.validated.publish")),
        ("validator", Publish, queue("validated"), job("transcoder"), Err(JobMismatch)),
        ("validator", Publish, queue("validated"), Some(person("ada", "process")), Err(JobMismatch)),
        ("validator", Publish, queue("validated"), None, Err(AuthorityMissing)),
        ("transcoder", Publish, queue("validated"), job("transcoder"), Err(PolicyDenied)),
        ("objects", Publish, queue("uploaded"), Some(person("ada", "upload")), Ok("flow.objects.bucket.originals.queue.uploaded.publish")),
        ("objects", Publish, queue("uploaded"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("api", Publish, queue("uploaded"), Some(person("ada", "upload")), Err(PolicyDenied)),
        ("transcoder", Consume, queue("validated"), job("transcoder"), Ok("flow.transcoder.queue.validated.consume")),
        ("transcoder", Consume, queue("validated"), job("validator"), Err(JobMismatch)),
        ("transcoder", Consume, queue("uploaded"), job("transcoder"), Err(PolicyDenied)),
        ("api", SecretRead, secret.clone(), None, Ok("flow.api.secret.catalogue-db.read")),
        ("api", SecretSign, secret.clone(), None, Err(PolicyDenied)),
        ("transcoder", SecretRead, secret, job("transcoder"), Err(PolicyDenied)),
        ("api", Egress, mail("POST"), Some(person("ada", "view")), Ok("flow.api.egress.mail.POST /days/{day}")),
        ("api", Egress, mail("POST"), Some(person("ada", "manage")), Ok("flow.api.egress.mail.POST /days/{day}")),
        ("api", Egress, mail("POST"), Some(person("ada", "upload")), Err(PolicyDenied)),
        ("api", Egress, mail("POST"), None, Err(AuthorityMissing)),
        ("api", Egress, mail("GET"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("web", Egress, mail("POST"), Some(person("ada", "view")), Err(PolicyDenied)),
        ("transcoder", Egress, mail("POST"), job("transcoder"), Err(PolicyDenied)),
    ];
    check(&Engine::whole(bundle(), 7).unwrap(), &rows);
    // In a slice, a call without a flow is known before Cedar.
    check(&engine("api"), &[("transcoder", Call, videos("GET"), job("transcoder"), Err(PeerUndeclared))]);
}

#[test]
fn a_service_cannot_pass_for_a_role_nor_a_role_for_a_service() {
    let domain = TrustDomain::parse("video.example").unwrap();
    assert_eq!(caller_name(&domain.role("edge")), Some("edge"));
    assert_eq!(caller_name(&domain.service("api")), Some("api"));
    assert_eq!(caller_name(&domain.service("edge")), None);
    assert_eq!(caller_name(&domain.role("api")), None);
}

// k: administrative acts need the role and step-up, or the operator.
#[test]
fn administration_needs_an_admin_with_step_up_or_the_operator() {
    use Action::*;
    let keys = || Resource::Plane("keys".into());
    let admin = |step_up| Some(Authority { roles: BTreeSet::from(["admin".to_owned()]), step_up, ..person("root", "operate") });
    let rows: Vec<Row> = vec![
        ("console", AdminView, keys(), admin(false), Ok("flow.console.plane.adminView")),
        ("console", AdminRotate, keys(), admin(true), Ok("flow.console.plane.adminRotate")),
        ("console", AdminRotate, keys(), admin(false), Err(DenyReason::StepUpMissing)),
        ("console", AdminRotate, keys(), Some(Authority { step_up: true, ..person("eve", "operate") }), Err(DenyReason::PolicyDenied)),
        ("operator", AdminRotate, keys(), None, Ok("flow.operator.plane.adminRotate")),
        ("api", AdminView, keys(), admin(true), Err(DenyReason::PolicyDenied)),
    ];
    check(&Engine::whole(bundle(), 7).unwrap(), &rows);
    check(&engine("console"), &rows);
}

// B13: a route with step_up takes it at the edge and behind it; who says why hears what is missing.
#[test]
fn a_route_that_takes_a_second_proof_is_closed_without_one() {
    let delete = "methods = [\"DELETE\"], purpose = \"manage\"";
    let manifest = Manifest::parse("palisade.toml", &VIDEO.replacen(delete, &format!("{delete}, step_up = true"), 1)).unwrap();
    let bundle = Bundle::build(&manifest, &BTreeMap::new()).unwrap();
    let route = || Resource::route("api", "DELETE", "/api/videos/{id}");
    let proved = |step_up| Some(Authority { step_up, ..person("ada", "manage") });
    let mut rows: Vec<Row> = Vec::new();
    for (caller, action, flow) in [
        ("internet", Action::Enter, "flow.internet.service.api.DELETE /api/videos/{id}"),
        ("edge", Action::Call, "flow.edge.service.api.DELETE /api/videos/{id}"),
    ] {
        rows.push((caller, action, route(), proved(true), Ok(flow)));
        rows.push((caller, action, route(), proved(false), Err(DenyReason::StepUpMissing)));
        rows.push((
            caller,
            action,
            route(),
            Some(Authority { scopes: BTreeSet::new(), ..proved(true).unwrap() }),
            Err(DenyReason::ScopeMissing),
        ));
        rows.push((caller, action, route(), None, Err(DenyReason::AuthorityMissing)));
    }
    check(&Engine::whole(&bundle, 7).unwrap(), &rows);
}

// E1
#[test]
fn a_policy_by_hand_is_refused_unless_it_is_strictly_valid_named_and_reasoned() {
    let corpus = [
        ("permit(principal, action, resource", "unexpected"),
        ("permit(principal == Workload::\"web\", action == Action::\"call\", resource);", "say why"),
        ("@reason(\"because\")\npermit(principal, action == Action::\"call\", resource);", "say why"),
        ("forbid(principal == Workload::\"wep\", action, resource);", "Workload::\"wep\""),
        ("@id(\"flow.mine\")\nforbid(principal, action, resource) when { context has job };", "is taken"),
        ("forbid(principal == ?principal, action, resource);", "templates"),
        ("forbid(principal, action == Action::\"call\", resource) when { context.authority.step_up };", "authority"),
        ("forbid(principal, action == Action::\"call\", resource) when { resource.clas.sensitivity > 1 };", "clas"),
        ("forbid(principal, action == Action::\"objectRead\", resource) when { resource.verdict == Verdict::\"claen\" };", "claen"),
        ("forbid(principal, action == Action::\"objectRaed\", resource);", "objectRaed"),
        ("@needs(\"x\")\nforbid(principal, action == Action::\"call\", resource) when { context has job };", "annotation"),
    ];
    for (text, words) in corpus {
        let error = Bundle::build(&video(), &by_hand(text)).expect_err(text).to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}

// A policy by hand narrows at once, and widens only with its reason; the forbids hold either way.
#[test]
fn policies_by_hand_narrow_and_widen_within_the_forbids() {
    use Action::*;
    let text = r#"
        @id("held") forbid(principal, action == Action::"objectDelete", resource) when { resource.folder like "hold-*" };
        @id("support") @reason("support staff look at videos that people complain about")
        permit(principal == Workload::"api", action == Action::"objectPresignGet", resource)
        when { context has authority && context.authority.user.roles.contains("support") && context.authority.step_up };"#;
    let bundle = Bundle::build(&video(), &by_hand(text)).unwrap_or_else(|e| panic!("{e}"));
    let engine = Engine::load(&slice_for(&workload("objects"), &bundle).unwrap(), 1).unwrap();
    let support = |step_up| Some(Authority { roles: BTreeSet::from(["support".to_owned()]), step_up, ..person("sam", "view") });
    let video = |verdict| object("renditions/v1/720p.mp4", verdict, Some("ada"));
    let held = object("renditions/hold-1/720p.mp4", Verdict::Clean, Some("ada"));
    check(
        &engine,
        &[
            ("api", ObjectPresignGet, video(Verdict::Clean), support(true), Ok("support")),
            ("api", ObjectPresignGet, video(Verdict::Clean), support(false), Err(DenyReason::PolicyDenied)),
            ("api", ObjectPresignGet, video(Verdict::Untyped), support(true), Err(DenyReason::ObjectQuarantined)),
            ("api", ObjectDelete, held, Some(person("ada", "manage")), Err(DenyReason::PolicyDenied)),
        ],
    );
}
