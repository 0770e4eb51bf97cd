//! The routes, as callers meet them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::identity::{Artefact, Bundle, Issued, Join, ROUTES, RegisterToken, Renew, Revocation, TokenRegistered};
use contract::{Caller, LocalPeer, Peer, Room, body};
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde_json::Value;
use telemetry::{MemorySink, Metrics, Recorder};
use trust::{Clock, DenyReason, Digest, SystemEntropy, TraceContext};

use super::process::Joining;
use super::{TestClock, domain, open, request};
use crate::Identity;

struct House {
    room: Identity,
    sink: Arc<MemorySink>,
    clock: Arc<TestClock>,
    _folder: tempfile::TempDir,
}

fn house() -> House {
    let (folder, clock, sink) = (tempfile::tempdir().unwrap(), TestClock::shared(), Arc::new(MemorySink::default()));
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let recorder = Recorder::new(Arc::clone(&sink) as _, Arc::clone(&shared), SystemEntropy::shared(), Arc::new(Metrics::new()));
    let room = Identity::new(Arc::new(open(folder.path(), &clock).unwrap()), recorder, shared);
    House { room, sink, clock, _folder: folder }
}

impl House {
    async fn send<Q: Serialize>(&self, peer: Peer, method: Method, path: &str, question: &Q) -> (StatusCode, Value) {
        let caller = Caller { peer, authority: None, trace: TraceContext::root(0, &SystemEntropy) };
        let request = Request::builder().method(method).uri(path).body(body::full(serde_json::to_vec(question).unwrap())).unwrap();
        let response = self.room.call(caller, request).await;
        let status = response.status();
        let bytes = body::collect(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn register(&self, token: &str, joining: &Joining, artefacts: Vec<Artefact>) {
        let question = RegisterToken {
            token_digest: Digest::of(token.as_bytes()),
            spiffe_id: domain().service("api"),
            uid: joining.peer.uid,
            binary: joining.program,
            artefacts,
        };
        let (status, answer) = self.send(Peer::Supervisor, Method::POST, "/tokens", &question).await;
        assert_eq!(status, StatusCode::OK);
        let registered: TokenRegistered = serde_json::from_value(answer).unwrap();
        assert_eq!(registered.bundle.roots.len(), 1, "the supervisor learns whom the process may trust");
    }

    async fn join(&self, token: &str, peer: LocalPeer, artefacts: Vec<Artefact>) -> Result<Issued, DenyReason> {
        let question = Join { token: token.to_owned(), csr: request(), artefacts };
        let (status, answer) = self.send(Peer::Local(peer), Method::POST, "/join", &question).await;
        if status == StatusCode::OK { Ok(serde_json::from_value(answer).unwrap()) } else { Err(reason_of(&answer)) }
    }

    fn events(&self, name: &str) -> Vec<Value> {
        self.sink.audit.lock().unwrap().iter().filter(|r| r.event == name).map(|r| Value::Object(r.fields.clone())).collect()
    }
}

fn reason_of(answer: &Value) -> DenyReason {
    serde_json::from_value(answer["reason"].clone()).unwrap_or_else(|_| panic!("no reason in {answer}"))
}

fn artefact(path: &str, content: &[u8]) -> Artefact {
    Artefact { path: path.to_owned(), digest: Digest::of(content) }
}

fn control() -> Peer {
    Peer::Workload(domain().role("control"))
}

fn start(folder: &Path) -> Joining {
    Joining::start(folder, "program", b"")
}

// C5, C6, C7: one right way in, and every wrong one.
#[tokio::test]
async fn only_the_process_that_was_announced_gets_its_name() {
    let (house, folder) = (house(), tempfile::tempdir().unwrap());
    let joining = start(folder.path());
    let other = Joining::start(folder.path(), "other", b"one byte more");
    let locked = vec![artefact("/srv/api", b"api"), artefact("/usr/bin/ffmpeg", b"ffmpeg")];
    let reversed: Vec<_> = locked.iter().rev().cloned().collect();
    let swapped = vec![locked[0].clone(), artefact("/usr/bin/ffmpeg", b"another")];
    let extra = [locked.clone(), vec![artefact("/srv/more", b"")]].concat();
    let somebody = LocalPeer { uid: joining.peer.uid + 1, ..joining.peer.clone() };
    let cases = [
        ("as announced", joining.peer.clone(), locked.clone(), None),
        ("in another order", joining.peer.clone(), reversed, None),
        ("another user", somebody, locked.clone(), Some(DenyReason::AttestationFailed)),
        ("another program", other.peer.clone(), locked.clone(), Some(DenyReason::AttestationFailed)),
        ("a swapped artefact", joining.peer.clone(), swapped, Some(DenyReason::ArtefactMismatch)),
        ("an artefact more", joining.peer.clone(), extra, Some(DenyReason::ArtefactMismatch)),
        ("no artefact", joining.peer.clone(), Vec::new(), Some(DenyReason::ArtefactMismatch)),
    ];
    for (case, peer, measured, expect) in cases {
        let token = format!("{case:0>64}");
        house.register(&token, &joining, locked.clone()).await;
        let outcome = house.join(&token, peer, measured).await;
        match (&outcome, expect) {
            (Ok(issued), None) => assert_eq!(issued.spiffe_id, domain().service("api"), "{case}"),
            _ => assert_eq!(outcome.err(), expect, "{case}"),
        }
        let again = house.join(&token, joining.peer.clone(), locked.clone()).await;
        assert_eq!(again.err(), Some(DenyReason::JoinTokenInvalid), "{case}: a token works once, whatever came of it");
    }
    assert_eq!(house.events("CredentialReplayed").len(), 7, "each reuse is in the audit log");
    assert_eq!(house.events("ActDone").len(), 2, "so is each name given");
    assert_eq!(house.events("CallDecided").len(), 5 + 7, "and each refusal");
    assert!(!serde_json::to_string(&*house.sink.audit.lock().unwrap()).unwrap().contains("as announced"), "no token in the audit log");
}

// C7: tokens end when nobody uses them; unknown ones are nothing.
#[tokio::test]
async fn unknown_and_old_tokens_are_refused() {
    let (house, folder) = (house(), tempfile::tempdir().unwrap());
    let joining = start(folder.path());
    assert_eq!(house.join("never registered", joining.peer.clone(), vec![]).await.err(), Some(DenyReason::JoinTokenInvalid));
    house.register("old", &joining, vec![]).await;
    house.clock.pass(60);
    assert_eq!(house.join("old", joining.peer.clone(), vec![]).await.err(), Some(DenyReason::JoinTokenInvalid));
    house.register("fresh", &joining, vec![]).await;
    house.clock.pass(59);
    assert!(house.join("fresh", joining.peer.clone(), vec![]).await.is_ok());
}

// C9: a workload renews its own name and no other, with a new key each time.
#[tokio::test]
async fn workloads_renew_only_their_own_names() {
    let house = house();
    let id = domain().service("api");
    let (status, answer) = house.send(Peer::Workload(id.clone()), Method::POST, "/renew", &Renew { csr: request() }).await;
    let issued: Issued = serde_json::from_value(answer).unwrap();
    assert_eq!((status, issued.spiffe_id), (StatusCode::OK, id.clone()));
    let (status, _) = house.send(Peer::Workload(id), Method::POST, "/renew", &Renew { csr: "nonsense".to_owned() }).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

// C12: control revokes; the bundle says so at once to whoever waits for it; renewal ends.
#[tokio::test]
async fn revocation_reaches_those_who_wait_for_the_bundle() {
    let house = house();
    let id = domain().service("api");
    let (_, answer) = house.send(control(), Method::GET, "/bundle", &()).await;
    let now: Bundle = serde_json::from_value(answer).unwrap();
    let path = format!("/bundle?after={}", now.sequence);
    let waiting = house.send(control(), Method::GET, &path, &());
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let revocation = Revocation { spiffe_id: id.clone(), before_s: house.clock.unix_s() };
        house.send(control(), Method::POST, "/revoke", &revocation).await
    };
    let (seen, (status, _)) = tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(waiting, revoking) }).await.unwrap();
    let seen: Bundle = serde_json::from_value(seen.1).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(seen.sequence > now.sequence && seen.revoked.iter().any(|r| r.spiffe_id == id));
    let (_, answer) = house.send(Peer::Workload(id), Method::POST, "/renew", &Renew { csr: request() }).await;
    assert_eq!(reason_of(&answer), DenyReason::SvidRevoked);
}

// Every route of the contract, by everybody who may not: refused here too, whatever stands before this room.
#[tokio::test]
async fn every_route_refuses_everybody_else() {
    let house = house();
    let local = LocalPeer { uid: 0, pid: 1, pidfd: None };
    let peers = [
        ("supervisor", Peer::Supervisor),
        ("operator", Peer::Operator(local.clone())),
        ("local", Peer::Local(local)),
        ("service", Peer::Workload(domain().service("api"))),
        ("edge", Peer::Workload(domain().role("edge"))),
        ("control", control()),
        ("decision point", Peer::Workload(domain().pdp("envoy"))),
        ("enforcement point", Peer::Workload(domain().pep("envoy"))),
    ];
    for route in ROUTES {
        let admitted: &[&str] = match route.path {
            "/tokens" => &["supervisor"],
            "/join" => &["local"],
            "/renew" => &["service", "edge", "control", "decision point"],
            "/pep" => &["decision point"],
            _ => &["control"],
        };
        for (name, peer) in peers.iter().filter(|(name, _)| !admitted.contains(name)) {
            let (status, answer) = house.send(peer.clone(), route.method.parse().unwrap(), route.path, &()).await;
            assert_eq!((status, reason_of(&answer)), (StatusCode::FORBIDDEN, DenyReason::CallerNotAdmitted), "{name} {}", route.path);
        }
    }
    for (method, path, reason) in
        [(Method::GET, "/nothing", DenyReason::RouteUnknown), (Method::DELETE, "/bundle", DenyReason::MethodUnlisted)]
    {
        assert_eq!(reason_of(&house.send(control(), method, path, &()).await.1), reason);
    }
    assert_eq!(house.send(control(), Method::GET, "/bundle?after=x", &()).await.0, StatusCode::BAD_REQUEST);
}

// E21: an enforcement point gets its SVID by its decision point alone, and the key that leaves Palisade signs nothing.
#[tokio::test]
async fn a_decision_point_gets_its_proxys_svid_and_the_proxy_cannot_renew_it() {
    let house = house();
    let (pdp, pep) = (domain().pdp("envoy"), domain().pep("envoy"));
    let renew = Renew { csr: request() };
    let (status, answer) = house.send(Peer::Workload(pdp.clone()), Method::POST, "/renew", &renew).await;
    let own: Issued = serde_json::from_value(answer).unwrap();
    assert_eq!((status, own.spiffe_id), (StatusCode::OK, pdp.clone()));
    assert!(own.bundle.authority_keys.iter().any(|key| key.owner == pdp), "decision points mint");
    let (status, answer) = house.send(Peer::Workload(pdp.clone()), Method::POST, "/pep", &renew).await;
    let issued: Issued = serde_json::from_value(answer).unwrap();
    assert_eq!((status, &issued.spiffe_id), (StatusCode::OK, &pep));
    assert!(issued.bundle.authority_keys.iter().all(|key| key.owner != pep), "and proxies do not");
    assert!(house.sink.audit.lock().unwrap().iter().any(|r| r.fields["act"] == "identity.pep.issue" && r.fields["to"] == pep.to_string()));
    let (_, answer) = house.send(Peer::Workload(pep.clone()), Method::POST, "/renew", &renew).await;
    assert_eq!(reason_of(&answer), DenyReason::CallerNotAdmitted);
    // C12: revoked, it stays out until its decision point was attested anew; and with that one revoked as well.
    for id in [&pep, &pdp] {
        let revocation = Revocation { spiffe_id: id.clone(), before_s: house.clock.unix_s() };
        house.send(control(), Method::POST, "/revoke", &revocation).await;
        let (_, answer) = house.send(Peer::Workload(pdp.clone()), Method::POST, "/pep", &renew).await;
        assert_eq!(reason_of(&answer), DenyReason::SvidRevoked, "{id}");
    }
}
