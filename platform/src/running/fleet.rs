//! A hundred policy enforcement points under one `control`: real rooms, a real authority, mutual TLS over loopback, the subscription that
//! every guard has.
//!
//! `a_hundred_guards_enforce_what_was_applied_and_what_was_revoked` runs with the tests. The measurement of E16 does not; it is
//! `cargo nextest run -p palisade --run-ignored only -E "test(measured_push)" --no-capture`.
//!
//! Guarantees: E16.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proxy::bundle::PeerSvid;
use proxy::view::{Question, ViewHolder};
use trust::{SystemClock, limits};

use super::ground::{Ground, svid};

/// Services with a guard; the edge is the hundredth enforcement point.
const GUARDS: usize = 99;
/// A service whose identity is revoked, over and over. Nobody runs it.
const VICTIM: usize = GUARDS;
const SERVICES: usize = GUARDS + 1;
/// Nothing here takes as long on any machine; it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(120);

fn name(number: usize) -> String {
    format!("s{number:03}")
}

/// A hundred services and the edge; each service has a public route and one that its two neighbours call. `marked` has one route more: what an apply changes.
fn manifest(marked: Option<usize>) -> String {
    let mut text = String::from(
        "[system]\nname = \"fleet\"\ntrust_domain = \"fleet.example\"\npurposes = [\"view\"]\n\n[data.page]\nsensitivity = 1\n",
    );
    for number in 0..SERVICES {
        let (own, one, other) = (name(number), name((number + 1) % SERVICES), name((number + 2) % SERVICES));
        let more = format!(", {{ path = \"/{own}/more\", methods = [\"GET\"], purpose = \"view\" }}");
        let more = if marked == Some(number) { more } else { String::new() };
        write!(
            text,
            "\n[service.{own}]\nowner = \"o\"\nrun = [\"./prog\"]\ndata = \"page\"\npublic = [{{ path = \"/{own}\", methods = [\"GET\"], purpose = \"view\" }}{more}]\ninternal = [{{ path = \"/in\", methods = [\"GET\"], purpose = \"view\" }}]\ncalls = [\"service.{one}:GET /in\", \"service.{other}:GET /in\"]\n"
        )
        .unwrap();
    }
    text
}

/// `control`, and a hundred guards that hold its views.
struct Fleet {
    ground: Ground,
    /// Those of the services in their order, then the edge's.
    guards: Vec<Arc<ViewHolder>>,
    /// An SVID of `VICTIM` from before every revocation.
    victim: PeerSvid,
}

impl Fleet {
    async fn open() -> Self {
        let ground = Ground::open(manifest(None), SystemClock::shared(), limits::SVID_LIFE_S_MAX, || ()).await;
        let ids = (0..GUARDS).map(|n| ground.domain.service(&name(n))).chain([ground.domain.role("edge")]);
        let guards = ids.map(|id| ground.subscribed(ground.admitted(&id))).collect();
        let victim = PeerSvid { not_before_s: 1, ..svid(&ground.admitted(&ground.domain.service(&name(VICTIM)))) };
        let fleet = Self { ground, guards, victim };
        fleet.reach(1).await;
        fleet
    }

    /// Applies a manifest in which `marked` has a route more.
    async fn apply(&self, marked: usize) -> u64 {
        self.ground.apply(manifest(Some(marked))).await
    }

    async fn revoke(&self) -> u64 {
        let id = self.ground.domain.service(&name(VICTIM));
        self.ground.operate("/revoke", &serde_json::json!({ "spiffe_id": id })).await["epoch"].as_u64().unwrap()
    }

    /// When each guard held a view of at least this epoch (by the monotonic clock), in their order.
    async fn reach(&self, epoch: u64) -> Vec<Duration> {
        let waits = self.guards.iter().map(|guard| {
            let (mut changed, clock) = (guard.changed(), self.ground.clock.clone());
            async move {
                changed.wait_for(|now| *now >= epoch).await.unwrap();
                clock.monotonic()
            }
        });
        tokio::time::timeout(PATIENCE, futures::future::join_all(waits)).await.expect("all guards have the epoch")
    }

    /// Whether guard `number` has and uses the route that an apply brings.
    fn lets_in(&self, number: usize) -> bool {
        let loaded = self.guards[number].fresh().unwrap();
        let (own, route) = (name(number), format!("GET /{}/more", name(number)));
        let authority = trust::Authority {
            txn: "t".into(),
            user: "ann".into(),
            purpose: "view".into(),
            scopes: [].into(),
            roles: [].into(),
            step_up: false,
            job: None,
        };
        let question = Question::Call { caller: "edge", service: &own, route: &route, authority: Some(&authority) };
        let listed = loaded.view.service.as_ref().unwrap().routes.contains(&route);
        let allowed = loaded.engine.decide(&question).is_allow();
        assert_eq!(listed, allowed, "profile and policy of one epoch");
        allowed
    }
}

/// The edge has, or has not, the public route that an apply brings.
fn edge_routes(fleet: &Fleet, number: usize) -> bool {
    let path = format!("/{}/more", name(number));
    fleet.guards[GUARDS].fresh().unwrap().view.edge.as_ref().unwrap().routes.iter().any(|route| route.path == path)
}

// E16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_guards_enforce_what_was_applied_and_what_was_revoked() {
    let fleet = Fleet::open().await;
    assert!(!fleet.lets_in(7) && !edge_routes(&fleet, 7));
    let unmoved = fleet.guards[50].fresh().unwrap().engine.policy().clone();
    let epoch = fleet.apply(7).await;
    fleet.reach(epoch).await;
    assert!(fleet.lets_in(7) && edge_routes(&fleet, 7));
    assert!((0..GUARDS).filter(|n| *n != 7).all(|n| !fleet.lets_in(n)), "and nobody else's");
    let now = fleet.guards[50].fresh().unwrap();
    assert_eq!(now.view.epoch, epoch);
    assert!(Arc::ptr_eq(&unmoved, now.engine.policy()) || unmoved.epoch() != now.engine.policy().epoch());

    assert!(fleet.guards.iter().all(|guard| guard.identity().bundle().still_good(&fleet.victim).is_ok()));
    let epoch = fleet.revoke().await;
    fleet.reach(epoch).await;
    assert!(fleet.guards.iter().all(|guard| guard.identity().bundle().still_good(&fleet.victim).is_err()));
    fleet.ground.stop.cancel();
}

fn told(what: &str, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |per_mille: usize| each[(each.len() - 1) * per_mille / 1000];
    eprintln!("{what}: p50 {:.0?}, p99 {:.0?}, max {:.0?} ({} takings)", at(500), at(990), each[each.len() - 1], each.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes: see the head of this file"]
async fn measured_push_to_a_hundred_guards() {
    let rounds: usize = std::env::var("PALISADE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let fleet = Fleet::open().await;
    for what in ["revoke", "apply"] {
        let (mut each, mut last, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let next = fleet.guards[0].fresh().unwrap().view.epoch + 1;
            let began = fleet.ground.clock.monotonic();
            let asked = async { if what == "apply" { fleet.apply(round % GUARDS).await } else { fleet.revoke().await } };
            let (epoch, reached) = tokio::join!(asked, fleet.reach(next));
            assert_eq!(epoch, next);
            // From the operator's request until each guard holds it; and from the moment that it is in force, which is when the first
            // guard has it at the earliest.
            let first = *reached.iter().min().unwrap();
            each.extend(reached.iter().map(|at| *at - began));
            last.push(*reached.iter().max().unwrap() - began);
            checks.push(first - began);
            assert!(what == "apply" || fleet.guards.iter().all(|guard| guard.identity().bundle().still_good(&fleet.victim).is_err()));
            assert!(what == "revoke" || fleet.lets_in(round % GUARDS));
        }
        told(&format!("{what}, request to each guard"), each);
        told(&format!("{what}, request to the last guard"), last);
        told(&format!("{what}, request to the first guard"), checks);
    }
    fleet.ground.stop.cancel();
}
