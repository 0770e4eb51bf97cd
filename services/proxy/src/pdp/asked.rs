//! A question: the request that an enforcement point has before it, as it tells it.
//!
//! It is made into what any request is here, so that the same reader decides whether it can be read in one way only. Fields that the
//! proxy has joined (RFC 9110, section 5.2) are one value, which is no good token.
//!
//! Guarantees: A4; A5: who a person is comes from their token alone, and a stranger who names a transaction is refused.

use contract::txn_token;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use trust::{DenyReason, Secret};

/// A request, and who it says that it is from.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Method, target and headers.
    pub(crate) head: Parts,
    /// The person that the asker says it is: their token must agree.
    pub(crate) subject: Option<String>,
    /// The host, without its port, lower-case.
    pub(crate) host: String,
    /// The workload whose SVID the proxy has verified.
    principal: Option<String>,
    token: Result<Secret<String>, DenyReason>,
}

/// Whom a question is about.
#[derive(Debug)]
pub(crate) enum Claim<'a> {
    /// A workload, by its SPIFFE ID.
    Workload(&'a str),
    /// A person, by their token.
    Person(Result<&'a str, DenyReason>),
}

/// What an asker tells.
#[derive(Debug, Default)]
pub(crate) struct Told<'a> {
    /// Method.
    pub(crate) method: &'a str,
    /// Path and query, as the client sent them.
    pub(crate) target: &'a str,
    /// Host and port, as the client sent them.
    pub(crate) host: &'a str,
    /// Headers; those of HTTP/2's own (`:path`) are skipped.
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
    /// The verified workload, if there is one.
    pub(crate) principal: Option<&'a str>,
}

impl Asked {
    /// Reads what is told.
    ///
    /// # Errors
    /// `RequestAmbiguous` for what is no request.
    pub(crate) fn read(told: &Told<'_>) -> Result<Self, DenyReason> {
        let ambiguous = |_| DenyReason::RequestAmbiguous;
        let mut fields = HeaderMap::new();
        for (name, value) in told.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
            if fields.len() > trust::limits::HEADERS_MAX {
                return Err(DenyReason::RequestAmbiguous);
            }
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| DenyReason::RequestAmbiguous)?;
            fields.append(name, HeaderValue::from_bytes(value).map_err(|_| DenyReason::RequestAmbiguous)?);
        }
        if fields.get(header::HOST).is_some_and(|said| said.as_bytes() != told.host.as_bytes()) {
            return Err(DenyReason::RequestAmbiguous);
        }
        fields.insert(header::HOST, HeaderValue::from_str(told.host).map_err(|_| DenyReason::RequestAmbiguous)?);
        let method: Method = told.method.parse().map_err(|_| DenyReason::RequestAmbiguous)?;
        let uri: Uri = told.target.parse().map_err(|_| DenyReason::RequestAmbiguous)?;
        let mut request = Request::builder().method(method).uri(uri).body(()).map_err(ambiguous)?;
        *request.headers_mut() = fields;
        let (head, ()) = request.into_parts();
        let token = token_of(&head.headers);
        let name = match told.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => told.host,
        };
        let host = name.to_ascii_lowercase();
        Ok(Self { head, subject: None, host, principal: told.principal.map(str::to_owned), token })
    }

    /// The same about that person, whose token was told apart from the request.
    #[must_use]
    pub(crate) fn of_person(self, subject: String, token: String) -> Self {
        Self { subject: Some(subject), token: Ok(Secret::new(token)), ..self }
    }

    /// Whom it is about.
    pub(crate) fn claim(&self) -> Claim<'_> {
        match &self.principal {
            Some(principal) => Claim::Workload(principal),
            // Nobody outside has a transaction token; one that a stranger brings must not travel on in the place of ours.
            None if self.head.headers.contains_key(txn_token::HEADER) => Claim::Person(Err(DenyReason::RequestAmbiguous)),
            None => Claim::Person(self.token.as_ref().map(|token| token.expose().as_str()).map_err(|reason| *reason)),
        }
    }

    /// The transaction token that the request brings.
    pub(crate) fn txn_token(&self) -> Option<&str> {
        self.head.headers.get(txn_token::HEADER)?.to_str().ok()
    }
}

/// The access token of a request (RFC 6750, section 2.1).
fn token_of(fields: &HeaderMap) -> Result<Secret<String>, DenyReason> {
    let mut authorizations = fields.get_all(header::AUTHORIZATION).iter();
    match (authorizations.next(), authorizations.next()) {
        (None, _) => Err(DenyReason::CredentialMissing),
        (Some(_), Some(_)) => Err(DenyReason::RequestAmbiguous),
        (Some(value), None) => match value.to_str().unwrap_or_default().split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Secret::new(token.trim().to_owned())),
            // The edge asks for proofs of keys; here nobody can give one.
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("dpop") => Err(DenyReason::ProofMissing),
            _ => Err(DenyReason::TokenMalformed),
        },
    }
}
