//! Prediction: what each attacker reaches, from the manifest and its policies; nothing runs.
//!
//! For every attacker the ways to everything there is are gone through. A way is stopped by controls, each of which would stop it
//! alone; one that nothing stops is reached. Whatever a policy decides is asked of the policy itself (`Engine::decide`), with a request
//! that stands for its class: the job's input, another object of its folder, of its person, of somebody else. Sockets, routes and
//! tokens are modelled after the guard: a socket for each declared peer, declared routes alone, authority that is in flight.
//!
//! Guarantees: L7, L8 predicted; L12 predicted; L13 (`defence` makes it of the ways).
//! Not here:   what a service's own code lets through: a person's data in its folder is as safe as that code.

mod deputy;
mod held;
mod objects;
mod people;
mod taken;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use manifest::Manifest;
use policy::{Bundle, BundleError, Engine, Question};

use crate::report::{Cell, Deputy, How, Lasts, Lateral, Profile, Radius, Report};
use crate::technique::Control;
use held::Held;
pub use people::vendor_scopes;

/// A prediction: the report, and the ways that it was made of.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// What is reached.
    pub report: Report,
    /// Every way that was considered, in the order of profiles and cells.
    pub ways: BTreeSet<Way>,
}

/// A way of one attacker to one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Who.
    pub profile: Profile,
    /// To what.
    pub cell: Cell,
    /// Controls that stop it, each alone. Nothing: it is open.
    pub stops: BTreeSet<Control>,
    /// What it goes by: the policy that permits it, or what would have to be done, in a few words.
    pub by: String,
}

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The manifest and its policies cannot be put into force, so nobody reaches anything by them.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The policies' engine cannot be made: our defect.
    #[error("internal: {0}")]
    Engine(String),
}

/// Predicts for every profile.
///
/// # Errors
/// `Bundle` for policies written by hand that `palisade apply` would refuse, too.
pub fn predict(manifest: &Manifest, policies: &BTreeMap<String, String>) -> Result<Prediction, PredictError> {
    let bundle = Bundle::build(manifest, policies)?;
    let engine = Engine::whole(&bundle, 0).map_err(|error| PredictError::Engine(error.to_string()))?;
    let model = Model { manifest, engine, inputs: held::inputs(manifest), known: RefCell::default() };
    let mut found = Found::default();
    people::external(&model, &mut found);
    people::signed_in(&model, &mut found, Profile::Person);
    people::signed_in(&model, &mut found, Profile::Vendor);
    people::insider(&model, &mut found, Profile::Insider);
    people::insider(&model, &mut found, Profile::InsiderMfa);
    for name in manifest.services.keys() {
        taken::service(&model, &mut found, name);
    }
    Ok(found.into_prediction(manifest))
}

/// What is asked.
pub(crate) struct Model<'m> {
    manifest: &'m Manifest,
    engine: Engine,
    /// Buckets that the input of a queue's jobs may be in; nothing: jobs without input.
    inputs: BTreeMap<String, BTreeSet<Option<String>>>,
    /// What sockets lead to, by service and authority: asked once.
    known: RefCell<BTreeMap<Work, Rc<[Probe]>>>,
}

/// Work that somebody is given: who, and on which authority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    service: String,
    held: Held,
}

/// A way without its attacker.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    cell: Cell,
    stops: BTreeSet<Control>,
    by: String,
}

impl Model<'_> {
    /// Where the sockets of a service lead with what it was given.
    fn probes(&self, work: &Work) -> Rc<[Probe]> {
        if let Some(known) = self.known.borrow().get(work) {
            return Rc::clone(known);
        }
        let probes: Rc<[Probe]> = taken::probes(self, &work.service, &work.held).into();
        self.known.borrow_mut().insert(work.clone(), Rc::clone(&probes));
        probes
    }

    /// The permitting policies, if it is allowed.
    fn allowed(&self, question: &Question<'_>) -> Option<String> {
        match self.engine.decide(question).decision {
            trust::Decision::Allow { policies, .. } => Some(policies.join(" ")),
            trust::Decision::Deny { .. } => None,
        }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    ways: BTreeSet<Way>,
    lasts: BTreeMap<Profile, Lasts>,
    lateral: Lateral,
    deputies: BTreeSet<Deputy>,
}

impl Found {
    /// A way that nothing stops.
    fn open(&mut self, profile: &Profile, cell: Cell, by: impl Into<String>) {
        self.stopped(profile, cell, [], by);
    }

    /// A way that each of `stops` stops.
    fn stopped(&mut self, profile: &Profile, cell: Cell, stops: impl IntoIterator<Item = Control>, by: impl Into<String>) {
        self.ways.insert(Way { profile: profile.clone(), cell, stops: stops.into_iter().collect(), by: by.into() });
    }

    fn take(&mut self, profile: &Profile, probe: &Probe) {
        self.stopped(profile, probe.cell.clone(), probe.stops.iter().copied(), probe.by.clone());
    }

    fn into_prediction(self, manifest: &Manifest) -> Prediction {
        let mut report = Report::new(How::Predicted, manifest);
        for (profile, lasts) in self.lasts {
            report.attackers.insert(profile, Radius { lasts, ..Radius::default() });
        }
        for way in self.ways.iter().filter(|way| way.stops.is_empty()) {
            report.attackers.entry(way.profile.clone()).or_default().add(way.cell.clone(), way.by.clone());
        }
        let direct = |deputy: &Deputy| {
            let own = report.attackers.get(&deputy.profile);
            own.is_some_and(|own| own.reached.keys().any(|cell| *cell == deputy.cell || cell.includes(&deputy.cell)))
        };
        let narrower = |deputy: &Deputy| {
            self.deputies.iter().any(|o| (&o.profile, &o.via) == (&deputy.profile, &deputy.via) && o.cell.includes(&deputy.cell))
        };
        report.deputies = self.deputies.iter().filter(|deputy| !direct(deputy) && !narrower(deputy)).cloned().collect();
        report.lateral = self.lateral;
        let mut prediction = Prediction { report, ways: self.ways };
        prediction.report.defence = prediction.defence();
        prediction
    }
}

#[cfg(test)]
pub(crate) mod tests;
