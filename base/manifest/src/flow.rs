//! Flows: what a service may do to what, and for which purpose, in one line of text.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One declared flow out of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Flow {
    /// An HTTP call of another service's route; the route's purpose is meant.
    Call {
        /// The callee.
        service: String,
        /// Method.
        method: String,
        /// Path template, as the callee declares it.
        path: String,
    },
    /// An operation on a bucket's objects.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The operation.
        operation: BucketOperation,
        /// Purposes that permit it.
        purposes: BTreeSet<String>,
    },
    /// Publishing into a queue.
    Publish {
        /// The queue.
        queue: String,
        /// Purposes that permit it.
        purposes: BTreeSet<String>,
    },
    /// Use of a secret.
    Secret {
        /// The secret.
        secret: String,
        /// Reading or signing.
        operation: SecretOperation,
    },
    /// An HTTP call of a destination outside.
    Egress {
        /// Its name in the manifest.
        destination: String,
        /// Method.
        method: String,
        /// Path template.
        path: String,
        /// Purposes that permit it.
        purposes: BTreeSet<String>,
    },
}

macro_rules! operations {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// As the manifest writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
            /// By the manifest's name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { Self::ALL.iter().copied().find(|o| o.as_str() == text) }
        }
    };
}

// Expands to the enum, and to `ALL`, `as_str` and `parse` over it.
operations! {
    /// What may be done with a bucket.
    BucketOperation {
        /// GET and HEAD of an object.
        Read = "read",
        /// PUT of an object.
        Write = "write",
        /// DELETE of an object.
        Delete = "delete",
        /// Listing keys.
        List = "list",
        /// Changing whom an object is shared with.
        Share = "share",
        /// Saying whether an object's content is clean.
        Verdict = "verdict",
        /// Handing out a URL to download one object.
        PresignGet = "presign-get",
        /// Handing out a URL to upload one object.
        PresignPut = "presign-put",
    }
}

// Expands as above.
operations! {
    /// What may be done with a secret.
    SecretOperation {
        /// Its value.
        Read = "read",
        /// A signature or decryption by it.
        Sign = "sign",
    }
}

impl BucketOperation {
    /// Whether it puts bytes into the bucket.
    #[must_use]
    pub fn stores(self) -> bool {
        matches!(self, Self::Write | Self::PresignPut)
    }
}

/// A flow's text taken apart, before its names are looked up.
#[derive(Debug)]
pub(crate) struct FlowText<'a> {
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) operation: &'a str,
    pub(crate) purposes: Vec<&'a str>,
}

/// Takes `TARGET.NAME:OPERATION [for PURPOSE, …]` apart.
pub(crate) fn take_apart(text: &str) -> Result<FlowText<'_>, &'static str> {
    const FORM: &str = "a flow is written KIND.NAME:OPERATION, as in \"bucket.originals:read\"";
    let (target, rest) = text.split_once(':').ok_or(FORM)?;
    let (kind, name) = target.split_once('.').ok_or(FORM)?;
    let (operation, purposes) = match rest.split_once(" for ") {
        Some((operation, list)) => (operation.trim(), list.split(',').map(str::trim).collect::<Vec<_>>()),
        None => (rest, Vec::new()),
    };
    if purposes.iter().any(|p| p.is_empty()) {
        return Err("a purpose is missing after 'for'");
    }
    Ok(FlowText { kind, name, operation, purposes })
}

impl Flow {
    /// Whether something serves it yet. Secrets have no role, and the store has no route to share an object: a flow of these is checked,
    /// and permitted by policy, and leads nowhere.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !matches!(self, Self::Secret { .. } | Self::Bucket { operation: BucketOperation::Share, .. })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { service, method, .. } if method == crate::model::Route::TCP => write!(f, "service.{service}:tcp"),
            Self::Call { service, method, path } => write!(f, "service.{service}:{method} {path}"),
            Self::Bucket { bucket, operation, .. } => write!(f, "bucket.{bucket}:{}", operation.as_str()),
            Self::Publish { queue, .. } => write!(f, "queue.{queue}:publish"),
            Self::Secret { secret, operation } => write!(f, "secret.{secret}:{}", operation.as_str()),
            Self::Egress { destination, method, path, .. } => write!(f, "egress.{destination}:{method} {path}"),
        }
    }
}
