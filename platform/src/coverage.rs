//! Refusal coverage: every row of every contract's table, called as everybody who may not call it, in front of the real rooms. (A6)
//!
//! Each row has a request that is served. That same request is sent by nobody in particular, the supervisor, the operator, every other
//! workload of the manifest and one that it does not have; by the right caller with an SVID that ended, was revoked or is of another
//! trust domain; with authority that ended, was forged, is for another domain, or is another person's. Each time the answer is a refusal
//! with the one reason that it must have, the reason is in the audit log, and nothing has changed. A row that nobody was refused on, or
//! that serves nobody, fails the test. What TLS alone can refuse is tested where TLS is, in `proxy`.
//!
//! Guarantees: A6, B9, D1, D4, D6, D7, G9, H2, H5 in part; E4; J7 (each refusal is recorded).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::too_many_lines, reason = "tests")]

mod asked;
mod browser;
pub(crate) mod door;
mod extra;
mod house;

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use contract::signing::SigningKey;
use contract::txn_token::{self, Minter};
use contract::{Body, Found, Route, Who, body};
use http::Request;
use proxy::bundle::PeerSvid;
use proxy::enforce::Proof;
use trust::{DenyReason, SpiffeId, TrustDomain};

use asked::{Asked, resigned};
use door::{Door, Point};
use house::{House, authority, local, operator};

/// Rows on which nobody has to be refused. There are none.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Who each row is for; what the contracts' tables say, written down here a second time on purpose: a row cannot be opened to others
/// in one place alone.
fn meant_for(action: &str) -> Who {
    match action {
        "identity.token.register" => Who::Supervisor,
        "identity.join" => Who::Joining,
        "identity.bundle.read" | "identity.revoke" => Who::Roles(&["control"]),
        "control.system.read" | "queue.stats.read" => Who::Roles(&["evidence"]),
        "control.apply" | "control.revoke" | "control.contain" | "control.release" | "control.status.read" => Who::Operator,
        "login.user.invite" | "login.user.list" | "login.user.remove" | "login.factor.reset" => Who::Operator,
        "login.key.create" | "login.key.list" | "login.key.revoke" => Who::Operator,
        "evidence.metrics.read" | "evidence.checkpoint.read" | "evidence.trace.read" | "evidence.breach.tell" => Who::Operator,
        "console.map" | "console.page" => Who::Person("admin"),
        "queue.lease.read" => Who::Roles(&["objects"]),
        "guard.deliver" => Who::Roles(&["queue"]),
        "login.jwks" | "login.introspect" => Who::Doors,
        action if action.starts_with("login.") || action.starts_with("objects.redeem.") => Who::Roles(&["edge"]),
        _ => Who::Policy,
    }
}

/// Who may open a connection to a point at all, by the manifest's flows and the roles' own; written down here a second time on purpose.
fn callers(point: &str) -> &'static [&'static str] {
    match point {
        "login" => &["edge", "door"],
        "objects" => &["edge", "api", "validator", "transcoder", "filer"],
        "queue" => &["objects", "evidence", "api", "validator", "transcoder"],
        "evidence" => {
            &["control", "identity", "login", "objects", "queue", "edge", "web", "api", "validator", "transcoder", "filer", "spare", "door"]
        }
        "guard" => &["queue"],
        _ => &[],
    }
}

/// Who may do what a `Who::Policy` row does with this request; nothing: every workload that may connect.
fn permitted(action: &str) -> Option<&'static [&'static str]> {
    match action {
        "queue.publish" => Some(&["objects"]),
        action if action.starts_with("queue.lease") => Some(&["validator"]),
        action if action.starts_with("objects.") => Some(&["filer"]),
        _ => None,
    }
}

/// `control` and `identity` decide without a view.
fn has_view(point: &str) -> bool {
    !matches!(point, "control" | "identity")
}

/// What a workload of the manifest, or a stranger, must hear on a row; nothing when it is admitted.
fn expected(point: &str, route: &Route, id: &SpiffeId) -> Option<DenyReason> {
    let name = id.workload.name();
    if has_view(point) && !callers(point).contains(&name) {
        return Some(DenyReason::PeerUndeclared);
    }
    match route.who {
        Who::Roles(roles) => (!id.as_role().is_some_and(|role| roles.contains(&role))).then_some(DenyReason::CallerNotAdmitted),
        Who::Doors => (id.as_role() != Some("edge") && id.as_pdp().is_none()).then_some(DenyReason::CallerNotAdmitted),
        Who::Person(_) => (id.as_role() != Some("edge")).then_some(DenyReason::CallerNotAdmitted),
        Who::Policy if route.action == "identity.pep.issue" => id.as_pdp().is_none().then_some(DenyReason::CallerNotAdmitted),
        Who::Policy if point == "control" => (name == "stranger").then_some(DenyReason::PeerUndeclared),
        Who::Policy => permitted(route.action).filter(|names| !names.contains(&name)).map(|_| DenyReason::PolicyDenied),
        Who::Joining | Who::Operator | Who::Supervisor => Some(DenyReason::CallerNotAdmitted),
    }
}

/// The status of a refusal. Another's lease looks like one that never was.
fn status_of(route: &Route, reason: DenyReason) -> u16 {
    let hidden =
        matches!(route.action, "queue.lease.extend" | "queue.lease.ack" | "queue.lease.nack") && reason == DenyReason::PolicyDenied;
    // Each key is answered for in a body of its own (S3 API, DeleteObjects).
    let by_key = route.action == "objects.delete.many" && matches!(reason, DenyReason::PolicyDenied | DenyReason::AuthorityMissing);
    match (hidden, by_key) {
        (true, _) => 404,
        (_, true) => 200,
        _ => reason.status(),
    }
}

/// Sends a request that must be refused, and looks at answer and audit log.
pub async fn refused(house: &House, point: &Point, route: &Route, case: &str, proof: &Proof, request: Request<Body>, reason: DenyReason) {
    let told = format!("{} {} as {case}", route.method, route.path);
    let head = request.method() == http::Method::HEAD;
    let before = house.sink.audit.lock().unwrap().len();
    let answer = point.answer(proof, request).await;
    assert_eq!(answer.status().as_u16(), status_of(route, reason), "{} {told}: {reason}", point.name);
    let bytes = body::collect(answer.into_body(), 1 << 16).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(bytes.len() < 1000, "a refusal is not detailed: {text}");
    if !head && status_of(route, reason) != 404 {
        // S3 clients hear of it in XML.
        assert!(
            text.contains(&format!("\"reason\":\"{reason}\"")) || text.contains(&format!("<Message>{reason}</Message>")),
            "{told}: {text}"
        );
    }
    let records = house.audit(before);
    let denied = |r: &&trust::AuditRecord| r.event == "CallDecided" && r.fields["decision"]["deny"]["reason"] == reason.code();
    let found =
        records.iter().find(denied).unwrap_or_else(|| panic!("{} {told}: {reason} is not in the audit log: {records:?}", point.name));
    let principal = match proof {
        Proof::Svid(svid) => svid.id.to_string(),
        Proof::Local(_) => "unauthenticated".to_owned(),
        Proof::Operator(_) => "operator".to_owned(),
        Proof::Supervisor => "supervisor".to_owned(),
    };
    // `identity` knows more of a process without an identity than that it has none.
    let named = found.fields["principal"].as_str().unwrap();
    assert!(named == principal || (principal == "unauthenticated" && named.starts_with("uid ")), "{told}: {named}");
}

fn with_token(mut request: Request<Body>, token: &str) -> Request<Body> {
    request.headers_mut().insert(txn_token::HEADER, token.parse().unwrap());
    request
}

fn unknown_key() -> SigningKey {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
    SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap()
}

/// Proofs that are no SVID of a workload in good standing, with what each must hear.
fn unproven(house: &House, point: &Point, route: &Route, asked: &Asked) -> Vec<(&'static str, Proof, DenyReason)> {
    let mut cases = Vec::new();
    if let Door::Room(..) = point.door {
        let nobody = match route.who {
            Who::Roles(_) | Who::Policy | Who::Doors | Who::Person(_) => Some(DenyReason::ClientCertificateMissing),
            Who::Operator | Who::Supervisor => Some(DenyReason::CallerNotAdmitted),
            Who::Joining => None,
        };
        cases.extend(nobody.map(|reason| ("nobody", Proof::Local(local()), reason)));
        if route.who != Who::Operator {
            cases.push(("the operator", operator(), DenyReason::CallerNotAdmitted));
        }
        if route.who != Who::Supervisor {
            cases.push(("the supervisor", Proof::Supervisor, DenyReason::CallerNotAdmitted));
        }
    }
    if let Proof::Svid(svid) = &asked.proof {
        let ended = PeerSvid { not_before_s: svid.not_before_s - 7200, not_after_s: house.now_s() - 1, ..svid.clone() };
        cases.push(("an SVID that ended", Proof::Svid(ended), DenyReason::SvidExpired));
        let mut foreign = svid.clone();
        foreign.id.trust_domain = TrustDomain::parse("other.example").unwrap();
        cases.push(("one of another trust domain", Proof::Svid(foreign), DenyReason::TrustDomainForeign));
    }
    cases
}

/// Tokens that prove nothing, with what each must hear.
fn bad_tokens(house: &House, point: &Point, route: &Route) -> Vec<(&'static str, String, DenyReason)> {
    let (minter, ann) = (house.minter(), authority("ann", "manage", &["admin"]));
    let good = house.token("ann", "manage", &["admin"]);
    let foreign = Minter { issuer: TrustDomain::parse("other.example").unwrap().role("edge"), key: minter.key.clone() };
    let unknown = Minter { issuer: minter.issuer.clone(), key: unknown_key() };
    let lying = Minter { issuer: house.domain.role("queue"), key: minter.key.clone() };
    let mint = |minter: &Minter, life_s| minter.mint(&ann, life_s, house.clock()).unwrap();
    let mut cases = vec![
        ("authority that ended", mint(&minter, 0), DenyReason::TokenExpired),
        ("authority for another domain", mint(&foreign, 300), DenyReason::AudienceMismatch),
        ("authority by an unknown key", mint(&unknown, 300), DenyReason::TokenKeyUnknown),
        ("authority in another's name", mint(&lying, 300), DenyReason::IssuerMismatch),
        ("authority that was changed", resigned(&good), DenyReason::TokenInvalid),
        ("authority that is no token", "x".to_owned(), DenyReason::TokenMalformed),
    ];
    if !has_view(point.name) {
        // Where there is no view no authority can be verified, and none is needed.
        cases.iter_mut().for_each(|case| case.2 = DenyReason::ViewStale);
    }
    if matches!(route.who, Who::Person(_)) {
        cases.push(("a person without the role", house.token("bob", "operate", &["viewer"]), DenyReason::CallerNotAdmitted));
    }
    if matches!(route.action, "objects.read" | "objects.head" | "objects.post" | "objects.delete" | "objects.delete.many") {
        cases.push(("another person", house.token("bob", "manage", &[]), DenyReason::PolicyDenied));
    }
    if route.action.starts_with("objects.") && route.who == Who::Policy {
        cases.push(("the person for another purpose", house.token("ann", "view", &[]), DenyReason::PolicyDenied));
        cases.push(("the person for no purpose at all", house.token("ann", "leisure", &[]), DenyReason::PolicyDenied));
    }
    cases
}

/// Whether the row, called without authority, must be refused.
fn needs_authority(route: &Route) -> bool {
    matches!(route.who, Who::Person(_))
        || (route.action.starts_with("objects.") && route.who == Who::Policy)
        || matches!(route.action, "queue.publish" | "guard.deliver")
}

#[tokio::test]
async fn every_row_of_every_contract_is_refused_to_everybody_who_may_not_call_it() {
    let house = House::open().await;
    let stranger = house.stranger();
    let mut covered: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    let mut all: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for point in &house.points {
        if let Door::Room(_, room) = &point.door {
            assert_eq!(room.routes(), point.routes, "{} serves its contract", point.name);
        }
        for route in point.routes {
            let row = (point.name, route.method, route.path);
            all.insert(row);
            assert_eq!(route.who, meant_for(route.action), "{row:?}");
            let asked = house.asked(point.name, route).await.unwrap_or_else(|| panic!("nobody asks {row:?}"));
            let (line, _) = (asked.make)().into_parts();
            let found = contract::find(point.routes, line.method.as_str(), line.uri.path());
            assert!(matches!(found, Found::Route(found, _) if found == route), "{row:?} is not what {} {} reaches", line.method, line.uri);
            let before = house.state().await;
            let mut count = 0;
            for (case, proof, reason) in unproven(&house, point, route, &asked) {
                refused(&house, point, route, case, &proof, (asked.make)(), reason).await;
                count += 1;
            }
            let svids = house.workloads().into_iter().map(|id| house.svid(id.workload.name())).chain([stranger.clone()]);
            for svid in svids {
                let Some(reason) = expected(point.name, route, &svid.id) else { continue };
                let case = svid.id.to_string();
                refused(&house, point, route, &case, &Proof::Svid(svid), (asked.make)(), reason).await;
                count += 1;
            }
            for (case, token, reason) in bad_tokens(&house, point, route) {
                refused(&house, point, route, case, &asked.proof, with_token((asked.make)(), &token), reason).await;
                count += 1;
            }
            if needs_authority(route) {
                let mut bare = (asked.make)();
                bare.headers_mut().remove(txn_token::HEADER);
                refused(&house, point, route, "nobody's authority", &asked.proof, bare, DenyReason::AuthorityMissing).await;
                count += 1;
            }
            assert_eq!(house.state().await, before, "{} {}: a refused call changed something", point.name, route.action);
            let answer = point.answer(&asked.proof, (asked.make)()).await;
            let status = answer.status();
            assert!(status.is_success() || status.is_redirection(), "{} {} serves nobody: {status}", point.name, route.action);
            if route.action == "queue.lease" {
                let leased: contract::queue::Leased = body::parse_json(answer.into_body()).await.unwrap();
                house.held.lock().unwrap().push(leased.lease);
            }
            if let ("objects.redeem.write", Some(subject)) = (route.action, (asked.make)().uri().path().strip_prefix("/presigned/")) {
                // What `objects` tells of the upload must not come in the middle of a later row.
                let leased = house.lease_of(subject).await;
                house.held.lock().unwrap().push(leased.lease);
            }
            if count > 0 {
                covered.insert(row, count);
            }
        }
    }
    let uncovered: Vec<_> = all.iter().copied().filter(|row| !covered.contains_key(row)).collect();
    assert_eq!(uncovered, EXCEPTIONS);
    assert!(covered.values().all(|count| *count >= 8), "{covered:?}");
    extra::credentials_of_their_own(&house).await;
    extra::jobs_end_with_their_lease(&house).await;
    extra::points_agree(&house).await;
    revoked(&house).await;
}

/// Revokes everybody through `control`, attests them anew, and calls every row with the SVIDs of before.
async fn revoked(house: &House) {
    let mut before = BTreeMap::new();
    for point in &house.points {
        for route in point.routes {
            before.insert((point.name, route.method, route.path), house.asked(point.name, route).await.unwrap());
        }
    }
    let revoke = async |id: &SpiffeId| {
        let asked = house::request("POST", "/revoke", &[], &serde_json::json!({ "spiffe_id": id }).to_string());
        house.text("control", &operator(), asked).await;
    };
    let called = async |by_control: bool| {
        let state = house.ca.bundle().unwrap();
        for point in &house.points {
            for route in point.routes {
                let asked = &before[&(point.name, route.method, route.path)];
                let Proof::Svid(svid) = &asked.proof else { continue };
                if (svid.id.as_role() == Some("control")) == by_control {
                    refused(house, point, route, "a revoked SVID", &asked.proof, (asked.make)(), DenyReason::SvidRevoked).await;
                }
            }
        }
        assert_eq!(house.ca.bundle().unwrap(), state);
    };
    let control = house.domain.role("control");
    for id in house.workloads().iter().filter(|id| **id != control) {
        revoke(id).await;
    }
    let anew: BTreeMap<SpiffeId, PeerSvid> = house.workloads().into_iter().map(|id| (id.clone(), house.anew(&id))).collect();
    house.refresh_views(&anew).await;
    house.revocations_known("web").await;
    called(false).await;
    // `control` itself last: it is the one that tells `identity`.
    revoke(&control).await;
    house.revocations_known("control").await;
    called(true).await;
    // Whoever was attested anew is served.
    let anew = Proof::Svid(anew[&house.domain.role("edge")].clone());
    assert!(house.text("login", &anew, house::get("/jwks")).await.contains("keys"));
}
