//! What the access log is told of a request (J1).

use serde_json::Value;

use super::world::{World, request};

fn last(world: &World) -> Value {
    world.lines.0.lock().unwrap().last().cloned().unwrap()
}

// J1: who, with what, where to, what became of it; never a query, never a credential.
#[tokio::test]
async fn each_request_is_told_with_who_and_what_and_without_credentials() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let bearer = format!("Bearer {}", world.login.token());
    let answered = world.get("/api/videos?token=hunter2", &[("cookie", &session), ("user-agent", "curl/8\twith a tab")]).await;
    let line = last(&world);
    for (field, said) in [
        ("point", Value::from("edge")),
        ("method", "GET".into()),
        ("host", "localhost:8443".into()),
        ("path", "/api/videos".into()),
        ("service", "api".into()),
        ("route", "GET /api/videos".into()),
        ("status", 200.into()),
        ("bytes_in", 0.into()),
        ("bytes_out", answered.text.len().into()),
        ("tls", "1.3".into()),
        ("address", "127.0.0.1".into()),
        ("caller", "internet".into()),
        ("shown", "session".into()),
        ("person", "u-anna".into()),
        ("decision", "allow".into()),
        ("reason", "".into()),
        ("epoch", 7.into()),
        ("trace", answered.headers["palisade-trace"].to_str().unwrap().into()),
        ("user_agent", "curl/8\u{fffd}with a tab".into()),
    ] {
        assert_eq!(line[field], said, "{field} in {line}");
    }
    assert!(!line["policy"].as_str().unwrap().is_empty());
    world.post("/api/videos", &[("authorization", &bearer), ("content-type", "application/json")], "{}").await;
    assert_eq!((&last(&world)["shown"], &last(&world)["bytes_in"]), (&Value::from("token"), &Value::from(2)));
    world.get("/api/no-such", &[("authorization", &bearer)]).await;
    let line = last(&world);
    assert_eq!(
        (&line["status"], &line["reason"], &line["route"]),
        (&Value::from(404), &Value::from("route_unknown"), &Value::from("unknown"))
    );
    world.get("/api/videos", &[("authorization", &format!("Bearer palk_{}", "0".repeat(72)))]).await;
    assert_eq!((&last(&world)["shown"], &last(&world)["status"]), (&Value::from("key"), &Value::from(401)));
    world.send(request("GET", "/originals/7/original?X-Amz-Signature=abc&X-Amz-Algorithm=a", &[], "")).await;
    assert_eq!((&last(&world)["shown"], &last(&world)["path"]), (&Value::from("presigned"), &Value::from("/originals/7/original")));
    let all = Value::from(world.lines.0.lock().unwrap().clone()).to_string();
    for secret in ["hunter2", "X-Amz", bearer.as_str(), session.as_str(), "code="] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

// J1: one line for each request, also for those that are refused before anything is known of them.
#[tokio::test]
async fn there_is_a_line_for_each_request_whatever_became_of_it() {
    let world = World::new().await;
    for n in 1..=3 {
        world.get("/", &[("host", "stranger.example")]).await;
        assert_eq!(world.lines.0.lock().unwrap().len(), n);
    }
    let line = last(&world);
    assert_eq!(
        (&line["reason"], &line["host"], &line["status"]),
        (&Value::from("host_unknown"), &Value::from("stranger.example"), &Value::from(421))
    );
}
