//! Who the bearer of an access token stands for.
//!
//! Spec: OpenID Connect Core, section 5.3; RFC 6750, sections 2.1 and 3.1.

use contract::Body;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use sqlx::Row;
use state::{int, sqlx};
use trust::DenyReason;

use crate::answer::{self, Refusal};
use crate::people::roles_of;
use crate::provider::Inner;

impl Inner {
    /// `GET /userinfo`.
    pub(crate) async fn userinfo(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let refused = |reason| Refusal::OAuth {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_token",
            text: "not a valid token",
            reason: Some(reason),
        };
        let shown = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
        let token =
            shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(|| refused(DenyReason::CredentialMissing))?.1;
        let claims = self.genuine(token).ok_or_else(|| refused(DenyReason::TokenInvalid))?;
        if claims.exp <= self.now_s() {
            return Err(refused(DenyReason::TokenExpired));
        }
        let family = claims.jti.split_once('.').map_or("", |(family, _)| family);
        let sql = "SELECT p.name, p.roles FROM family f JOIN person p ON p.user = f.user
            WHERE f.family = ? AND f.user = ? AND f.dead = 0 AND f.ends_s > ?";
        let row = sqlx::query(sql).bind(family).bind(&claims.sub).bind(int(self.now_s())).fetch_optional(self.store.reader()).await?;
        let row = row.ok_or_else(|| refused(DenyReason::SessionEnded))?;
        let mut answer = json!({ "sub": claims.sub, "roles": roles_of(&row.try_get::<String, _>(1)?)? });
        if let (true, Some(fields)) = (claims.scope.split(' ').any(|s| s == "profile"), answer.as_object_mut()) {
            let name: String = row.try_get(0)?;
            fields.insert("name".to_owned(), name.clone().into());
            fields.insert("preferred_username".to_owned(), name.into());
        }
        Ok(answer::private_json(StatusCode::OK, &answer))
    }
}
