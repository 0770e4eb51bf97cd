//! AuthZEN (OpenID AuthZEN Authorization API 1.0): the shapes of its sections, and refusals.

use contract::body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::world::World;
use crate::limits;
use crate::pdp::authzen::{EVALUATION, EVALUATIONS, METADATA};

fn question(user: &str, token: &str, method: &str, path: &str) -> Value {
    json!({
        "subject": { "type": "user", "id": user, "properties": { "access_token": token } },
        "action": { "name": method },
        "resource": { "type": "route", "id": path },
        "context": { "time": "2026-11-22T10:00:00Z" },
    })
}

// E21: section 6.
#[tokio::test]
async fn a_question_is_answered_with_a_decision_its_name_and_the_token_that_goes_on() {
    let world = World::new();
    let token = world.login.token();
    let (status, answer) = world.evaluate(EVALUATION, &question("u-anna", &token, "GET", "/api/videos").to_string()).await;
    assert_eq!((status, &answer["decision"]), (StatusCode::OK, &json!(true)));
    let minted = answer["context"]["txn_token"].as_str().unwrap();
    assert_eq!(world.point.views.fresh().unwrap().verifier.verify(minted, &*world.clock).unwrap().user, "u-anna");
    let trace = world.audit().last().unwrap().trace.clone();
    assert_eq!(answer["context"]["id"], trace);
    for (what, asked, reason) in [
        ("another person than the token's", question("u-bert", &token, "GET", "/api/videos"), "subject_mismatch"),
        (
            "an id without a token",
            json!({ "subject": { "type": "user", "id": "u-anna" }, "action": { "name": "GET" }, "resource": { "type": "route", "id": "/api/videos" } }),
            "credential_missing",
        ),
        ("a token that is none", question("u-anna", "x", "GET", "/api/videos"), "token_malformed"),
        ("a route that is not offered", question("u-anna", &token, "GET", "/secret"), "route_unknown"),
        ("a path with two readings", question("u-anna", &token, "GET", "/api//videos"), "request_ambiguous"),
        ("no method", question("u-anna", &token, "can read", "/api/videos"), "request_ambiguous"),
    ] {
        let before = world.refusals().len();
        let (status, answer) = world.evaluate(EVALUATION, &asked.to_string()).await;
        assert_eq!((status, &answer["decision"], &answer["context"]["reason"]), (StatusCode::OK, &json!(false), &json!(reason)), "{what}");
        assert_eq!(world.refusals()[before..], [reason], "{what}");
    }
}

#[tokio::test]
async fn a_workload_is_asked_about_with_the_authority_that_it_brings() {
    let world = World::new();
    let asked = |who: &str, token: Option<String>| {
        let properties = token.map_or(json!({}), |token| json!({ "txn_token": token }));
        json!({ "subject": { "type": "workload", "id": who, "properties": properties }, "action": { "name": "GET" },
            "resource": { "type": "route", "id": "/api/videos" } })
    };
    let front = "spiffe://video.example/service/front";
    let (_, answer) = world.evaluate(EVALUATION, &asked(front, Some(world.txn_token("view"))).to_string()).await;
    assert_eq!((&answer["decision"], answer["context"].get("txn_token")), (&json!(true), None));
    let (_, answer) = world.evaluate(EVALUATION, &asked(front, None).to_string()).await;
    assert_eq!(answer["context"]["reason"], "authority_missing");
    let (_, answer) = world.evaluate(EVALUATION, &asked("front", Some(world.txn_token("view"))).to_string()).await;
    assert_eq!(answer["context"]["reason"], "svid_malformed");
}

// Sections 7.1.1 and 7.1.2.
#[tokio::test]
async fn several_questions_share_what_is_common_and_end_as_they_ask_to() {
    let world = World::new();
    let routes = ["/api/videos", "/secret", "/api/videos/7"];
    let each: Vec<Value> = routes.iter().map(|path| json!({ "resource": { "type": "route", "id": path } })).collect();
    let with = |semantic: Value| {
        let mut all = question("u-anna", &world.login.token(), "GET", "/api/videos");
        all["evaluations"] = json!(each);
        all["options"] = semantic;
        all.to_string()
    };
    let decided = async |text: String| -> Vec<bool> {
        let (status, answer) = world.evaluate(EVALUATIONS, &text).await;
        assert_eq!(status, StatusCode::OK);
        answer["evaluations"].as_array().unwrap().iter().map(|one| one["decision"].as_bool().unwrap()).collect()
    };
    assert_eq!(decided(with(json!({}))).await, [true, false, true]);
    assert_eq!(decided(with(json!({ "evaluations_semantic": "execute_all" }))).await, [true, false, true]);
    assert_eq!(decided(with(json!({ "evaluations_semantic": "deny_on_first_deny" }))).await, [true, false]);
    assert_eq!(decided(with(json!({ "evaluations_semantic": "permit_on_first_permit" }))).await, [true]);
    let (_, one) = world.evaluate(EVALUATIONS, &question("u-anna", &world.login.token(), "GET", "/api/videos").to_string()).await;
    assert_eq!(one["decision"], true, "without a list it is one question");
    let (_, broken) = world.evaluate(EVALUATIONS, &json!({ "evaluations": [{}, {}] }).to_string()).await;
    assert_eq!(broken["evaluations"][1]["context"]["error"]["status"], 400);
    assert_eq!(broken["evaluations"][1]["decision"], false);
}

// A13, A17
#[tokio::test]
async fn what_is_no_question_is_an_error_and_on_record_as_a_refusal() {
    let world = World::new();
    let good = question("u-anna", &world.login.token(), "GET", "/api/videos");
    let without = |part: &str| {
        let mut asked = good.clone();
        asked.as_object_mut().unwrap().remove(part);
        asked.to_string()
    };
    let padded = |bytes: usize| {
        let text = good.to_string();
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    let many = |count: usize| {
        let mut all = good.clone();
        all["evaluations"] = json!(vec![json!({}); count]);
        all.to_string()
    };
    let mut other_kind = good.clone();
    other_kind["resource"]["type"] = "file".into();
    let mut with_query = good.clone();
    with_query["resource"]["id"] = "/api/videos?x=1".into();
    let mut number = good.clone();
    number["subject"]["id"] = 7.into();
    for (what, path, text, status) in [
        ("no JSON", EVALUATION, "{".to_owned(), 400),
        ("no subject", EVALUATION, without("subject"), 400),
        ("no action", EVALUATION, without("action"), 400),
        ("no resource", EVALUATION, without("resource"), 400),
        ("another kind of resource", EVALUATION, other_kind.to_string(), 400),
        ("a query", EVALUATION, with_query.to_string(), 400),
        ("an id that is no text", EVALUATION, number.to_string(), 400),
        ("too large", EVALUATION, padded(limits::PEP_QUESTION_BYTES_MAX + 1), 413),
        ("too large together", EVALUATIONS, padded(limits::PEP_QUESTIONS_BYTES_MAX + 1), 413),
        ("too many", EVALUATIONS, many(limits::PEP_QUESTIONS_MAX + 1), 413),
    ] {
        let before = world.refusals().len();
        let (found, answer) = world.evaluate(path, &text).await;
        assert_eq!(found.as_u16(), status, "{what}: {answer}");
        assert_eq!(world.refusals()[before..], ["request_ambiguous"], "{what}");
        assert!(answer["error"].is_string(), "{what}");
    }
    for (path, text) in [
        (EVALUATION, padded(limits::PEP_QUESTION_BYTES_MAX)),
        (EVALUATIONS, padded(limits::PEP_QUESTIONS_BYTES_MAX)),
        (EVALUATIONS, many(limits::PEP_QUESTIONS_MAX)),
    ] {
        assert_eq!(world.evaluate(path, &text).await.0, StatusCode::OK, "just below");
    }
    let plain = Request::post(EVALUATION).header("content-type", "text/plain").body(body::full(good.to_string())).unwrap();
    assert_eq!(world.answer(plain).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

// Sections 9 and 10.1.3.
#[tokio::test]
async fn the_metadata_name_the_endpoints_and_a_requests_id_comes_back() {
    let world = World::new();
    let request = Request::get(METADATA).header("host", "pdp.example").header("x-request-id", "r-1").body(body::empty()).unwrap();
    let answer = world.answer(request).await;
    assert_eq!(answer.headers()["x-request-id"], "r-1");
    let said: Value = serde_json::from_slice(&body::collect(answer.into_body(), 10_000).await.unwrap()).unwrap();
    assert_eq!(said["policy_decision_point"], "http://pdp.example");
    assert_eq!(said["access_evaluation_endpoint"], "http://pdp.example/access/v1/evaluation");
    assert_eq!(said["access_evaluations_endpoint"], "http://pdp.example/access/v1/evaluations");
    for (method, path, status) in
        [("GET", EVALUATION, 405), ("POST", METADATA, 405), ("GET", "/", 404), ("POST", "/access/v1/search/subject", 404)]
    {
        let request = Request::builder().method(method).uri(path).body(body::empty()).unwrap();
        assert_eq!(world.answer(request).await.status(), status, "{method} {path}");
    }
}
