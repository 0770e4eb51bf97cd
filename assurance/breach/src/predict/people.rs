//! People: from outside, signed in, with a partner's key, as an administrator.

use std::collections::BTreeSet;

use contract::Who;
use manifest::{Isolation, Manifest};
use policy::{Action, PLANES, Question, Resource};
use trust::Authority;

use super::deputy;
use super::held::{Held, person};
use super::{Found, Model, Work};
use crate::names;
use crate::report::{Cell, Extent, LISTENERS, Lasts, Profile};
use crate::technique::Control as C;

/// Nobody: the edge, and what it answers to strangers.
pub(crate) fn external(model: &Model<'_>, found: &mut Found) {
    let profile = Profile::External;
    found.lasts.insert(profile.clone(), Lasts::Credential);
    strangers(found, &profile);
    for (name, service) in &model.manifest.services {
        for route in service.routes.iter().filter(|r| !r.is_tcp()) {
            let (target, action) = (format!("service.{name}"), format!("{} {}", route.method, route.path));
            let stops = if route.public { entry_stops(model, name, route, None) } else { BTreeSet::from([C::Policy, C::Mtls]) };
            let extent = if stops.is_empty() { Extent::Public } else { Extent::Everybody };
            for cell in Cell::of_call(&target, &route.method, &action, extent) {
                found.stopped(&profile, cell, stops.iter().copied(), "asks without a credential");
            }
        }
        if service.state {
            let cell = Cell::read(format!("state.{name}"), Extent::Everybody);
            found.stopped(&profile, cell, [C::SignIn, C::GuardIn], "asks without a credential");
        }
    }
    writes_a_token(model, found, &profile);
    for bucket in model.manifest.buckets.keys() {
        let cell = Cell::read(format!("bucket.{bucket}"), Extent::Everybody);
        found.stopped(&profile, cell, [C::SignIn], "forges a presigned URL");
    }
    let answer = Cell::done(LISTENERS, "answer", Extent::Public);
    found.stopped(&profile, answer, [C::Mtls], "knocks from within the network, without an SVID");
    // Where it has no network of its own, a service's port and those of its flows are everybody's on that machine.
    if model.manifest.services.values().any(|service| service.isolation == Isolation::Confined) {
        let plain = Cell::done(LISTENERS, names::PLAIN_ANSWER, Extent::Public);
        found.open(&profile, plain, "knocks at ports of a service that shares the machine's network");
    }
    console(model, found, &profile, None);
}

/// Whoever is believed what a token says is whoever they like, with whatever scope and role: nothing else asks who signed it.
fn writes_a_token(model: &Model<'_>, found: &mut Found, profile: &Profile) {
    let by = "writes a token";
    let scopes = scopes(model, &Profile::Person);
    for (name, service) in &model.manifest.services {
        for route in service.routes.iter().filter(|route| route.public && !route.is_tcp()) {
            let authority = asking(&route.purpose, &scopes);
            let entered = entry_stops(model, name, route, Some(&authority)).is_empty();
            let action = format!("{} {}", route.method, route.path);
            for cell in Cell::of_call(&format!("service.{name}"), &route.method, &action, Extent::Everybody).into_iter().filter(|_| entered)
            {
                found.stopped(profile, cell, [C::SignIn], by);
            }
        }
    }
    found.stopped(profile, Cell::done("role.evidence", "GET /console", Extent::Everybody), [C::SignIn], by);
}

/// What the edge answers before anybody has signed in: `login`'s own pages and endpoints, but for those that ask for a credential.
fn strangers(found: &mut Found, profile: &Profile) {
    let open = |route: &&contract::Route| {
        matches!(route.who, Who::Roles(&["edge"]) | Who::Doors) && !matches!(route.action, "login.userinfo" | "login.introspect")
    };
    for route in contract::login::ROUTES.iter().filter(open) {
        found.open(profile, Cell::done("role.login", format!("{} {}", route.method, route.path), Extent::Public), "answers strangers");
    }
}

/// A person who signed in, or a partner whose key acts for an account of the partner's own.
pub(crate) fn signed_in(model: &Model<'_>, found: &mut Found, profile: Profile) {
    found.lasts.insert(profile.clone(), Lasts::Credential);
    strangers(found, &profile);
    let scopes = scopes(model, &profile);
    let called = routes(model, found, &profile, &scopes);
    deputy::of_person(model, found, &profile, called);
    others(model, found, &profile);
    if profile == Profile::Vendor {
        lesser_key(model, found, &profile);
    } else {
        found.stopped(&profile, Cell::disturbed("role.edge"), [C::Limits], "asks faster than anybody may");
    }
    console(model, found, &profile, Some(&asking("", &scopes)));
}

/// Scopes of its token or key.
fn scopes(model: &Model<'_>, profile: &Profile) -> BTreeSet<String> {
    if *profile == Profile::Vendor { vendor_scopes(model.manifest) } else { all_scopes(model.manifest) }
}

fn all_scopes(manifest: &Manifest) -> BTreeSet<String> {
    manifest.services.values().flat_map(|s| &s.routes).filter_map(|r| r.scope.clone()).collect()
}

/// Scopes of a partner's key: those that providers may bring, where some are declared; else every one, as an API key may have.
#[must_use]
pub fn vendor_scopes(manifest: &Manifest) -> BTreeSet<String> {
    let issuers = &manifest.edge.issuers;
    if issuers.is_empty() { all_scopes(manifest) } else { issuers.values().flat_map(|issuer| issuer.scopes.iter().cloned()).collect() }
}

/// A key of the same owner without scopes: the gateway alone asks for them, since the authority that goes on has the scope of its route.
fn lesser_key(model: &Model<'_>, found: &mut Found, profile: &Profile) {
    for route in model.manifest.services.values().flat_map(|service| &service.routes).filter(|route| route.public && !route.is_tcp()) {
        let Some(scope) = &route.scope else { continue };
        let cell = Cell::done(format!("scope.{scope}"), format!("{} {}", route.method, route.path), Extent::Own);
        found.stopped(profile, cell, [C::Scope], "asks with a key that has no scope");
    }
}

fn asking(purpose: &str, scopes: &BTreeSet<String>) -> Authority {
    Authority { scopes: scopes.clone(), ..person(purpose, None) }
}

/// The public routes, on its own authority; gives the work that it makes for them.
fn routes(model: &Model<'_>, found: &mut Found, profile: &Profile, scopes: &BTreeSet<String>) -> Vec<Work> {
    let mut called = Vec::new();
    for (name, service) in &model.manifest.services {
        for route in service.routes.iter().filter(|r| !r.is_tcp()) {
            let (target, action) = (format!("service.{name}"), format!("{} {}", route.method, route.path));
            let authority = Authority { step_up: *profile == Profile::InsiderMfa, ..asking(&route.purpose, scopes) };
            let stops = if route.public { entry_stops(model, name, route, Some(&authority)) } else { BTreeSet::from([C::Policy, C::Mtls]) };
            if stops.is_empty() {
                called.push(Work { service: name.clone(), held: Held::Request { purpose: route.purpose.clone() } });
            }
            let by = if stops.is_empty() { format!("flow.internet.service.{name}.{action}") } else { "asks for it".to_owned() };
            for cell in Cell::of_call(&target, &route.method, &action, Extent::Own) {
                found.stopped(profile, cell, stops.iter().copied(), by.clone());
            }
        }
    }
    called
}

/// What stops a request at the edge and at the service's guard.
fn entry_stops(model: &Model<'_>, service: &str, route: &manifest::Route, authority: Option<&Authority>) -> BTreeSet<C> {
    let resource = Resource::route(service, &route.method, &route.path);
    let ask = |caller, action| model.allowed(&Question { caller, action, resource: &resource, authority }).is_some();
    let (enters, called) = (ask("internet", Action::Enter), ask("edge", Action::Call));
    match (enters, called, authority) {
        (true, true, _) => BTreeSet::new(),
        // The edge asks for a person, and the guard for their authority.
        (_, _, None) => BTreeSet::from([C::SignIn, C::TransactionToken]),
        (_, _, Some(authority)) => {
            let scoped = route.scope.as_ref().is_some_and(|scope| !authority.scopes.contains(scope));
            let proved = !route.step_up || authority.step_up;
            BTreeSet::from([if scoped {
                C::Scope
            } else if !proved {
                C::StepUp
            } else {
                C::Policy
            }])
        }
    }
}

/// What others have: a service looks at the person that the token names, the store at the owner.
fn others(model: &Model<'_>, found: &mut Found, profile: &Profile) {
    for bucket in model.manifest.buckets.keys() {
        for cell in
            [Cell::read(format!("bucket.{bucket}"), Extent::Everybody), Cell::written(format!("bucket.{bucket}"), Extent::Everybody)]
        {
            found.stopped(profile, cell.clone(), [C::TransactionToken, C::SignIn], "says to be somebody else");
            found.stopped(profile, cell, [C::Policy], "has a service hand out a URL for it");
        }
    }
}

/// The console: an administrator's, by role.
fn console(model: &Model<'_>, found: &mut Found, profile: &Profile, authority: Option<&Authority>) {
    let admitted = authority.is_some_and(|a| a.roles.contains(policy::ADMIN_ROLE));
    for route in contract::evidence::ROUTES {
        let Who::Person(_) = route.who else { continue };
        let cell = Cell::done("role.evidence", format!("{} {}", route.method, route.path), Extent::Everybody);
        match (admitted, authority) {
            (true, _) => found.open(profile, cell, "an administrator's page"),
            (false, Some(_)) => found.stopped(profile, cell, [C::Role], "asks for it"),
            (false, None) => found.stopped(profile, cell, [C::SignIn, C::Role], "asks for it"),
        }
    }
    if !admitted && authority.is_some() {
        for plane in PLANES.iter().filter(|plane| SHOWN.contains(plane)) {
            found.stopped(profile, Cell::read(format!("plane.{plane}"), Extent::Everybody), [C::Role], "asks for it");
        }
    }
    if admitted {
        for plane in PLANES {
            let resource = Resource::Plane((*plane).to_owned());
            let question = Question { caller: "console", action: Action::AdminView, resource: &resource, authority };
            if SHOWN.contains(plane)
                && let Some(by) = model.allowed(&question)
            {
                found.open(profile, Cell::read(format!("plane.{plane}"), Extent::Everybody), by);
            }
        }
    }
}

/// Planes that the console has a page of. What the policy would permit besides has no door.
const SHOWN: &[&str] = &["manifest", "services", "audit"];

/// An administrator: a person of the system, with its pages. There is no route by which one changes anything, with or without a second
/// proof: changes are the operator's, at the machine.
pub(crate) fn insider(model: &Model<'_>, found: &mut Found, profile: Profile) {
    signed_in(model, found, profile.clone());
    let mut authority = asking(manifest::PURPOSE_OPERATE, &BTreeSet::new());
    authority.roles.insert(policy::ADMIN_ROLE.to_owned());
    authority.step_up = profile == Profile::InsiderMfa;
    console(model, found, &profile, Some(&authority));
    let apply = Cell::done("role.control", "POST /apply", Extent::Everybody);
    let stops = if authority.step_up { vec![C::FileModes] } else { vec![C::FileModes, C::StepUp] };
    found.stopped(&profile, apply, stops, "changes the manifest");
    let socket = Cell::done("role.control", "operator's socket", Extent::Everybody);
    found.stopped(&profile, socket, [C::FileModes, C::PeerCredentials], "calls it as another user of the machine");
}
