//! Policies in shadow: evaluated, told, without effect (A16, E12, D12).

use super::*;

const FORBID: &str = r#"forbid(principal == Workload::"api", action == Action::"objectPresignGet", resource)
    when { resource.folder == "v1" };"#;

fn engines(text: &str) -> [Engine; 2] {
    let bundle = Bundle::build(&video(), &by_hand(text)).unwrap_or_else(|e| panic!("{e}"));
    let slice = slice_for(&workload("objects"), &bundle).unwrap();
    [Engine::whole(&bundle, 1).unwrap(), Engine::load(&slice, 1).unwrap()]
}

fn answer(engine: &Engine, object_name: &str, user: &str) -> Decision {
    let (resource, who) = (object(object_name, Verdict::Clean, Some("ada")), person(user, "view"));
    engine.decide(&Question { caller: "api", action: Action::ObjectPresignGet, resource: &resource, authority: Some(&who) }).decision
}

// A16, E12: the word alone makes the difference, in the whole set and in a slice.
#[test]
fn a_forbid_in_shadow_says_what_it_would_do_and_does_nothing_until_the_word_is_gone() {
    for engine in engines(&format!("@id(\"new\") @shadow {FORBID}")) {
        let would = answer(&engine, "renditions/v1/720p.mp4", "ada");
        assert!(would.is_allow());
        let shadow = would.shadow().unwrap();
        assert_eq!(
            (shadow.allow, shadow.reason, shadow.policies.as_slice()),
            (false, Some(DenyReason::PolicyDenied), ["new".to_owned()].as_slice())
        );
        let other = answer(&engine, "renditions/v2/720p.mp4", "ada");
        assert!(other.is_allow() && other.shadow().unwrap().allow, "where it does not forbid, both say the same");
        let eve = answer(&engine, "renditions/v2/720p.mp4", "eve");
        assert!(!eve.is_allow() && !eve.shadow().unwrap().allow);
    }
    for engine in engines(&format!("@id(\"new\") {FORBID}")) {
        let now = answer(&engine, "renditions/v1/720p.mp4", "ada");
        assert_eq!((now.deny_reason(), now.shadow()), (Some(DenyReason::PolicyDenied), None));
        assert!(answer(&engine, "renditions/v2/720p.mp4", "ada").is_allow());
    }
}

// A16: a permit in shadow opens nothing.
#[test]
fn a_permit_in_shadow_opens_nothing() {
    let text = r#"@id("wide") @shadow @reason("support staff may watch, one day")
        permit(principal == Workload::"api", action == Action::"objectPresignGet", resource) when { context has authority };"#;
    for engine in engines(text) {
        let eve = answer(&engine, "renditions/v1/720p.mp4", "eve");
        assert_eq!(eve.deny_reason(), Some(DenyReason::PolicyDenied));
        assert!(eve.shadow().unwrap().allow);
    }
}

// A16: one that would stop a flow altogether may be tried, since it stops nothing; one that fails to evaluate harms nobody.
#[test]
fn a_policy_in_shadow_may_be_wrong_without_harm() {
    let kills = r#"@id("kills") @shadow forbid(principal == Workload::"transcoder", action == Action::"objectWrite", resource) when { context has job };"#;
    assert!(Bundle::build(&video(), &by_hand(kills)).is_ok());
    assert!(matches!(Bundle::build(&video(), &by_hand(&kills.replace("@shadow", ""))), Err(BundleError::FlowDead { .. })));
    let fails = r#"@id("sum") @shadow forbid(principal, action == Action::"objectPresignGet", resource)
        when { resource.folder == "v1" && resource.bucket.class.sensitivity * 9223372036854775807 > 0 };"#;
    for engine in engines(fails) {
        let told = answer(&engine, "renditions/v1/720p.mp4", "ada");
        assert!(told.is_allow());
        assert_eq!(told.shadow().unwrap().reason, Some(DenyReason::PolicyFailed));
    }
}
