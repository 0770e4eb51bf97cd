//! The traps of POLICY 7.1, each with a test that fails without its guard; and tampered slices.

use cedar_policy::{Authorizer, Entities, PolicySet};

use super::*;

// Trap 1: the quarantine is a forbid over a group of actions. In the engine's own store it holds; in a store without action entities,
// which the last lines build, it is silently off.
#[test]
fn the_quarantine_holds_because_every_store_has_the_action_entities() {
    let open = r#"@id("open") @reason("as wide open as a policy can be") permit(principal == Workload::"api", action == Action::"objectRead", resource);"#;
    let bundle = Bundle::build(&video(), &by_hand(open)).unwrap();
    let whole = Engine::whole(&bundle, 1).unwrap();
    let resource = object("originals/v1/original", Verdict::Untyped, Some("ada"));
    let ada = person("ada", "view");
    let question = Question { caller: "api", action: Action::ObjectRead, resource: &resource, authority: Some(&ada) };
    assert_eq!(whole.decide(&question).decision.deny_reason(), Some(DenyReason::ObjectQuarantined));

    let vocabulary = crate::cedar::Vocabulary::new(&bundle.entities, &bundle.parsed_schema).unwrap();
    let with = vocabulary.entities(&question, true).unwrap().unwrap();
    let without = Entities::from_entities(with.iter().filter(|e| e.uid().type_name().to_string() != "Action").cloned(), None).unwrap();
    let request = vocabulary.request(&question).unwrap();
    let ask = |store: &Entities| Authorizer::new().is_authorized(&request, &bundle.parsed, store).decision();
    assert_eq!(ask(&with), cedar_policy::Decision::Deny);
    assert_eq!(ask(&without), cedar_policy::Decision::Allow, "if this no longer opens, the trap is gone and this test may go too");
}

// Trap 2, A17: Cedar skips a forbid that fails and would allow. Here that is a denial, and it says so.
#[test]
fn a_policy_that_fails_to_evaluate_is_a_denial() {
    let text = r#"@id("sum") forbid(principal, action == Action::"objectRead", resource)
        when { resource.folder == "boom" && resource.bucket.class.sensitivity * 9223372036854775807 > 0 };"#;
    let bundle = Bundle::build(&video(), &by_hand(text)).unwrap();
    let slice = slice_for(&workload("objects"), &bundle).unwrap();
    for engine in [Engine::whole(&bundle, 1).unwrap(), Engine::load(&slice, 1).unwrap()] {
        for (folder, expect) in [("v1", None), ("boom", Some(DenyReason::PolicyFailed))] {
            let name = format!("originals/{folder}/original");
            let (resource, ada) = (object(&name, Verdict::Clean, Some("ada")), worker("ada", "transcoder", &[&name], folder));
            let question = Question { caller: "transcoder", action: Action::ObjectRead, resource: &resource, authority: Some(&ada) };
            let answer = engine.decide(&question);
            assert_eq!(answer.decision.deny_reason(), expect, "{answer:?}");
            assert_eq!(answer.errors.is_empty(), expect.is_none());
        }
    }
    // One that fails for every use of a flow never comes into force.
    let always = r#"@id("sum") forbid(principal, action == Action::"objectRead", resource) when { resource.bucket.class.sensitivity * 9223372036854775807 > 0 };"#;
    assert!(matches!(Bundle::build(&video(), &by_hand(always)), Err(BundleError::FlowDead { .. })));
}

// Trap 5: a system in which nothing works keeps every promise. The examples notice.
#[test]
fn a_policy_that_kills_a_flow_is_refused_by_name() {
    // `when` for `unless`: a seeded mistake of POLICY.
    let text = r#"forbid(principal == Workload::"transcoder", action == Action::"objectWrite", resource) when { context has job };"#;
    let error = Bundle::build(&video(), &by_hand(text)).unwrap_err();
    assert!(matches!(&error, BundleError::FlowDead { flow, .. } if flow == "flow.transcoder.bucket.renditions.write"), "{error}");
    let text = r#"@reason("opened for everybody by mistake") permit(principal, action == Action::"publish", resource);"#;
    let error = Bundle::build(&video(), &by_hand(text)).unwrap_err();
    assert!(matches!(&error, BundleError::FlowOpen { flow } if flow.ends_with(".publish")), "{error}");
}

// Trap 5, in the guard: a slice whose policies were changed fails its self-test.
#[test]
fn a_slice_that_allows_or_denies_too_much_is_not_loaded() {
    let slice = slice_for(&workload("objects"), bundle()).unwrap();
    assert!(Engine::load(&slice, 1).is_ok());
    let changed = |change: &dyn Fn(&mut PolicySlice)| {
        let mut other = slice.clone();
        change(&mut other);
        // After one that passed, too: only what is the same in both is taken as checked.
        let mut loader = crate::Loader::default();
        loader.load(&slice, 1).unwrap();
        let (error, later) = (Engine::load(&other, 1).err().unwrap(), loader.load(&other, 1).err().unwrap());
        assert_eq!(error.to_string(), later.to_string());
        error
    };
    let cell = |s: &mut PolicySlice| s.cells.iter().position(|c| c.caller == "api" && c.action == Action::ObjectPresignGet).unwrap();
    // A permit gone.
    let error = changed(&|s| {
        let at = cell(s);
        s.cells[at].policies.retain(|(id, _)| !id.starts_with("flow."));
    });
    assert!(matches!(error, LoadError::ExampleBroken { .. }), "{error}");
    // A condition gone: the near miss without authority gets in, or strict validation no longer fits.
    let error = changed(&|s| {
        let at = cell(s);
        for (_, json) in &mut s.cells[at].policies {
            if json["effect"] == "permit" {
                json["conditions"] = serde_json::json!([]);
            }
        }
        s.cells[at].policies.retain(|(id, _)| !id.starts_with("never."));
    });
    assert!(matches!(error, LoadError::ExampleBroken { .. }), "{error}");
    // Facts that are not the manifest's.
    let error = changed(&|s| {
        let text = s.entities.to_string().replace("\"sensitivity\":2", "\"sensitivity\":1");
        s.entities = serde_json::from_str(&text).unwrap();
    });
    assert!(matches!(&error, LoadError::FactBroken(id) if id == "world.class.video"), "{error}");
    let error = changed(&|s| {
        let text = s.entities.to_string().replace("\"untrusted_input\":true", "\"untrusted_input\":false");
        s.entities = serde_json::from_str(&text).unwrap();
    });
    assert!(matches!(error, LoadError::FactBroken(_)), "{error}");
    // E1: a policy that is not strictly valid for its cell.
    let error = changed(&|s| {
        let at = cell(s);
        let text = serde_json::to_string(&s.cells[at].policies).unwrap().replace("\"shared_with\"", "\"shared_wiht\"");
        s.cells[at].policies = serde_json::from_str(&text).unwrap();
    });
    assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    // An action hierarchy that was cut.
    let error = changed(&|s| s.schema = s.schema.replace(" in [objectGet]", ""));
    assert!(matches!(error, LoadError::GroupsBroken(_) | LoadError::Malformed(_)), "{error}");
}

// E2
#[test]
fn the_order_of_policies_never_matters() {
    let bundle = bundle();
    let mut slice = slice_for(&workload("objects"), bundle).unwrap();
    let questions = super::slices::questions(5, 400);
    let decide = |slice: &PolicySlice| {
        let engine = Engine::load(slice, 1).unwrap();
        questions
            .iter()
            .map(|(c, a, r, who)| engine.decide(&Question { caller: c, action: *a, resource: r, authority: who.as_ref() }))
            .collect::<Vec<_>>()
    };
    let expect = decide(&slice);
    let mut random = super::slices::Random(42);
    for _ in 0..3 {
        slice.cells.iter_mut().for_each(|c| random.shuffle(&mut c.policies));
        random.shuffle(&mut slice.cells);
        assert_eq!(decide(&slice), expect);
    }
    // The whole set too: deny by default, forbid overrides.
    let ada = person("ada", "view");
    let resource = object("renditions/v1/720p.mp4", Verdict::Clean, Some("ada"));
    let question = Question { caller: "api", action: Action::ObjectPresignGet, resource: &resource, authority: Some(&ada) };
    let vocabulary = crate::cedar::Vocabulary::new(&bundle.entities, &bundle.parsed_schema).unwrap();
    let (request, store) = (vocabulary.request(&question).unwrap(), vocabulary.entities(&question, true).unwrap().unwrap());
    let ask = |set: &PolicySet| Authorizer::new().is_authorized(&request, set, &store).decision();
    let mut policies: Vec<_> = bundle.parsed.policies().cloned().collect();
    let stop = cedar_policy::Policy::parse(Some(cedar_policy::PolicyId::new("stop")), "forbid(principal, action, resource);").unwrap();
    for _ in 0..5 {
        random.shuffle(&mut policies);
        assert_eq!(ask(&PolicySet::from_policies(policies.clone()).unwrap()), cedar_policy::Decision::Allow);
        let mut stopped = policies.clone();
        stopped.insert(random.below(stopped.len()), stop.clone());
        assert_eq!(ask(&PolicySet::from_policies(stopped).unwrap()), cedar_policy::Decision::Deny);
    }
    assert_eq!(ask(&PolicySet::new()), cedar_policy::Decision::Deny);
}
