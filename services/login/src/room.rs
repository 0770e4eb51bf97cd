//! The routes of `contract::login`.
//!
//! Guarantees: every refusal is in the audit log before its answer leaves; no answer says which part was wrong.

use async_trait::async_trait;
use contract::login::{ACR_PASSWORD, ACR_SECOND, ISSUER_PATH, ROUTES};
use contract::{Body, Caller, Found, Peer, Room, Route, body, dpop, find};
use http::{Request, Response};
use serde_json::{Value, json};
use trust::{DenyReason, FaultKind};

use crate::answer::{self, Refusal};
use crate::provider::{Inner, Login};

#[async_trait]
impl Room for Login {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        let inner = &*self.0;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let proven = request.headers().contains_key(dpop::HEADER);
        let (action, outcome) = match find(ROUTES, method.as_str(), &path) {
            Found::Route(route, values) => {
                let value = values.first().map(|(_, value)| value.as_ref()).unwrap_or_default();
                (route.action, inner.answer(route, value, &caller, request).await)
            }
            Found::MethodUnlisted => ("", Err(Refusal::Denied(DenyReason::MethodUnlisted))),
            Found::Unknown => ("", Err(Refusal::Denied(DenyReason::RouteUnknown))),
        };
        let mut answer = outcome.unwrap_or_else(|refusal| inner.refuse(&caller, action, refusal));
        if let (true, "login.token" | "login.userinfo", Some(nonce)) = (proven, action, inner.nonce()) {
            answer.headers_mut().insert(dpop::NONCE_HEADER, nonce);
        }
        answer
    }
}

impl Inner {
    async fn answer(&self, route: &Route, value: &str, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let edge = matches!(&caller.peer, Peer::Workload(id) if *id == self.trust_domain.role("edge"));
        let door = edge || matches!(&caller.peer, Peer::Workload(id) if id.trust_domain == self.trust_domain && id.as_pdp().is_some());
        let operator = matches!(&caller.peer, Peer::Operator(_));
        match route.action {
            "login.discovery" if edge => Ok(answer::public_json(&self.discovery())),
            "login.jwks" if door => Ok(answer::public_json(&self.keys.published(self.now_s()).await?)),
            "login.style" if edge => Ok(self.style()),
            "login.authorize" if edge => self.authorize(caller, &request.into_parts().0).await,
            "login.sign_in.page" if edge => self.sign_in_form(&request.into_parts().0),
            "login.sign_in" if edge => self.sign_in(caller, request).await,
            "login.sign_in.second" if edge => self.sign_in_second(caller, request).await,
            "login.factor.page" if edge => self.factor_page(&request.into_parts().0).await,
            "login.factor" if edge => self.factor(caller, request).await,
            "login.enrol.page" if edge => self.enrol_form(caller, &request.into_parts().0).await,
            "login.enrol" if edge => self.enrol(caller, request).await,
            "login.token" if edge => self.token(caller, request).await,
            "login.token.revoke" if edge => self.revoke(caller, request).await,
            "login.userinfo" if edge => self.userinfo(request.headers()).await,
            "login.introspect" if door => self.introspect(request).await,
            "login.end_session" if edge => self.end_session(caller, &request.into_parts().0).await,
            "login.user.invite" if operator => self.invite(caller, request).await,
            "login.user.list" if operator => self.list().await,
            "login.user.remove" if operator => self.remove(caller, value).await,
            "login.factor.reset" if operator => self.reset_factor(caller, value).await,
            "login.key.create" if operator => self.make_key(caller, request).await,
            "login.key.list" if operator => self.list_keys().await,
            "login.key.revoke" if operator => self.revoke_key(caller, value).await,
            _ => Err(Refusal::Denied(DenyReason::CallerNotAdmitted)),
        }
    }

    fn refuse(&self, caller: &Caller, action: &str, refusal: Refusal) -> Response<Body> {
        let reason = match &refusal {
            Refusal::Page { reason, .. } | Refusal::OAuth { reason, .. } => *reason,
            Refusal::Denied(DenyReason::AuditUnavailable) => None,
            Refusal::Denied(reason) => Some(*reason),
            Refusal::Fault(fault) => {
                if fault.kind == FaultKind::Internal {
                    self.note(action, fault);
                }
                None
            }
        };
        if let Some(reason) = reason
            && self.refused(caller.trace, &principal(&caller.peer), action, reason).is_err()
        {
            return body::denied(DenyReason::AuditUnavailable);
        }
        match refusal {
            Refusal::Page { status, title, text, .. } => {
                let home = format!("{}/", self.public_origin);
                self.notice(status, title, text, Some((&home, "Back to the application"))).unwrap_or_else(|_| body::plain(status))
            }
            Refusal::OAuth { status, error, text, .. } => answer::oauth(status, error, text),
            Refusal::Denied(reason) => body::denied(reason),
            Refusal::Fault(fault) => body::fault(&fault),
        }
    }

    /// OpenID Connect Discovery 1.0, section 3; RFC 8414, section 2; RFC 9207, section 3; RFC 9470, section 7.
    fn discovery(&self) -> Value {
        let at = |path: &str| format!("{}{ISSUER_PATH}{path}", self.public_origin);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/jwks"),
            "revocation_endpoint": at("/revoke"),
            "introspection_endpoint": at("/introspect"),
            "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
            "end_session_endpoint": at("/end-session"),
            "scopes_supported": self.scopes,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["none", "tls_client_auth"],
            "tls_client_certificate_bound_access_tokens": true,
            "revocation_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
            "prompt_values_supported": ["none", "login", "select_account"],
            "acr_values_supported": [ACR_PASSWORD, ACR_SECOND],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash", "name", "preferred_username"],
            "authorization_response_iss_parameter_supported": true,
            "claims_parameter_supported": false,
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
        })
    }
}

fn principal(peer: &Peer) -> String {
    match peer {
        Peer::Workload(id) => id.to_string(),
        Peer::Local(_) => "unauthenticated".to_owned(),
        Peer::Operator(_) => "operator".to_owned(),
        Peer::Supervisor => "supervisor".to_owned(),
    }
}
