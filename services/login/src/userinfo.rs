//! Who the bearer of an access token stands for.
//!
//! Spec: OpenID Connect Core, section 5.3; RFC 6750, sections 2.1 and 3.1; RFC 9449, section 7.1.

use contract::Body;
use contract::opaque::{self, Kind};
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use sqlx::Row;
use state::{int, sqlx};
use trust::DenyReason;

use crate::answer::{self, Refusal};
use crate::people::roles_of;
use crate::possession::{self, at_resource};
use crate::provider::Inner;

impl Inner {
    /// `GET /userinfo`.
    pub(crate) async fn userinfo(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let refused = at_resource;
        let shown = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
        let by_key = shown.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("dpop"));
        let known = shown.filter(|(scheme, _)| by_key || scheme.eq_ignore_ascii_case("bearer"));
        let token = known.ok_or_else(|| refused(DenyReason::CredentialMissing))?.1;
        let claims = match opaque::kind_of(token) {
            Some(Kind::Token) => self.token_claims(token).await?,
            Some(Kind::Key) => None,
            None => self.genuine(token),
        };
        let claims = claims.ok_or_else(|| refused(DenyReason::TokenInvalid))?;
        if claims.exp <= self.now_s() {
            return Err(refused(DenyReason::TokenExpired));
        }
        let bound = claims.cnf.as_ref();
        if bound.and_then(|bound| bound.x5t_s256.as_deref()).is_some_and(|its| possession::thumbprint(headers) != Some(its)) {
            return Err(refused(DenyReason::CertificateMismatch));
        }
        match (bound.and_then(|bound| bound.jkt.as_deref()), by_key) {
            (None, false) => {}
            (None, true) => return Err(refused(DenyReason::TokenUnbound)),
            (Some(_), false) => return Err(refused(DenyReason::ProofMissing)),
            (Some(jkt), true) => {
                let proof = self.proof(headers, "GET", "/userinfo", Some(token)).map_err(refused)?;
                let proof = proof.ok_or_else(|| refused(DenyReason::ProofMissing))?;
                if proof.key.as_str() != jkt {
                    return Err(refused(DenyReason::ProofKeyMismatch));
                }
                self.proofs.spend(proof, self.now_s()).map_err(refused)?;
            }
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
