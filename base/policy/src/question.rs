//! Questions: may this workload, on that authority, do this to that?

use std::collections::BTreeSet;
use std::fmt;

use manifest::Verdict;
use serde::{Deserialize, Serialize};
use trust::{Authority, ObjectRef};

/// What an enforcement point asks.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The workload that acts: a service, a role, or `internet` for a browser at the edge.
    pub caller: &'a str,
    /// What it wants to do.
    pub action: Action,
    /// To what.
    pub resource: &'a Resource,
    /// On whose authority, and with which job.
    pub authority: Option<&'a Authority>,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $text:literal in $groups:expr, $resource:literal;)*) => {
        /// Everything that can be asked; the names are the Cedar actions'.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub enum Action { $($(#[$doc])* $variant,)* }
        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Its name in policies.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
            /// Groups that it is in, directly or not.
            pub(crate) fn groups(self) -> &'static [&'static str] { match self { $(Self::$variant => &$groups,)* } }
            /// Type of its resources.
            pub(crate) fn resource_type(self) -> &'static str { match self { $(Self::$variant => $resource,)* } }
        }
    };
}

// Expands to the enum and to matches over it, so that no action lacks a name, its groups or its resource type.
actions! {
    /// The edge: the internet on a public route.
    Enter = "enter" in [], "Route";
    /// A guard: one workload on another's route.
    Call = "call" in [], "Route";
    /// GET or HEAD of an object.
    ObjectRead = "objectRead" in ["objectGet", "objectAny"], "Object";
    /// Handing out a URL to download.
    ObjectPresignGet = "objectPresignGet" in ["objectGet", "objectAny"], "Object";
    /// PUT of an object, presented as it will be.
    ObjectWrite = "objectWrite" in ["objectChange", "objectAny"], "Object";
    /// Handing out a URL to upload; the object presented as it will be.
    ObjectPresignPut = "objectPresignPut" in ["objectChange", "objectAny"], "Object";
    /// DELETE of an object.
    ObjectDelete = "objectDelete" in ["objectChange", "objectAny"], "Object";
    /// Changing whom an object is shared with.
    ObjectShare = "objectShare" in ["objectChange", "objectAny"], "Object";
    /// Saying an object's verdict.
    ObjectVerdict = "objectVerdict" in ["objectAny"], "Object";
    /// Listing keys; the answer holds only objects that the person owns or shares, which is the asker's work.
    BucketList = "bucketList" in [], "Bucket";
    /// Publishing into a queue.
    Publish = "publish" in [], "Queue";
    /// Being delivered a message; the authority is the narrowed one.
    Consume = "consume" in [], "Queue";
    /// A secret's value.
    SecretRead = "secretRead" in [], "Secret";
    /// A signature by a secret.
    SecretSign = "secretSign" in [], "Secret";
    /// A call of a destination outside.
    Egress = "egress" in [], "Outside";
    /// Looking at a plane.
    AdminView = "adminView" in ["adminAny"], "Plane";
    /// Applying a manifest.
    AdminApply = "adminApply" in ["adminChange", "adminAny"], "Plane";
    /// Cutting a service off.
    AdminContain = "adminContain" in ["adminChange", "adminAny"], "Plane";
    /// Rotating keys.
    AdminRotate = "adminRotate" in ["adminChange", "adminAny"], "Plane";
    /// Restoring a backup.
    AdminRestore = "adminRestore" in ["adminChange", "adminAny"], "Plane";
}

/// What it is done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A route, by its template.
    Route {
        /// The service that has it.
        service: String,
        /// Method.
        method: String,
        /// Path template.
        path: String,
    },
    /// An object, with the facts that the store knows of it.
    Object(ObjectFacts),
    /// A bucket.
    Bucket(String),
    /// A queue.
    Queue(String),
    /// A secret.
    Secret(String),
    /// A method on a path of a destination outside, by the destination's name in the manifest.
    Outside {
        /// The destination.
        destination: String,
        /// Method.
        method: String,
        /// Path template.
        path: String,
    },
    /// A plane of administration.
    Plane(String),
}

/// An object as a decision sees it. For a write: as it will be, with the authority's user as owner, or the present owner's if it is
/// there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFacts {
    /// Bucket and key.
    pub reference: ObjectRef,
    /// Its verdict; untyped for one that is to be written.
    pub verdict: Verdict,
    /// The person whose it is; nobody is not a person.
    pub owner: Option<String>,
    /// People with whom it is shared.
    pub shared_with: BTreeSet<String>,
}

impl Resource {
    /// A route.
    #[must_use]
    pub fn route(service: &str, method: &str, path: &str) -> Self {
        Self::Route { service: service.to_owned(), method: method.to_owned(), path: path.to_owned() }
    }

    /// What a flow to a destination outside leads to.
    #[must_use]
    pub fn outside(destination: &str, method: &str, path: &str) -> Self {
        Self::Outside { destination: destination.to_owned(), method: method.to_owned(), path: path.to_owned() }
    }

    /// Cedar type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Route { .. } => "Route",
            Self::Object(_) => "Object",
            Self::Bucket(_) => "Bucket",
            Self::Queue(_) => "Queue",
            Self::Secret(_) => "Secret",
            Self::Outside { .. } => "Outside",
            Self::Plane(_) => "Plane",
        }
    }

    /// Cedar id.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Route { service, method, path } => format!("{service}:{method} {path}"),
            Self::Outside { destination, method, path } => format!("{destination}:{method} {path}"),
            Self::Object(facts) => facts.reference.to_string(),
            Self::Bucket(name) | Self::Queue(name) | Self::Secret(name) | Self::Plane(name) => name.clone(),
        }
    }

    /// What a slice is indexed by: the id, for an object its bucket.
    pub(crate) fn index(&self) -> String {
        match self {
            Self::Object(facts) => facts.reference.bucket.clone(),
            other => other.id(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.type_name(), self.id())
    }
}

/// The name under which a workload asks: a role's or a service's. Nothing for an id whose kind and name disagree (`service/edge`,
/// `role/api`), which no manifest can declare and which must not pass for the other.
#[must_use]
pub fn caller_name(id: &trust::SpiffeId) -> Option<&str> {
    let name = id.workload.name();
    (manifest::ROLE_NAMES.contains(&name) == id.as_role().is_some()).then_some(name)
}
