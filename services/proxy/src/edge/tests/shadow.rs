//! A policy in shadow at the edge (A16, E12).

use serde_json::json;

use super::world::World;

// A16, E12: who would be refused is let in, with both answers in the record, in the cached pass too, and a count.
#[tokio::test]
async fn who_would_be_refused_passes_and_both_answers_are_recorded_and_counted() {
    let world = World::new().await;
    let get = |roles: &'static [&'static str]| {
        let world = &world;
        async move {
            *world.login.roles.lock().unwrap() = roles.iter().map(|role| (*role).to_owned()).collect();
            world.get("/api/videos/1", &[("authorization", &format!("Bearer {}", world.login.token()))]).await.status
        }
    };
    assert_eq!((get(&[]).await, get(&["guest"]).await), (200, 200));
    let token = world.login.token();
    assert_eq!(world.get("/api/videos/1", &[("authorization", &format!("Bearer {token}"))]).await.status, 200);
    assert_eq!(world.get("/api/videos/1", &[("authorization", &format!("Bearer {token}"))]).await.status, 200);
    assert_eq!(world.api.count(), 4);
    let kept = world.sink.kept.audit.lock().unwrap();
    let said: Vec<_> = kept.iter().filter_map(|r| r.fields.get("decision")?.get("allow")?.get("shadow").cloned()).collect();
    let refused = json!({"allow": false, "reason": "policy_denied", "policies": ["soon-barred"]});
    assert_eq!(said[0]["allow"], true);
    assert_eq!(said[1..], [refused.clone(), refused.clone(), refused]);
    let metrics = world.edge.recorder.metrics().render();
    let count = |decided: &str, would: &str| {
        let labels = format!("palisade_shadow_decisions_total{{point=\"edge\",action=\"enter\",decided=\"{decided}\",would=\"{would}\"}}");
        metrics.lines().find_map(|line| line.strip_prefix(&labels)?.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    assert_eq!((count("allow", "deny"), count("allow", "allow"), count("deny", "deny")), (3, 1, 0));
}
