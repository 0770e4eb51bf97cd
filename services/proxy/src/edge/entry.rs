//! Entry: whether this person may go to that destination, and with which authority.
//!
//! Services are the policy's question (`enter`). Palisade's own destinations have their rules here, each with a name that the audit
//! record gives as the determining policy; their rooms check once more.
//!
//! Guarantees: A14 (cross-site requests that change something are refused), B13 (what asks for a second proof gets one of just now), E4 (the one engine
//!             decides about services).

use std::collections::BTreeSet;

use contract::control::PublicRoute;
use contract::route::Who;
use trust::{Authority, Clock, Decision, DenyReason, Entropy};

use super::DangerousWithout;
use super::destination::{Destination, SessionPage};
use super::pass::Key;
use super::person::Person;
use super::stop::{Refusal, Stop};
use super::visit::{Site, Visit};
use crate::view::{Loaded, Question};

/// Purpose of what administrators do at the console.
const OPERATE: &str = "operate";

/// What was decided, and what goes along.
#[derive(Debug)]
pub struct Entry {
    /// Allow, always: a refusal is a `Stop`.
    pub decision: Decision,
    /// Authority to mint a token for; none where no person is needed.
    pub authority: Option<Authority>,
}

/// Refuses what another site could be behind.
///
/// # Errors
/// `CrossSite`.
pub fn same_site(visit: &Visit, person: Option<&Person>) -> Result<(), DenyReason> {
    if is_cross_site(visit, person) { Err(DenyReason::CrossSite) } else { Ok(()) }
}

/// What a pass for this visit would be kept under: only services' routes have passes.
#[must_use]
pub fn pass_key(view: &Loaded, visit: &Visit, person: Option<&Person>, clock: &dyn Clock) -> Option<Key> {
    match (&visit.destination, person) {
        (destination @ Destination::Service(_), Some(person)) => Some(Key {
            credential: person.credential,
            stepped_up: person.stepped_up(clock),
            view: (view.view.epoch, view.view.issued_at_ms),
            route: destination.name(&visit.head.method),
        }),
        _ => None,
    }
}

/// Decides about a visit.
///
/// # Errors
/// `CrossSite`, `CredentialMissing`, `ScopeMissing`, `StepUpMissing`, `CallerNotAdmitted`, or what the policy says.
pub fn decide(
    view: &Loaded,
    visit: &Visit,
    person: Option<&Person>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    without: DangerousWithout,
) -> Result<Entry, Stop> {
    let own = |rule: &str, authority| Entry {
        decision: Decision::Allow { policies: vec![rule.to_owned()], epoch: view.view.epoch, shadow: None },
        authority,
    };
    same_site(visit, person)?;
    match &visit.destination {
        Destination::Session(page) => match page {
            SessionPage::Me if person.is_none() => Err(DenyReason::CredentialMissing.into()),
            _ => Ok(own("edge.session", None)),
        },
        Destination::Login { .. } => Ok(own("edge.oidc", None)),
        Destination::Preflight(_) => Ok(own("edge.cors", None)),
        Destination::Presigned { .. } => {
            // Both names are what makes a request a presigned one (SigV4, "Authenticating Requests: Using Query Parameters").
            let signed = visit.single("X-Amz-Signature").is_some() && visit.single("X-Amz-Algorithm").is_some();
            if signed { Ok(own("edge.presigned", None)) } else { Err(DenyReason::CredentialMissing.into()) }
        }
        Destination::Console { route } => {
            let person = person.ok_or(DenyReason::CredentialMissing)?;
            match route.who {
                Who::Person(role) if person.claims.roles.contains(role) || without.role => {
                    Ok(own("edge.console", Some(authority(person, OPERATE, BTreeSet::new(), person.stepped_up(clock), entropy))))
                }
                _ => Err(DenyReason::CallerNotAdmitted.into()),
            }
        }
        Destination::Service(route) => service(view, route, person.ok_or(DenyReason::CredentialMissing)?, clock, entropy, without),
    }
}

/// Whether the policy lets this person in at a service's route.
///
/// # Errors
/// `ScopeMissing`, `StepUpMissing`, or what the policy says.
pub fn service(
    view: &Loaded,
    route: &PublicRoute,
    person: &Person,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    without: DangerousWithout,
) -> Result<Entry, Stop> {
    if route.scope.as_ref().is_some_and(|scope| !person.has_scope(scope)) && !without.scope {
        return Err(DenyReason::ScopeMissing.into());
    }
    let proved = person.stepped_up(clock) || without.step_up;
    if route.step_up && !proved {
        return Err(DenyReason::StepUpMissing.into());
    }
    let authority = authority(person, &route.purpose, route.scope.iter().cloned().collect(), proved, entropy);
    let text = format!("{} {}", route.method, route.path);
    let service = route.service.as_service().ok_or(DenyReason::RouteUnknown)?;
    match view.engine.decide(&Question::Enter { service, route: &text, authority: Some(&authority) }) {
        decision @ Decision::Allow { .. } => Ok(Entry { decision, authority: Some(authority) }),
        Decision::Deny { reason, policies, epoch, shadow } => {
            Err(Stop::Refused(Refusal { policies, epoch, shadow, ..Refusal::from(reason) }))
        }
    }
}

fn authority(person: &Person, purpose: &str, scopes: BTreeSet<String>, step_up: bool, entropy: &dyn Entropy) -> Authority {
    Authority {
        txn: trust::clock::random_hex(entropy, 16),
        user: person.claims.sub.clone(),
        purpose: purpose.to_owned(),
        scopes,
        roles: person.claims.roles.clone(),
        step_up,
        job: None,
    }
}

/// Whether another site could be behind it: what changes something must come from our own pages where a browser adds a cookie by itself.
fn is_cross_site(visit: &Visit, person: Option<&Person>) -> bool {
    match &visit.destination {
        Destination::Session(SessionPage::SignOut) if visit.is_unsafe() => visit.site != Site::Same,
        Destination::Session(SessionPage::SignOut) => !matches!(visit.site, Site::Same | Site::Typed),
        Destination::Session(_) | Destination::Presigned { .. } | Destination::Preflight(_) => false,
        // A form of another site that signs somebody in as somebody else; programs, which say nothing, may ask for tokens.
        Destination::Login { .. } => visit.is_unsafe() && matches!(visit.site, Site::Cross),
        // A page of another origin may open a WebSocket anywhere, and the browser adds the cookie: the origin must be ours.
        Destination::Service(_) if visit.opening.is_some() => {
            visit.site == Site::Cross || (visit.site != Site::Same && person.is_some_and(|p| p.by_cookie))
        }
        Destination::Console { .. } | Destination::Service(_) => {
            visit.is_unsafe() && person.is_some_and(|p| p.by_cookie) && visit.site != Site::Same
        }
    }
}
