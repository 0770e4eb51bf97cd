//! Tokens that are bound to a key of the client's: proofs at the token endpoint and at `userinfo`.
//!
//! Whoever shows a proof with a code or a refresh token gets an access token that is bound to the proof's key, and from then on the
//! family is, too: its refresh tokens are of no use without the key, since the clients that show proofs have no other secret. A refresh
//! token shown without its key is refused and stays what it was: who stole it can neither use it nor end the family with it.
//!
//! Spec:       RFC 9449, sections 4.3, 5, 7.1, 8 and 10.
//! Guarantees: B10.
//! Not here:   what a proof is (`contract::dpop`).

use contract::dpop::{self, About, Proof};
use contract::login::{CERTIFICATE_HEADER, ISSUER_PATH, NAMES_HEADER};
use http::{HeaderMap, HeaderValue, StatusCode};
use trust::DenyReason;

use crate::answer::Refusal;
use crate::provider::Inner;

impl Inner {
    /// The proof that came with a request to `path`, if one did; `token` is the access token beside it.
    pub(crate) fn proof(&self, headers: &HeaderMap, method: &str, path: &str, token: Option<&str>) -> Result<Option<Proof>, DenyReason> {
        let mut shown = headers.get_all(dpop::HEADER).iter();
        let (proof, more) = (shown.next(), shown.next());
        let Some(proof) = proof else { return Ok(None) };
        if more.is_some() {
            return Err(DenyReason::ProofMalformed);
        }
        let path = format!("{ISSUER_PATH}{path}");
        let about = About { method, origin: &self.public_origin, path: &path, token };
        self.proofs.verify(proof.to_str().unwrap_or_default(), &about, self.now_s()).map(Some)
    }

    /// Uses a proof up; the name of its key.
    pub(crate) fn spend(&self, proof: Proof) -> Result<String, Refusal> {
        self.proofs.spend(proof, self.now_s()).map(|key| key.as_str().to_owned()).map_err(at_token)
    }

    /// A nonce for the next proof.
    pub(crate) fn nonce(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.proofs.nonce(self.now_s())).ok()
    }
}

/// The thumbprint of the certificate that the client has shown to the edge.
pub(crate) fn thumbprint(headers: &HeaderMap) -> Option<&str> {
    headers.get(CERTIFICATE_HEADER)?.to_str().ok()
}

/// Whether that certificate has this DNS name.
pub(crate) fn has_name(headers: &HeaderMap, name: &str) -> bool {
    let names = headers.get(NAMES_HEADER).and_then(|names| names.to_str().ok()).unwrap_or_default();
    thumbprint(headers).is_some() && names.split(',').any(|its| its == name)
}

/// A refusal at the token endpoint (RFC 9449, sections 5 and 8).
pub(crate) fn at_token(reason: DenyReason) -> Refusal {
    let (error, text) = match reason {
        DenyReason::ProofNonceWanted => ("use_dpop_nonce", "put the nonce of the DPoP-Nonce header into the proof"),
        DenyReason::Overloaded => return Refusal::Denied(reason),
        _ => ("invalid_dpop_proof", "the proof is not one for this request, key and time"),
    };
    Refusal::OAuth { status: StatusCode::BAD_REQUEST, error, text, reason: Some(reason) }
}

/// A refusal of a token at `userinfo` (RFC 9449, section 7.1).
pub(crate) fn at_resource(reason: DenyReason) -> Refusal {
    let error = match reason {
        DenyReason::ProofNonceWanted => "use_dpop_nonce",
        DenyReason::Overloaded => return Refusal::Denied(reason),
        reason if dpop::is_about_proof(reason) => "invalid_dpop_proof",
        _ => "invalid_token",
    };
    Refusal::OAuth { status: StatusCode::UNAUTHORIZED, error, text: "not a valid token, or no proof of its key", reason: Some(reason) }
}
