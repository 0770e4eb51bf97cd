//! Techniques: what an attacker tries, under the names that the field knows, and how each try ended.
//!
//! Spec:       MITRE ATT&CK for Containers (technique ids, `T1611`), STRIDE (Microsoft, 1999).
//! Guarantees: L10 each has its ids and the controls that it tests; J11 whether it was seen is part of the result.
//! Not here:   the techniques themselves, and the program that tries them.

use serde::{Deserialize, Serialize};

use crate::report::Profile;

/// A row of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technique {
    /// Its own id, kebab-case and for good: `proc-of-others`.
    pub id: String,
    /// What it tries, in a sentence.
    pub title: String,
    /// MITRE ATT&CK for Containers: `T1611`, `T1552.001`.
    pub attack: String,
    /// What it would be a case of.
    pub stride: Stride,
    /// Controls that it tests: with all of them away it should succeed.
    pub controls: Vec<Control>,
}

/// One try of one technique by one attacker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Who tried.
    pub profile: Profile,
    /// Id of the technique.
    pub technique: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen: an error number, a status, a count. The same for the same system: no times, no random names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seen: String,
    /// Whether the system noticed it; nothing where that was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected: Option<Detected>,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum Outcome {
    /// Refused, or nothing was there.
    Stopped {
        /// The control that stopped it, where the answer tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Control>,
    },
    /// It worked; the radius has what it reached.
    Reached,
    /// It could not be tried, so nothing is known.
    Untried {
        /// Why, and what would have to be there.
        why: String,
    },
}

/// Whether a try was noticed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "seen")]
pub enum Detected {
    /// A record or alert of it.
    Yes {
        /// The event's name, or the refusal's reason.
        event: String,
        /// Time from the try to the record, milliseconds. Measured, so not part of what is compared.
        after_ms: u64,
    },
    /// None came.
    No,
}

/// STRIDE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stride {
    /// Spoofing.
    S,
    /// Tampering.
    T,
    /// Repudiation.
    R,
    /// Information disclosure.
    I,
    /// Denial of service.
    D,
    /// Elevation of privilege.
    E,
}

macro_rules! controls {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $words:literal;)*) => {
        /// What stands between an attacker and something. Two are independent when each holds without the other.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Control { $($(#[$doc])* $variant,)* }
        impl Control {
            /// Every control.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// As reports write it.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
            /// In plain words.
            #[must_use]
            pub fn words(self) -> &'static str { match self { $(Self::$variant => $words,)* } }
        }
    };
}

// Expands to the enum, and to `ALL`, `as_str` and `words` as matches over it: one table, so that none can be forgotten.
controls! {
    /// An empty network namespace: only the sockets of declared flows exist.
    NetworkNamespace = "network-namespace", "an undeclared destination does not exist";
    /// A mount namespace of its own.
    MountNamespace = "mount-namespace", "its own tree of files";
    /// Process, IPC and UTS namespaces of its own.
    ProcessNamespace = "process-namespace", "other processes are not seen";
    /// A user namespace without rights outside.
    UserNamespace = "user-namespace", "no right of any other user";
    /// Landlock: files and destinations by allow-list.
    Landlock = "landlock", "files and ports by allow-list";
    /// seccomp: system calls by allow-list.
    Seccomp = "seccomp", "system calls by allow-list";
    /// `no_new_privs`, no capabilities.
    NoNewPrivileges = "no-new-privileges", "no program gives it more rights";
    /// Files are those of the user alone.
    FileModes = "file-modes", "files are their owner's alone";
    /// The kernel's word which user calls at a UNIX socket.
    PeerCredentials = "peer-credentials", "a socket knows which user calls";
    /// Limits of memory, processors, processes, files and time.
    Limits = "limits", "limits of memory, processors, processes and time";
    /// A new sandbox for each job.
    FreshSandbox = "fresh-sandbox", "a new sandbox for each job";
    /// Artefacts are those of the lock.
    ArtefactDigest = "artefact-digest", "what runs is what was locked";
    /// Mutual TLS with SVIDs, and the list of callers of each workload.
    Mtls = "mtls", "both ends show an SVID";
    /// The guard of the caller: only declared flows leave.
    GuardOut = "guard-out", "the caller's guard lets declared flows out alone";
    /// The callee's routes and its caller list.
    GuardIn = "guard-in", "the callee's guard knows its callers and routes";
    /// Policy: flow, purpose, person.
    Policy = "policy", "the policy of the flow";
    /// The transaction token: whose authority, in flight.
    TransactionToken = "transaction-token", "a person's authority counts while it is in flight here";
    /// The job's token: one input, one folder.
    JobToken = "job-token", "a job names its input and its folder";
    /// The lease: a job's authority ends with its delivery.
    Lease = "lease", "a job's authority ends with its delivery";
    /// Quarantine until the verdict.
    Quarantine = "quarantine", "nobody but the validator reads what was not validated";
    /// Destinations outside by name, address and certificate.
    EgressList = "egress-list", "destinations outside by list";
    /// Sign-in: sessions, tokens, keys.
    SignIn = "sign-in", "sessions, tokens and keys of people";
    /// Scopes of tokens and keys.
    Scope = "scope", "a token's scopes";
    /// Roles of people.
    Role = "role", "a person's roles";
    /// A second proof just before a change.
    StepUp = "step-up", "a second proof before a change";
    /// Encryption of what lies on the disk.
    Sealing = "sealing", "what lies on the disk is sealed";
    /// The audit log's chain.
    AuditChain = "audit-chain", "an edited audit log is found";
    /// What the program that reads it makes of a file: named demuxer, list of protocols.
    InputParser = "input-parser", "a file names no other file or address";
}

impl std::fmt::Display for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Stride {
    /// Every letter.
    pub const ALL: &'static [Self] = &[Self::S, Self::T, Self::R, Self::I, Self::D, Self::E];

    /// What it stands for.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::S => "spoofing",
            Self::T => "tampering",
            Self::R => "repudiation",
            Self::I => "information disclosure",
            Self::D => "denial of service",
            Self::E => "elevation of privilege",
        }
    }
}
