//! What Envoy asks, and what it is told: every refusal for its own reason, each on record.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use contract::login::Confirmation;
use serde_json::json;
use trust::{Decision, TraceContext};

use super::world::{Told, World, bearing, from_workload, http};
use crate::edge::Limits;
use crate::limits;
use crate::pdp::wire::{CheckRequest, HeaderMap, HeaderValue, Kind};
use crate::pdp::{check, message};

// E21: who may, may; and goes on with authority that a guard takes, and without anything that it said of itself.
#[tokio::test]
async fn a_person_with_the_scope_is_let_in_with_a_transaction_token_and_without_identity_headers() {
    let world = World::new();
    let said = [
        ("cookie", "a=b"),
        ("x-forwarded-user", "root"),
        ("palisade-user", "root"),
        ("x_real_ip", "10.0.0.1"),
        ("tracestate", "a=b"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("accept", "*/*"),
        ("x-api-key", "palk_x"),
        ("x-forwarded-proto", "https"),
    ];
    let response = world.ask(bearing("GET", "/api/videos?page=2", &world.login.token(), &said)).await;
    let metadata = response.dynamic_metadata.unwrap().fields;
    assert_eq!(metadata["allowed"].kind, Some(Kind::Bool(true)));
    let Some(crate::pdp::wire::HttpResponse::Ok(ok)) = response.http_response else { panic!("refused") };
    assert_eq!(
        ok.headers_to_remove,
        ["authorization", "cookie", "palisade-user", "tracestate", "x-api-key", "x-forwarded-user", "x_real_ip"]
    );
    let set: BTreeMap<String, String> =
        ok.headers.iter().map(|o| (o.header.clone().unwrap().key, o.header.clone().unwrap().value)).collect();
    assert!(ok.headers.iter().all(|option| option.append_action == 2), "over whatever was there");
    let trace = TraceContext::parse(&set["traceparent"]).unwrap();
    assert_eq!(metadata["id"].kind, Some(Kind::Text(trace.trace_hex())));
    assert_ne!(trace.trace_hex(), "0af7651916cd43dd8448eb211c80319c", "a stranger's trace is not joined");
    let authority = world.point.views.fresh().unwrap().verifier.verify(&set["txn-token"], &*world.clock).unwrap();
    assert_eq!((authority.user.as_str(), authority.purpose.as_str()), ("u-anna", "view"));
    let record = world.audit().into_iter().rfind(|record| record.event == "CallDecided").unwrap();
    assert_eq!(record.fields["principal"], "spiffe://video.example/pep/envoy");
    assert_eq!((&record.fields["point"], &record.fields["user"]), (&json!("pdp"), &json!("u-anna")));
    let decision: Decision = serde_json::from_value(record.fields["decision"].clone()).unwrap();
    let Decision::Allow { policies, epoch, .. } = decision else { panic!("{decision:?}") };
    assert_eq!(policies, ["flow.internet.service.api.GET /api/videos", "flow.envoy.service.api.GET /api/videos"]);
    assert_eq!(epoch, 7);
}

// The same credential on the same route within some seconds is one transaction, as at the edge; each is decided and recorded.
#[tokio::test]
async fn a_token_serves_for_some_seconds_and_not_for_another_route() {
    let world = World::new();
    let token = world.login.token();
    let minted = async |path: &str| match world.told(bearing("GET", path, &token, &[])).await {
        Told::Ok(ok) => ok.headers.iter().find(|o| o.header.as_ref().unwrap().key == "txn-token").unwrap().header.clone().unwrap().value,
        Told::Denied(denied) => panic!("{denied:?}"),
    };
    let first = minted("/api/videos").await;
    assert_eq!(minted("/api/videos").await, first);
    assert_ne!(minted("/api/videos/7").await, first);
    world.clock.forward_s(6);
    assert_ne!(minted("/api/videos").await, first);
    assert_eq!(world.audit().iter().filter(|record| record.event == "CallDecided").count(), 4);
}

// A4, A6, A7, E21: each refused for its own reason, with the status that says so.
#[tokio::test]
async fn whatever_is_not_plainly_allowed_is_refused_for_its_own_reason() {
    let world = World::new();
    let good = world.login.token();
    let without_scope = {
        *world.login.scope.lock().unwrap() = "openid".to_owned();
        let token = world.login.token();
        *world.login.scope.lock().unwrap() = "openid videos".to_owned();
        token
    };
    let barred = {
        world.login.roles.lock().unwrap().insert("barred".to_owned());
        let token = world.login.token();
        world.login.roles.lock().unwrap().clear();
        token
    };
    let bound = {
        *world.login.bound_to.lock().unwrap() = Some(Confirmation { jkt: Some("x".repeat(43)), x5t_s256: None });
        let token = world.login.token();
        *world.login.bound_to.lock().unwrap() = None;
        token
    };
    let forged = {
        let (key, _) = crate::edge::tests::world::signing_key();
        key.sign(contract::login::ACCESS_TYP, &[], &world.login.claims()).unwrap()
    };
    let joined = format!("{good},Bearer {good}");
    let list = |token: &str, more: &[(&str, &str)]| bearing("GET", "/api/videos", token, more);
    let mut twice = list(&good, &[]);
    let field = |key: &str, value: &str| HeaderValue { key: key.into(), value: String::new(), raw_value: value.as_bytes().to_vec() };
    let bearer = format!("Bearer {good}");
    twice.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap().header_map =
        Some(HeaderMap { headers: vec![field("authorization", &bearer)] });
    let cases: Vec<(&str, CheckRequest, i32, &str)> = vec![
        ("nothing", http("GET", "/api/videos", &[]), 401, "credential_missing"),
        ("a cookie alone", http("GET", "/api/videos", &[("cookie", "__Host-palisade=x")]), 401, "credential_missing"),
        ("another scheme", http("GET", "/api/videos", &[("authorization", "Basic YTpi")]), 401, "token_malformed"),
        ("a scheme alone", http("GET", "/api/videos", &[("authorization", "Bearer")]), 401, "token_malformed"),
        ("a proof's scheme", http("GET", "/api/videos", &[("authorization", &format!("DPoP {good}"))]), 401, "proof_missing"),
        ("a token bound to a key", list(&bound, &[]), 401, "proof_missing"),
        ("a forged token", list(&forged, &[]), 401, "token_key_unknown"),
        ("two tokens in one", list(&joined, &[]), 401, "token_malformed"),
        ("two fields of a token", twice, 400, "request_ambiguous"),
        ("a transaction of their own", list(&good, &[("txn-token", "x")]), 400, "request_ambiguous"),
        ("without the scope", list(&without_scope, &[]), 403, "scope_missing"),
        ("barred by hand", list(&barred, &[]), 403, "policy_denied"),
        ("a path that is nowhere", bearing("GET", "/nowhere", &good, &[]), 404, "route_unknown"),
        ("a route that it does not offer", bearing("GET", "/secret", &good, &[]), 404, "route_unknown"),
        ("a method that it does not offer", bearing("DELETE", "/api/videos/7", &good, &[]), 405, "method_unlisted"),
        ("no method", bearing("G T", "/api/videos", &good, &[]), 400, "request_ambiguous"),
        ("CONNECT", bearing("CONNECT", "/api/videos", &good, &[]), 400, "request_ambiguous"),
        ("a dot segment", bearing("GET", "/api/../api/videos", &good, &[]), 400, "request_ambiguous"),
        ("an encoded dot segment", bearing("GET", "/api/%2e%2e/api/videos", &good, &[]), 400, "request_ambiguous"),
        ("two slashes", bearing("GET", "//api/videos", &good, &[]), 400, "request_ambiguous"),
        ("no path", bearing("GET", "*", &good, &[]), 400, "request_ambiguous"),
        ("a header that is none", bearing("GET", "/api/videos", &good, &[("a b", "c")]), 400, "request_ambiguous"),
        ("another host field", list(&good, &[("host", "other.example")]), 400, "request_ambiguous"),
        ("two lengths", list(&good, &[("content-length", "1,1")]), 400, "request_ambiguous"),
        ("a WebSocket", bearing("GET", "/live", &good, &[("upgrade", "websocket")]), 403, "upgrade_unlisted"),
        ("a body that is too large", bearing("POST", "/api/videos", &good, &[("content-length", "1001")]), 413, "body_too_large"),
        ("no request", CheckRequest { attributes: None }, 400, "request_ambiguous"),
    ];
    for (what, asked, status, reason) in cases {
        assert_eq!(world.refused(asked).await, (status, reason.to_owned()), "{what}");
    }
    for asked in [list(&good, &[]), bearing("POST", "/api/videos", &good, &[("content-length", "1000")])] {
        assert!(matches!(world.told(asked).await, Told::Ok(_)), "just below");
    }
}

#[tokio::test]
async fn a_refusal_tells_the_client_what_to_do_and_names_the_decision() {
    let world = World::new();
    let told = async |asked| match world.told(asked).await {
        Told::Denied(denied) => {
            denied.headers.into_iter().map(|o| o.header.unwrap()).map(|h| (h.key, h.value)).collect::<BTreeMap<String, String>>()
        }
        Told::Ok(_) => panic!("let in"),
    };
    let fields = told(http("GET", "/api/videos", &[])).await;
    assert_eq!((fields["www-authenticate"].as_str(), fields["content-type"].as_str()), ("Bearer", "application/json"));
    let trace = world.audit().last().unwrap().trace.clone();
    assert_eq!(fields["palisade-trace"], trace);
    assert_eq!(told(bearing("GET", "/api/videos", "x", &[])).await["www-authenticate"], "Bearer error=\"invalid_token\"");
    let fields = told(bearing("DELETE", "/api/videos", &world.login.token(), &[])).await;
    assert_eq!(fields["allow"], "GET, POST");
}

// A3: a route of a host of its own is there and nowhere else.
#[tokio::test]
async fn a_hosts_own_routes_are_offered_at_that_host_alone() {
    let world = World::new();
    let token = world.login.token();
    let at = |host: &str, path: &str| {
        let mut asked = bearing("GET", path, &token, &[]);
        asked.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap().host = host.to_owned();
        asked
    };
    assert!(matches!(world.told(at("Partner.localhost:8443", "/api/videos")).await, Told::Ok(_)));
    assert!(world.audit().last().unwrap().fields["resource"].as_str().unwrap().starts_with("partner:"));
    assert_eq!(world.refused(at("partner.localhost", "/api/videos/7")).await.1, "route_unknown");
    assert!(matches!(world.told(at("shop.example", "/api/videos/7")).await, Told::Ok(_)));
}

// A17, C12, E17: no fresh view, no good identity, no `login`, no audit: nothing is decided but refusals.
#[tokio::test]
async fn whatever_is_missing_it_refuses() {
    let without = World::with(false, Limits::standard());
    assert_eq!(without.refused(bearing("GET", "/api/videos", "x", &[])).await, (503, "view_stale".to_owned()));

    let world = World::new();
    *world.login.scope.lock().unwrap() = "videos".to_owned();
    world.login.token_life_s.store(7200, Ordering::SeqCst);
    let token = world.login.token();
    let list = || bearing("GET", "/api/videos", &token, &[]);
    world.clock.forward_s(300);
    assert!(matches!(world.told(list()).await, Told::Ok(_)), "as old as a view may be");
    world.clock.forward_s(1);
    assert_eq!(world.refused(list()).await, (503, "view_stale".to_owned()));
    world.later(|_| ());
    world.sink.broken.store(true, Ordering::SeqCst);
    let Told::Denied(denied) = world.told(list()).await else { panic!("without a record") };
    assert!(denied.body.contains("audit_unavailable"));
    world.sink.broken.store(false, Ordering::SeqCst);
    assert!(matches!(world.told(list()).await, Told::Ok(_)));

    let lost = World::new();
    lost.login.down.store(true, Ordering::SeqCst);
    assert_eq!(lost.refused(bearing("GET", "/api/videos", &lost.login.token(), &[])).await, (503, "dependency_down".to_owned()));
}

// C12
#[tokio::test]
async fn a_revoked_or_ended_identity_of_the_proxy_or_of_its_decision_point_decides_nothing() {
    for which in ["pep", "pdp"] {
        let world = World::new();
        let list = bearing("GET", "/api/videos", &world.login.token(), &[]);
        assert!(matches!(world.told(list.clone()).await, Told::Ok(_)));
        let id = if which == "pep" { world.domain.pep("envoy") } else { world.domain.pdp("envoy") };
        world.revoke(&id);
        assert_eq!(world.refused(list).await, (401, "svid_revoked".to_owned()), "{which}");
    }
    let world = World::new();
    world.renew(60);
    world.clock.forward_s(60);
    let list = bearing("GET", "/api/videos", &world.login.token(), &[]);
    assert!(matches!(world.told(list.clone()).await, Told::Ok(_)), "until its last second");
    world.clock.forward_s(1);
    assert_eq!(world.refused(list.clone()).await, (401, "svid_expired".to_owned()));
    world.renew(3600);
    assert!(matches!(world.told(list.clone()).await, Told::Ok(_)));
    world.later(|view| view.pep.as_mut().unwrap().spiffe_id = world.domain.pep("other"));
    assert_eq!(world.refused(list).await, (403, "peer_undeclared".to_owned()), "no longer in the manifest");
}

// D4, D6, D7: a workload that the proxy has verified calls as it would call a guard.
#[tokio::test]
async fn a_workload_is_let_pass_by_its_own_flows_and_on_authority_that_it_brings() {
    let world = World::new();
    let token = world.txn_token("view");
    let asked = |path: &str, token: &str, who: &str| from_workload(http("GET", path, &[("txn-token", token)]), who);
    let front = "spiffe://video.example/service/front";
    match world.told(asked("/api/videos", &token, front)).await {
        Told::Ok(ok) => assert!(ok.headers.iter().all(|o| o.header.as_ref().unwrap().key != "txn-token"), "its own goes on"),
        Told::Denied(denied) => panic!("{denied:?}"),
    }
    assert_eq!(world.audit().last().unwrap().fields["principal"], front);
    let other_purpose = world.txn_token("leisure");
    let cases = [
        ("a route that it has no flow to", asked("/api/videos/7", &token, front), "peer_undeclared"),
        ("another workload", asked("/api/videos", &token, "spiffe://video.example/service/partner"), "peer_undeclared"),
        ("another purpose", asked("/api/videos", &other_purpose, front), "policy_denied"),
        ("a role's name as a service", asked("/api/videos", &token, "spiffe://video.example/service/edge"), "caller_not_admitted"),
        ("another domain", asked("/api/videos", &token, "spiffe://other.example/service/front"), "trust_domain_foreign"),
        ("no SPIFFE ID", asked("/api/videos", &token, "CN=front"), "svid_malformed"),
        ("no authority", from_workload(http("GET", "/api/videos", &[]), front), "authority_missing"),
        ("a person's token", from_workload(bearing("GET", "/api/videos", &world.login.token(), &[]), front), "authority_missing"),
        ("forged authority", asked("/api/videos", "x.y.z", front), "token_malformed"),
    ];
    for (what, asked, reason) in cases {
        assert_eq!(world.refused(asked).await.1, reason, "{what}");
    }
    world.revoke(&world.domain.service("front"));
    assert_eq!(world.refused(asked("/api/videos", &token, front)).await.1, "svid_revoked");
}

// A13
#[tokio::test]
async fn a_persons_rate_and_a_routes_rate_hold_here_too() {
    let few = Limits { person_rate: NonZeroU32::MIN, person_burst: NonZeroU32::new(5).unwrap(), ..Limits::standard() };
    let world = World::with(true, few);
    let token = world.login.token();
    for _ in 0..3 {
        assert!(matches!(world.told(bearing("GET", "/api/reports", &token, &[])).await, Told::Ok(_)));
    }
    assert_eq!(world.refused(bearing("GET", "/api/reports", &token, &[])).await, (429, "rate_exceeded".to_owned()), "the route's");
    assert!(matches!(world.told(bearing("GET", "/api/videos", &token, &[])).await, Told::Ok(_)), "the person's fifth");
    assert_eq!(world.refused(bearing("GET", "/api/videos", &token, &[])).await, (429, "rate_exceeded".to_owned()), "the person's");
    *world.login.user.lock().unwrap() = "u-bert".to_owned();
    assert!(matches!(world.told(bearing("GET", "/api/videos", &world.login.token(), &[])).await, Told::Ok(_)), "another's");
}

// A13: what cannot be read is an error of gRPC, on which Envoy refuses; and on record.
#[tokio::test]
async fn a_message_that_is_too_large_or_none_is_an_error_and_one_just_below_is_answered() {
    let world = World::new();
    let of_bytes = |bytes: usize| {
        let mut asked = http("GET", "/api/videos", &[]);
        let rest = bytes - prost::Message::encoded_len(&asked.clone());
        // The lengths of the messages around it grow by some bytes as well.
        for more in (rest.saturating_sub(16)..rest).rev() {
            asked.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap().protocol = "x".repeat(more);
            if prost::Message::encoded_len(&asked) == bytes {
                return message::framed(&asked).to_vec();
            }
        }
        panic!("no message has {bytes} bytes");
    };
    let (answer, status, _) = world.call(check::PATH, of_bytes(limits::PEP_QUESTION_BYTES_MAX)).await;
    assert!(answer.is_some() && status == "0");
    let good = message::framed(&http("GET", "/api/videos", &[])).to_vec();
    let compressed = [&[1], &good[1..]].concat();
    let cases = [
        ("too large", of_bytes(limits::PEP_QUESTION_BYTES_MAX + 1), "8"),
        ("compressed", compressed, "12"),
        ("cut off", good[..good.len() - 1].to_vec(), "3"),
        ("nothing", Vec::new(), "3"),
        ("no message", [&[0, 0, 0, 0, 2], &b"\xff\xff"[..]].concat(), "3"),
        ("two", [good.clone(), good.clone()].concat(), "3"),
    ];
    for (what, bytes, code) in cases {
        let before = world.refusals().len();
        let (answer, status, _) = world.call(check::PATH, bytes).await;
        assert_eq!((answer, status.as_str()), (None, code), "{what}");
        assert_eq!(world.refusals()[before..], ["request_ambiguous"], "{what}");
    }
    let (_, status, _) = world.call("/envoy.service.auth.v3.Authorization/Other", good).await;
    assert_eq!(status, "12");
}

/// A small generator of its own (xorshift64), so that a seed gives the same bytes for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

// A4, A17: whatever becomes of a refused question on its way, it is an error or refused, and nothing falls over.
#[tokio::test]
async fn bent_questions_are_refused_or_errors_and_never_let_in() {
    let world = World::new();
    let seed = message::framed(&bearing("GET", "/api/videos", "x.y.z", &[("txn-token", "a.b.c"), ("accept", "*/*")])).to_vec();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut answered, mut errors) = (0, 0);
    for _ in 0..2_000 {
        let mut bytes = seed.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        // The length is right, so that it is the message that is looked at.
        if bytes.len() > 5 && random.below(8) > 0 {
            let length = u32::try_from(bytes.len() - 5).unwrap().to_be_bytes();
            bytes[..5].copy_from_slice(&[&[0], &length[..]].concat());
        }
        let (answer, status, _) = world.call(check::PATH, bytes).await;
        match answer {
            Some(answer) => {
                let response = <crate::pdp::wire::CheckResponse as prost::Message>::decode(answer).unwrap();
                assert!(matches!(response.http_response, Some(crate::pdp::wire::HttpResponse::Denied(_))), "{response:?}");
                answered += 1;
            }
            None => {
                assert_ne!(status, "0");
                errors += 1;
            }
        }
    }
    assert!(answered > 200 && errors > 200, "{answered} and {errors}: both ways are taken");
}
