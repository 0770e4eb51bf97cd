//! A15: services that are asked whether they are well.

use super::*;

fn with(more: &str) -> String {
    VIDEO.replacen(
        "run = [\"/usr/bin/python3\", \"web/server.py\"]",
        &format!("run = [\"/usr/bin/python3\", \"web/server.py\"]\n{more}"),
        1,
    )
}

#[test]
fn a_service_that_runs_all_the_time_may_be_asked_whether_it_is_well() {
    let manifest = Manifest::parse("x", &with("health = { path = \"/healthz\" }")).unwrap_or_else(|e| panic!("{e}"));
    let health = manifest.services["web"].health.clone().unwrap();
    assert_eq!((health.interval_ms, health.timeout_ms, health.unhealthy, health.healthy), (5_000, 1_000, 3, 2));
    for (more, said) in [
        ("health = { path = \"healthz\" }", "begins with '/'"),
        ("health = { path = \"/{name}\" }", "without names in braces"),
        ("health = { path = \"/healthz\", interval = \"99ms\" }", "at least \"100ms\""),
        ("health = { path = \"/healthz\", unhealthy = 0 }", "between 1 and 100"),
        ("health = { path = \"/healthz\" }\nreplicas = { min = 1, max = 2 }", "would be started by being asked"),
    ] {
        let error = refused(&with(more)).to_string();
        assert!(error.contains(said), "{said:?} is not in: {error}");
    }
    let jobs = VIDEO.replacen("run = [\"./video-validator\"]", "run = [\"./video-validator\"]\nhealth = { path = \"/h\" }", 1);
    assert!(refused(&jobs).to_string().contains("nothing to ask in between"));
}
