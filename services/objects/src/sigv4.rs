//! AWS Signature Version 4 in query parameters: making and checking presigned URLs.
//!
//! Spec:       AWS General Reference, "Signature Version 4"; S3 API, "Authenticating Requests: Using Query Parameters". Deviations,
//!             all narrower: exactly the six `X-Amz-` parameters, each once, and for a part `partNumber` and `uploadId`; no session
//!             tokens; payload always unsigned.
//! Guarantees: G5 any change of method, path, parameter or signed header changes the signature.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use trust::Digest;

/// The only algorithm.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Parameters that name a part (S3 API, UploadPart).
pub(crate) const UPLOAD: &str = "uploadId";
pub(crate) const PART: &str = "partNumber";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// Day, region and service that a signing key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope<'a> {
    pub(crate) day: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

/// What is signed.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Decoded path.
    pub(crate) path: &'a str,
    /// Decoded parameters without the signature.
    pub(crate) query: &'a BTreeMap<String, String>,
    /// Lower-case names.
    pub(crate) headers: &'a BTreeMap<String, String>,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(crate) at: &'a str,
}

impl Scope<'_> {
    fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.day, self.region, self.service)
    }
}

impl Signed<'_> {
    fn canonical(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        format!(
            "{}\n{}\n{}\n{headers}\n{}\nUNSIGNED-PAYLOAD",
            self.method,
            encoded_path(self.path),
            query_text(self.query),
            names(self.headers)
        )
    }

    /// The signature under `secret`, in hexadecimal.
    pub(crate) fn signature(&self, secret: &str, scope: &Scope<'_>) -> String {
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{}", self.at, scope.text(), Digest::of(self.canonical().as_bytes()).to_hex());
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [scope.day, scope.region, scope.service, "aws4_request"] {
            key = mac(&key, part);
        }
        hex::encode(mac(&key, &to_sign))
    }
}

/// A presigned request, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    /// Access key: the grant's id.
    pub(crate) key_id: String,
    pub(crate) day: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) at: String,
    pub(crate) expires_s: u64,
    pub(crate) signed_headers: Vec<String>,
    pub(crate) signature: String,
    /// Decoded path.
    pub(crate) path: String,
    /// Decoded parameters without the signature.
    pub(crate) query: BTreeMap<String, String>,
    /// `uploadId` and `partNumber`, both or neither.
    pub(crate) part: Option<(String, u32)>,
}

impl Presented {
    /// Takes a path with its query apart, as it was sent. Anything else than exactly the six parameters, or those with a part's two, is
    /// nothing.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let (path, query) = uri.split_once('?')?;
        let mut parameters = BTreeMap::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            if parameters.insert(decoded(name)?, decoded(value)?).is_some() {
                return None;
            }
        }
        let signature = parameters.remove("X-Amz-Signature")?;
        let part = match (parameters.get(UPLOAD), parameters.get(PART)) {
            (None, None) => None,
            (Some(upload), Some(number)) => Some((upload.clone(), number.parse().ok().filter(|n: &u32| n.to_string() == *number)?)),
            _ => return None,
        };
        let expected = if part.is_some() { 7 } else { 5 };
        if parameters.len() != expected || parameters.get("X-Amz-Algorithm")? != ALGORITHM {
            return None;
        }
        let field = |name: &str| parameters.get(name).cloned();
        let credential = field("X-Amz-Credential")?;
        let mut scope = credential.split('/').map(str::to_owned);
        let (key_id, day, region, service, end) = (scope.next()?, scope.next()?, scope.next()?, scope.next()?, scope.next()?);
        if end != "aws4_request" || scope.next().is_some() {
            return None;
        }
        let at = field("X-Amz-Date")?;
        if at.len() != 16 || !at.starts_with(&day) || day.len() != 8 {
            return None;
        }
        let expires_s = field("X-Amz-Expires")?.parse().ok()?;
        let signed_headers = field("X-Amz-SignedHeaders")?.split(';').map(str::to_owned).collect();
        let path = decoded(path)?;
        Some(Self { key_id, day, region, service, at, expires_s, signed_headers, signature, path, query: parameters, part })
    }

    /// Whether the signature is the one under `secret` of this method and these headers.
    pub(crate) fn holds(&self, secret: &str, method: &str, headers: &BTreeMap<String, String>) -> bool {
        let signed = Signed { method, path: &self.path, query: &self.query, headers, at: &self.at };
        let scope = Scope { day: &self.day, region: &self.region, service: &self.service };
        verify_slices_are_equal(signed.signature(secret, &scope).as_bytes(), self.signature.as_bytes()).is_ok()
    }
}

/// The parameters of a URL that is about to be signed.
pub(crate) fn parameters(
    key_id: &str,
    scope: &Scope<'_>,
    at: &str,
    expires_s: u64,
    headers: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("X-Amz-Algorithm".to_owned(), ALGORITHM.to_owned()),
        ("X-Amz-Credential".to_owned(), format!("{key_id}/{}", scope.text())),
        ("X-Amz-Date".to_owned(), at.to_owned()),
        ("X-Amz-Expires".to_owned(), expires_s.to_string()),
        ("X-Amz-SignedHeaders".to_owned(), names(headers)),
    ])
}

/// Parameters as a canonical query.
pub(crate) fn query_text(query: &BTreeMap<String, String>) -> String {
    let mut pairs: Vec<(String, String)> = query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// A path as S3 writes it: encoded once, slashes kept.
pub(crate) fn encoded_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn names(headers: &BTreeMap<String, String>) -> String {
    headers.keys().map(String::as_str).collect::<Vec<_>>().join(";")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
