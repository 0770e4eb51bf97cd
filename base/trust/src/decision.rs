//! Answers: allowed, with the policy that said so, or denied, with one exact reason.
//!
//! A refusal is not an error but an answer: always recorded, never retried, never detailed to the caller.

use serde::{Deserialize, Serialize};

/// The outcome of an enforcement point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Allowed by these policies under this view epoch.
    Allow {
        /// Ids of the determining policies.
        policies: Vec<String>,
        /// The epoch of the view that decided.
        epoch: u64,
        /// What the answer would be with the policies in shadow; nothing where none is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shadow: Option<Box<Shadow>>,
    },
    /// Denied.
    Deny {
        /// The one reason.
        reason: DenyReason,
        /// Ids of the determining `forbid` policies; empty when nothing permitted.
        policies: Vec<String>,
        /// The epoch of the view that decided, 0 if there was none.
        epoch: u64,
        /// What the answer would be with the policies in shadow; nothing where none is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shadow: Option<Box<Shadow>>,
    },
}

/// The answer that policies in shadow would have made of it. It is recorded beside the decision and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Whether the request would have gone on.
    pub allow: bool,
    /// The reason of the refusal that it would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DenyReason>,
    /// Ids of the policies that would have determined it.
    pub policies: Vec<String>,
}

impl Decision {
    /// A refusal that no policy was asked about.
    #[must_use]
    pub fn deny(reason: DenyReason) -> Self {
        Self::Deny { reason, policies: Vec::new(), epoch: 0, shadow: None }
    }

    /// Whether the request may go on.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// What policies in shadow say.
    #[must_use]
    pub fn shadow(&self) -> Option<&Shadow> {
        match self {
            Self::Allow { shadow, .. } | Self::Deny { shadow, .. } => shadow.as_deref(),
        }
    }

    /// The same decision, beside what `would` have been decided.
    #[must_use]
    pub fn beside(mut self, would: Self) -> Self {
        let said = match would {
            Self::Allow { policies, .. } => Shadow { allow: true, reason: None, policies },
            Self::Deny { reason, policies, .. } => Shadow { allow: false, reason: Some(reason), policies },
        };
        match &mut self {
            Self::Allow { shadow, .. } | Self::Deny { shadow, .. } => *shadow = Some(Box::new(said)),
        }
        self
    }

    /// The reason of a refusal.
    #[must_use]
    pub fn deny_reason(&self) -> Option<DenyReason> {
        match self {
            Self::Allow { .. } => None,
            Self::Deny { reason, .. } => Some(*reason),
        }
    }
}

macro_rules! deny_reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal;)*) => {
        /// Why a request was refused. Closed: an enforcement point that needs another reason adds it here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DenyReason { $($(#[$doc])* $name,)* }

        impl DenyReason {
            /// Every reason, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The name in metrics, audit records and documents.
            #[must_use]
            pub fn code(self) -> &'static str { match self { $(Self::$name => $code,)* } }
            /// The HTTP status that the caller sees (RFC 9110, section 15).
            #[must_use]
            pub fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }
        }
    };
}

// Expands to the enum, and to `ALL`, `code` and `status` as matches over it: one table, so that none can be forgotten.
deny_reasons! {
    /// mTLS: the peer presented no certificate.
    ClientCertificateMissing = "client_certificate_missing", 401;
    /// mTLS: the peer's SVID is past its end or not yet valid.
    SvidExpired = "svid_expired", 401;
    /// mTLS: the chain does not end in the trust bundle.
    SvidUntrusted = "svid_untrusted", 401;
    /// mTLS: the SVID is of another trust domain.
    TrustDomainForeign = "trust_domain_foreign", 401;
    /// mTLS: not a well-formed X.509-SVID (SPIFFE X509-SVID, section 5).
    SvidMalformed = "svid_malformed", 401;
    /// The identity was revoked.
    SvidRevoked = "svid_revoked", 401;
    /// The caller is a known workload, but no flow from it to here is declared.
    PeerUndeclared = "peer_undeclared", 403;
    /// No route has this path.
    RouteUnknown = "route_unknown", 404;
    /// No host of ours, or not one that this connection was made for.
    HostUnknown = "host_unknown", 421;
    /// The path has a route, but not with this method.
    MethodUnlisted = "method_unlisted", 405;
    /// The route takes no WebSockets: the manifest does not say `websocket = true`.
    UpgradeUnlisted = "upgrade_unlisted", 403;
    /// A connection from elsewhere than the load balancers that the manifest names.
    ProxyUntrusted = "proxy_untrusted", 403;
    /// A load balancer's connection without a PROXY header that can be read.
    ProxyHeaderInvalid = "proxy_header_invalid", 400;
    /// The path or a header could be read in two ways.
    RequestAmbiguous = "request_ambiguous", 400;
    /// No session, token or grant came with the request.
    CredentialMissing = "credential_missing", 401;
    /// The session is unknown, ended or too old.
    SessionEnded = "session_ended", 401;
    /// A token whose signature is not that of the key that it names.
    TokenInvalid = "token_invalid", 401;
    /// Not a compact JWS of the one spelling that each has, or its claims are not exactly those of its type.
    TokenMalformed = "token_malformed", 401;
    /// A token of another type: an ID token or a transaction token in the place of an access token.
    TokenTypeMismatch = "token_type_mismatch", 401;
    /// A token that asks for another algorithm.
    TokenAlgorithmRefused = "token_algorithm_refused", 401;
    /// A token whose header has a field that could change how it is verified (`crit`, `jku`, `jwk`, `x5u`, `b64`).
    TokenHeaderRefused = "token_header_refused", 401;
    /// A token that names no key, or one that is unknown or ended.
    TokenKeyUnknown = "token_key_unknown", 401;
    /// A token of another issuer than its key's owner.
    IssuerMismatch = "issuer_mismatch", 401;
    /// A token whose time has not come.
    TokenNotYetValid = "token_not_yet_valid", 401;
    /// A token past its end.
    TokenExpired = "token_expired", 401;
    /// An API key or opaque token that is unknown, was revoked, or has ended.
    TokenInactive = "token_inactive", 401;
    /// A token of another person than the one that the question is about.
    SubjectMismatch = "subject_mismatch", 403;
    /// A token for somebody else.
    AudienceMismatch = "audience_mismatch", 401;
    /// A token that is bound to a key came without a proof of it (RFC 9449, section 7.1).
    ProofMissing = "proof_missing", 401;
    /// A token that is bound to no key came as if it were (RFC 9449, section 7.1).
    TokenUnbound = "token_unbound", 401;
    /// A token that is bound to a certificate came over a connection without it (RFC 8705, section 3).
    CertificateMismatch = "certificate_mismatch", 401;
    /// A DPoP proof that is no compact JWS, or whose header or claims are not those of one.
    ProofMalformed = "proof_malformed", 401;
    /// A DPoP proof of another `typ`.
    ProofTypeMismatch = "proof_type_mismatch", 401;
    /// A DPoP proof signed with an algorithm that is not admitted.
    ProofAlgorithmRefused = "proof_algorithm_refused", 401;
    /// A DPoP proof whose key is private, of another algorithm, or none.
    ProofKeyRefused = "proof_key_refused", 401;
    /// A DPoP proof whose signature is not that of its key.
    ProofInvalid = "proof_invalid", 401;
    /// A DPoP proof for another method (`htm`).
    ProofMethodMismatch = "proof_method_mismatch", 401;
    /// A DPoP proof for another address (`htu`).
    ProofTargetMismatch = "proof_target_mismatch", 401;
    /// A DPoP proof for another token (`ath`).
    ProofTokenMismatch = "proof_token_mismatch", 401;
    /// A DPoP proof of another key than the token's (`cnf.jkt`).
    ProofKeyMismatch = "proof_key_mismatch", 401;
    /// A DPoP proof that is too old, or of a time that has not come.
    ProofStale = "proof_stale", 401;
    /// A DPoP proof that was used before.
    ProofReplayed = "proof_replayed", 401;
    /// A DPoP proof must have a nonce of this server, and has none or one that has ended.
    ProofNonceWanted = "proof_nonce_wanted", 401;
    /// The route's scope is not in the token.
    ScopeMissing = "scope_missing", 403;
    /// A state-changing request of another site (Sec-Fetch-Site, Origin).
    CrossSite = "cross_site", 403;
    /// The route needs a person's authority and none came.
    AuthorityMissing = "authority_missing", 403;
    /// A service passed a transaction token that was not delivered to it or is no longer in flight.
    AuthorityNotInFlight = "authority_not_in_flight", 403;
    /// No policy permits it, or one forbids it.
    PolicyDenied = "policy_denied", 403;
    /// A policy failed to evaluate.
    PolicyFailed = "policy_failed", 403;
    /// The caller is not among those that the route's contract admits.
    CallerNotAdmitted = "caller_not_admitted", 403;
    /// This enforcement point has no view, or only one past its maximum age.
    ViewStale = "view_stale", 503;
    /// The lease that carried this authority has ended.
    LeaseEnded = "lease_ended", 403;
    /// The job does not name this object or folder.
    JobMismatch = "job_mismatch", 403;
    /// The object has no clean verdict yet.
    ObjectQuarantined = "object_quarantined", 403;
    /// A presigned URL past its end.
    GrantExpired = "grant_expired", 403;
    /// A presigned URL with a changed method, key, header or signature, or one revoked.
    GrantInvalid = "grant_invalid", 403;
    /// Too many requests.
    RateExceeded = "rate_exceeded", 429;
    /// Too many requests at the same time.
    ConcurrencyExceeded = "concurrency_exceeded", 503;
    /// The service behind this guard does not answer as it should, or has not yet.
    ServiceUnhealthy = "service_unhealthy", 503;
    /// An operator has contained the service: nothing goes to it and nothing comes from it.
    ServiceContained = "service_contained", 503;
    /// More is under way than can be served in time, so what nobody signed in for is not begun.
    Overloaded = "overloaded", 503;
    /// The destination outside has an address that must not be connected to.
    AddressForbidden = "address_forbidden", 403;
    /// Who answers outside does not prove to be the declared host.
    DestinationUntrusted = "destination_untrusted", 502;
    /// The operator's certificate or credential for the destination cannot be used.
    CredentialUnavailable = "credential_unavailable", 503;
    /// The body is larger than allowed.
    BodyTooLarge = "body_too_large", 413;
    /// The body comes more slowly than anybody sends who means to.
    BodyTooSlow = "body_too_slow", 408;
    /// A part of the system that must agree could not be asked.
    DependencyDown = "dependency_down", 503;
    /// A join token that was never issued, was used, or is for another name.
    JoinTokenInvalid = "join_token_invalid", 403;
    /// The caller's process is not the one that the name belongs to.
    AttestationFailed = "attestation_failed", 403;
    /// The artefact's digest is not the locked one.
    ArtefactMismatch = "artefact_mismatch", 403;
    /// Wrong name or password, locked out, or unknown person: never told apart.
    SignInFailed = "sign_in_failed", 401;
    /// The right password, but a code that is wrong, was used before, or of somebody whose second factor is gone.
    SecondFactorFailed = "second_factor_failed", 401;
    /// It takes a second proof of just now, and the credential has none, or an older one (RFC 9470, section 3).
    StepUpMissing = "step_up_missing", 401;
    /// The audit record could not be kept, so the act must not happen.
    AuditUnavailable = "audit_unavailable", 503;
}

impl std::fmt::Display for DenyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}
