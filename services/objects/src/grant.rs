//! Presigning: a URL for exactly one method, object, size, type and time, on the authority that asked for it.
//!
//! Guarantees: G5, G6, G9.

use std::collections::BTreeMap;

use contract::objects::{Presign, Presigned};
use contract::{Body, body};
use http::{Request, Response, StatusCode};
use policy::Action;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use trust::{ObjectRef, clock::random_hex, limits};

use crate::gate::Visitor;
use crate::ledger::Grant;
use crate::refusal::Refusal;
use crate::room::Shelf;
use crate::sigv4::{PART, Scope, Signed, UPLOAD, encoded_path, parameters, query_text};

/// Region and service in every grant's scope.
pub(crate) const REGION: &str = "local";
pub(crate) const SERVICE: &str = "s3";

impl Grant {
    /// The headers that its URL signs, with their values.
    pub(crate) fn headers(&self, host: &str) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::from([("host".to_owned(), host.to_owned())]);
        if let Some(length) = self.content_length {
            headers.insert("content-length".to_owned(), length.to_string());
        }
        if let Some(content_type) = &self.content_type {
            headers.insert("content-type".to_owned(), content_type.clone());
        }
        headers
    }
}

impl Shelf {
    /// `POST /BUCKET/KEY?presign`.
    pub(crate) async fn presign(&self, visitor: &Visitor, at: &ObjectRef, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let wish: Presign = body::parse_json(request.into_body()).await?;
        if !(1..=limits::GRANT_LIFE_S_MAX).contains(&wish.expires_s) {
            return Err(Refusal::Invalid(format!("expires_s is 1 to {}", limits::GRANT_LIFE_S_MAX)));
        }
        match wish.method.as_str() {
            "GET" | "HEAD" if wish.content_length.is_none() && wish.content_type.is_none() => {
                self.look(visitor, Action::ObjectPresignGet, at).await?;
            }
            "PUT" => {
                let (Some(length), Some(content_type)) = (wish.content_length, wish.content_type.as_deref()) else {
                    return Err(Refusal::Invalid("a PUT is granted for one content_length and one content_type".to_owned()));
                };
                if !content_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
                    return Err(Refusal::Invalid("content_type is not a media type".to_owned()));
                }
                let admitted = self.admit(visitor, Action::ObjectPresignPut, at, content_type).await?;
                if length > admitted.profile.object_bytes_max {
                    return Err(Refusal::TooLarge);
                }
                self.blobs.room_for(length)?;
            }
            _ => return Err(Refusal::Invalid("method is GET or HEAD (with no size or type), or PUT".to_owned())),
        }
        let created_s = self.clock.unix_s();
        let grant = Grant {
            id: format!("PG{}", random_hex(&*self.entropy, 16)),
            method: wish.method,
            at: at.clone(),
            content_length: wish.content_length,
            content_type: wish.content_type,
            principal: visitor.principal.clone(),
            authority: visitor.authority.clone(),
            trace: visitor.trace,
            created_s,
            expires_s: created_s.saturating_add(wish.expires_s),
            used: false,
            part: None,
        };
        self.ledger.keep_grants(std::slice::from_ref(&grant)).await?;
        let presigned = self.url(&grant)?;
        Ok(body::json(StatusCode::OK, &presigned))
    }

    pub(crate) fn url(&self, grant: &Grant) -> Result<Presigned, Refusal> {
        let host = host_of(&self.origin);
        let headers = grant.headers(host);
        let at = timestamp(grant.created_s)?;
        let day = at.get(..8).unwrap_or_default();
        let scope = Scope { day, region: REGION, service: SERVICE };
        let path = format!("/{}", grant.at);
        let mut query = parameters(&grant.id, &scope, &at, grant.expires_s.saturating_sub(grant.created_s), &headers);
        if let Some((upload, number)) = &grant.part {
            query.extend([(UPLOAD.to_owned(), upload.clone()), (PART.to_owned(), number.to_string())]);
        }
        let secret = grant.secret(&self.ledger)?;
        let signature =
            Signed { method: &grant.method, path: &path, query: &query, headers: &headers, at: &at }.signature(secret.expose(), &scope);
        query.insert("X-Amz-Signature".to_owned(), signature);
        // A browser sets host and content-length itself, and lets no script do so.
        let to_send = headers.into_iter().filter(|(name, _)| name == "content-type").collect();
        let ends = OffsetDateTime::from_unix_timestamp(i64::try_from(grant.expires_s).unwrap_or(i64::MAX));
        let expires_at = ends.ok().and_then(|t| t.format(&Rfc3339).ok()).ok_or_else(|| Refusal::Internal("not a time".into()))?;
        Ok(Presigned {
            url: format!("{}{}?{}", self.origin, encoded_path(&path), query_text(&query)),
            method: grant.method.clone(),
            headers: to_send,
            expires_at,
        })
    }
}

/// Seconds since the epoch as SigV4 writes them.
pub(crate) fn timestamp(unix_s: u64) -> Result<String, Refusal> {
    let at =
        OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).unwrap_or(i64::MAX)).map_err(|error| Refusal::Internal(error.into()))?;
    at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).map_err(|error| Refusal::Internal(error.into()))
}

/// The host of an origin, with its port, as the `Host` header has it.
pub(crate) fn host_of(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, host)| host)
}
