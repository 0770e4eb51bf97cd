//! Objects: each class of object asked for by a request that stands for it.
//!
//! Three things are varied: where the object lies (the job's input, its folder, elsewhere), whose it is, and what its verdict is. What
//! refuses a request is found by asking again with one of them set right: a control that still refuses stops it alone.

use std::collections::BTreeSet;

use manifest::{BucketOperation, Flow, Verdict};
use policy::{Action, ObjectFacts, Question, Resource};
use trust::{Authority, ObjectRef};

use super::held::{ANOTHER, FOLDER, Held, PERSON, input_of};
use super::{Model, Probe};
use crate::report::{Cell, Extent};
use crate::technique::Control;

/// What may be asked of an object, and what that comes to. Sharing has no route at the store, so nothing is shared.
const ACTS: &[(Action, &str)] = &[
    (Action::ObjectRead, "read"),
    (Action::ObjectPresignGet, "read"),
    (Action::ObjectWrite, "written"),
    (Action::ObjectPresignPut, "written"),
    (Action::ObjectDelete, "written"),
    (Action::ObjectVerdict, "verdict"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Input,
    Folder,
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Person,
    Another,
    Nobody,
}

const OWNERS: &[Owner] = &[Owner::Person, Owner::Another];
const VERDICTS: &[Verdict] = &[Verdict::Clean, Verdict::Untyped];

/// What `caller` may do in `bucket` with what it holds, asked at the store.
pub(crate) fn probes(model: &Model<'_>, caller: &str, held: &Held, bucket: &str) -> Vec<Probe> {
    let authority = held.authority(caller);
    let places: &[Place] = match held {
        Held::Job { input: Some(of), .. } if of == bucket => &[Place::Input, Place::Folder, Place::Elsewhere],
        Held::Job { .. } => &[Place::Folder, Place::Elsewhere],
        Held::Request { .. } | Held::Nothing => &[Place::Elsewhere],
    };
    let owners = if authority.is_some() { OWNERS } else { &[Owner::Nobody, Owner::Another] };
    let mut probes = Vec::new();
    for (action, means) in ACTS {
        let asked = Asked { model, caller, action: *action, authority: authority.as_ref(), bucket };
        let answers = Answers::of(&asked, places, owners);
        for place in places {
            for owner in owners {
                let cell = cell(bucket, means, extent(*place, *owner));
                probes.push(match answers.allowed(Some(*place), Some(*owner)) {
                    Some(by) => Probe { cell, stops: BTreeSet::new(), by: by.to_owned() },
                    None => Probe { cell, stops: answers.causes(*place, *owner), by: format!("asks for it by {action}") },
                });
            }
        }
        if *means == "read" {
            probes.extend(asked.unvalidated(&answers));
        }
    }
    probes.extend(list(model, caller, authority.as_ref(), bucket));
    probes
}

/// Listing the keys of what the person owns or shares.
fn list(model: &Model<'_>, caller: &str, authority: Option<&Authority>, bucket: &str) -> Option<Probe> {
    let resource = Resource::Bucket(bucket.to_owned());
    let question = Question { caller, action: Action::BucketList, resource: &resource, authority };
    let by = model.allowed(&question)?;
    let extent = if authority.is_some() { Extent::InFlight } else { Extent::Standing };
    Some(Probe { cell: Cell::done(target(bucket), "list", extent), stops: BTreeSet::new(), by })
}

/// Whether a service has a socket to the store at all.
pub(crate) fn has_socket(flows: &BTreeSet<Flow>) -> bool {
    flows.iter().any(|flow| matches!(flow, Flow::Bucket { operation, .. } if BucketOperation::ALL.contains(operation)))
}

/// A bucket's name in reports.
pub(crate) fn target(bucket: &str) -> String {
    format!("bucket.{bucket}")
}

/// A bucket's objects that nobody has looked at yet.
fn unvalidated(bucket: &str) -> String {
    format!("bucket.{bucket} before its verdict")
}

fn cell(bucket: &str, means: &str, extent: Extent) -> Cell {
    match means {
        "read" => Cell::read(target(bucket), extent),
        "written" => Cell::written(target(bucket), extent),
        act => Cell::done(target(bucket), act, extent),
    }
}

fn extent(place: Place, owner: Owner) -> Extent {
    match (owner, place) {
        (Owner::Nobody, _) => Extent::Standing,
        (Owner::Another, _) => Extent::Everybody,
        (Owner::Person, Place::Input) => Extent::JobInput,
        (Owner::Person, Place::Folder) => Extent::JobFolder,
        (Owner::Person, Place::Elsewhere) => Extent::InFlight,
    }
}

/// One act of one caller on one authority in one bucket.
struct Asked<'a> {
    model: &'a Model<'a>,
    caller: &'a str,
    action: Action,
    authority: Option<&'a Authority>,
    bucket: &'a str,
}

impl Asked<'_> {
    fn allowed(&self, place: Place, owner: Owner, verdict: Verdict) -> Option<String> {
        // A job without input has no folder: its own are the keys without one.
        let folder = self.authority.and_then(|a| a.job.as_ref()).map_or(FOLDER, |job| job.folder.as_str());
        let key = match place {
            Place::Input => return self.ask(input_of(self.bucket)?, owner, verdict),
            Place::Folder if folder.is_empty() => "other".to_owned(),
            Place::Folder => format!("{folder}/other"),
            Place::Elsewhere => "elsewhere/object".to_owned(),
        };
        self.ask(ObjectRef::new(self.bucket, key).ok()?, owner, verdict)
    }

    fn ask(&self, reference: ObjectRef, owner: Owner, verdict: Verdict) -> Option<String> {
        let owner = match owner {
            Owner::Nobody => None,
            Owner::Person => Some(PERSON.to_owned()),
            Owner::Another => Some(ANOTHER.to_owned()),
        };
        let shared_with = BTreeSet::new();
        let resource = Resource::Object(ObjectFacts { reference, verdict, owner, shared_with });
        self.model.allowed(&Question { caller: self.caller, action: self.action, resource: &resource, authority: self.authority })
    }

    /// Verdicts that the store could say of it: one that is written has none yet.
    fn verdicts(&self) -> &'static [Verdict] {
        match self.action {
            Action::ObjectWrite | Action::ObjectPresignPut => &[Verdict::Untyped],
            _ => VERDICTS,
        }
    }

    /// What a bucket's quarantine keeps from a reader of clean objects.
    fn unvalidated(&self, answers: &Answers) -> Option<Probe> {
        let quarantine = self.model.manifest.buckets.get(self.bucket)?.quarantine_until.as_ref()?;
        if quarantine == self.caller {
            return None;
        }
        let place = answers.open.iter().find(|row| row.owner == Owner::Person && row.verdict == Verdict::Clean)?.place;
        let cell = Cell::read(unvalidated(self.bucket), extent(place, Owner::Person));
        let early = answers.open.iter().find(|row| (row.place, row.owner, row.verdict) == (place, Owner::Person, Verdict::Untyped));
        Some(match early {
            Some(row) => Probe { cell, stops: BTreeSet::new(), by: row.by.clone() },
            None => Probe { cell, stops: BTreeSet::from([Control::Quarantine]), by: "asks before the verdict".into() },
        })
    }
}

/// A request that is allowed.
struct Open {
    place: Place,
    owner: Owner,
    verdict: Verdict,
    by: String,
}

/// What is allowed of one act.
struct Answers {
    open: Vec<Open>,
}

impl Answers {
    /// Asks. Where not even the person's own are to be had, one of each other owner is asked for, in case that a policy written by hand
    /// permits just that.
    fn of(asked: &Asked<'_>, places: &[Place], owners: &[Owner]) -> Self {
        let mut open = Vec::new();
        for (i, owner) in owners.iter().enumerate() {
            let fits = i == 0 || !open.is_empty();
            let places = if fits { places } else { places.get(places.len().saturating_sub(1)..).unwrap_or_default() };
            for (place, verdict) in places.iter().flat_map(|place| asked.verdicts().iter().map(|verdict| (*place, *verdict))) {
                let by = asked.allowed(place, *owner, verdict);
                open.extend(by.map(|by| Open { place, owner: *owner, verdict, by }));
            }
        }
        Self { open }
    }

    /// The policy that allows it there, of that owner.
    fn allowed(&self, place: Option<Place>, owner: Option<Owner>) -> Option<&str> {
        let fits = |row: &&Open| place.is_none_or(|p| p == row.place) && owner.is_none_or(|o| o == row.owner);
        self.open.iter().find(fits).map(|row| row.by.as_str())
    }

    /// Who refuses it alone: the job's token because of its place, the policy because of its owner, or of everything.
    fn causes(&self, place: Place, owner: Owner) -> BTreeSet<Control> {
        let of_person = self.allowed(None, Some(Owner::Person)).is_some();
        let job = of_person && self.allowed(Some(place), Some(Owner::Person)).is_none();
        let policy = !of_person || self.allowed(None, Some(owner)).is_none();
        let causes = [job.then_some(Control::JobToken), policy.then_some(Control::Policy)];
        let causes: BTreeSet<Control> = causes.into_iter().flatten().collect();
        if causes.is_empty() { BTreeSet::from([Control::Policy]) } else { causes }
    }
}
