//! A policy in shadow at a guard (D12, E12).

use trust::Authority;

use super::world::{World, authority, get, mirror, read};

const FORBID: &str = r#"forbid(principal == Workload::"front", action == Action::"call", resource == Route::"back:GET /things/{id}")
    when { context has authority && context.authority.user.roles.contains("guest") };"#;

/// Two guests' and another's answers at `back`, and what its guard recorded beside them: whether the shadow would have let them.
async fn answers(word: &str) -> (Vec<u16>, Vec<Option<bool>>) {
    let world = World::with_policies(&format!("@id(\"new\") {word} {FORBID}"));
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let edge = world.transport(&world.identity("front"), &world.service("back"), address);
    let mut statuses = Vec::new();
    let guest = Authority { roles: ["guest".to_owned()].into(), ..authority("ann", "view") };
    for authority in [&guest, &guest, &authority("ben", "view")] {
        let token = world.mint(authority);
        let answer = edge.call(get("/things/1", &[("txn-token", &token)])).await.unwrap();
        statuses.push(read(answer).await.0);
    }
    let kept = world.sink.audit.lock().unwrap();
    let decided = kept.iter().filter(|record| record.event == "CallDecided").map(|record| {
        let decision = record.fields["decision"].as_object().unwrap().values().next().unwrap();
        decision.get("shadow").map(|shadow| shadow["allow"].as_bool().unwrap())
    });
    (statuses, decided.collect())
}

// D12, E12: the word alone makes the difference.
#[tokio::test]
async fn a_guard_lets_pass_what_a_policy_in_shadow_would_refuse_and_says_so() {
    assert_eq!(answers("@shadow").await, (vec![200, 200, 200], vec![Some(false), Some(false), Some(true)]));
    assert_eq!(answers("").await, (vec![403, 403, 200], vec![None, None, None]));
}
