//! Redeeming presigned URLs, which the edge brings from browsers.
//!
//! The signature is checked over the path and query as the browser sent them; then the policy is asked again with the authority that
//! the grant keeps, so that a contained service's URLs and a quarantined object's are dead at once.
//!
//! Guarantees: G5, G6, G8, G11, G12 in part (nothing executes in the bucket's origin).

use std::collections::BTreeMap;

use contract::objects::{ORIGINAL_URI_HEADER, PUBLIC_ORIGIN_HEADER};
use contract::{Body, Caller};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use manifest::Verdict;
use policy::Action;
use s3s::dto::{ETagCondition, Range};
use trust::{DenyReason, ObjectRef};

use crate::gate::Visitor;
use crate::grant::{REGION, SERVICE, host_of, timestamp};
use crate::ledger::{Grant, Object};
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::room::Shelf;
use crate::sigv4::Presented;
use crate::write::{Announced, Incoming};

/// Media types that browsers render without running anything.
const INLINE: &[&str] = &[
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "audio/mpeg",
    "audio/mp4",
    "audio/webm",
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
];

impl Shelf {
    /// A request under `/presigned`, from the edge.
    pub(crate) async fn redeem(&self, caller: &Caller, at: &ObjectRef, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let Some(edge) = caller.workload() else { return Err(Refusal::Denied(DenyReason::CallerNotAdmitted)) };
        let (head, body) = request.into_parts();
        let (grant, visitor) = match self.granted(caller, at, &head.method, &head.headers).await {
            Ok(grant) => {
                let visitor = Visitor { principal: grant.principal.clone(), authority: grant.authority.clone(), trace: caller.trace };
                (grant, visitor)
            }
            Err(Refusal::Denied(reason)) => {
                let visitor = Visitor { principal: edge.clone(), authority: None, trace: caller.trace };
                return Err(self.gate.refuse(&visitor, "redeem", &at.to_string(), reason));
            }
            Err(other) => return Err(other),
        };
        if grant.part.is_some() {
            self.redeem_part(&visitor, grant, body).await
        } else if grant.method == "PUT" {
            self.redeem_put(&visitor, grant, body).await
        } else {
            self.redeem_get(&visitor, at, &head.headers).await
        }
    }

    /// The grant that the URL stands for, if URL, method, headers and time are those granted.
    async fn granted(&self, caller: &Caller, at: &ObjectRef, method: &Method, headers: &HeaderMap) -> Result<Grant, Refusal> {
        let invalid = || Refusal::Denied(DenyReason::GrantInvalid);
        if caller.workload().and_then(|peer| peer.as_role()) != Some("edge") {
            return Err(Refusal::Denied(DenyReason::CallerNotAdmitted));
        }
        let original = only(headers, ORIGINAL_URI_HEADER).ok_or_else(invalid)?;
        let origin = only(headers, PUBLIC_ORIGIN_HEADER).ok_or_else(invalid)?;
        let presented = Presented::parse(original).ok_or_else(invalid)?;
        let grant = self.ledger.grant(&presented.key_id).await?.ok_or_else(invalid)?;
        let mut signed = BTreeMap::new();
        for name in &presented.signed_headers {
            let value = if name == "host" { host_of(origin) } else { only(headers, name).ok_or_else(invalid)? };
            signed.insert(name.clone(), value.to_owned());
        }
        let method = method.as_str();
        if !presented.holds(grant.secret(&self.ledger)?.expose(), method, &signed) {
            return Err(invalid());
        }
        // The signature holds; what it does not say must be as granted too.
        let as_granted = grant.method == method
            && grant.at == *at
            && presented.path == format!("/{at}")
            && presented.part == grant.part
            && presented.region == REGION
            && presented.service == SERVICE
            && presented.at == timestamp(grant.created_s)?
            && presented.expires_s == grant.expires_s.saturating_sub(grant.created_s)
            && signed == grant.headers(host_of(origin));
        if !as_granted || (grant.used && grant.method == "PUT") {
            return Err(invalid());
        }
        if self.clock.unix_s() > grant.expires_s {
            return Err(Refusal::Denied(DenyReason::GrantExpired));
        }
        Ok(grant)
    }

    async fn redeem_put(&self, visitor: &Visitor, grant: Grant, body: Body) -> Result<Response<Body>, Refusal> {
        let incoming = Incoming {
            at: grant.at,
            content_type: grant.content_type.unwrap_or_default(),
            metadata: BTreeMap::new(),
            length: grant.content_length,
            conditions: Conditions::default(),
            grant: Some(grant.id),
        };
        let bytes = BodyStream::new(body).try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
        let object = self.put(visitor, Action::ObjectPresignPut, incoming, Announced::default(), Box::pin(bytes)).await?;
        let mut response = contract::body::plain(StatusCode::OK);
        set(response.headers_mut(), header::ETAG, &format!("\"{}\"", object.etag));
        Ok(response)
    }

    async fn redeem_get(&self, visitor: &Visitor, at: &ObjectRef, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        // A range that cannot be read is no range (RFC 9110, section 14.2).
        let range = only(headers, "range").and_then(|text| Range::parse(text).ok());
        let tag = |name: &str| only(headers, name).and_then(|text| ETagCondition::parse_http_header(text.as_bytes()).ok());
        let conditions = Conditions { if_match: tag("if-match"), if_none_match: tag("if-none-match"), ..Conditions::default() };
        let reading = self.open(visitor, Action::ObjectPresignGet, at, range, &conditions).await?;
        let mut answer = HeaderMap::new();
        serve_safely(&mut answer, &reading.object);
        set(&mut answer, header::ETAG, &format!("\"{}\"", reading.object.etag));
        set(&mut answer, header::CONTENT_LENGTH, &reading.length().to_string());
        set(&mut answer, header::ACCEPT_RANGES, "bytes");
        let status = if range.is_some() {
            set(&mut answer, header::CONTENT_RANGE, &reading.content_range());
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        };
        let content = StreamBody::new(reading.stream().map_ok(http_body::Frame::data)).boxed_unsync();
        let mut response = Response::new(content);
        *response.status_mut() = status;
        *response.headers_mut() = answer;
        Ok(response)
    }
}

/// Headers with which a stranger's bytes cannot act in the browser, whatever they are.
fn serve_safely(headers: &mut HeaderMap, object: &Object) {
    let media_type = object.media_type.as_deref().unwrap_or(&object.content_type);
    let inline = object.verdict == Verdict::Clean && INLINE.contains(&media_type);
    set(headers, header::CONTENT_TYPE, if inline { media_type } else { "application/octet-stream" });
    set(headers, header::CONTENT_DISPOSITION, if inline { "inline" } else { "attachment" });
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    set(headers, header::CACHE_CONTROL, "private");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    set(headers, header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
}

/// A header's value when there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

pub(crate) fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
