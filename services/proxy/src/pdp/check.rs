//! `envoy.service.auth.v3.Authorization/Check`: Envoy's external authorization, by gRPC.
//!
//! Every question that can be read is answered `OK` or denied with a status, a reason and the decision's name for the client. One that
//! cannot be read, and none at all, is an error of gRPC, on which Envoy refuses by itself (`failure_mode_allow` is false by default).
//!
//! Spec:       envoy.service.auth.v3.
//! Guarantees: A5: what a client says of its identity is told to be removed, and the transaction token set over whatever was there.

use contract::login::STEP_UP_CHALLENGE;
use contract::{Body, dpop, txn_token};
use http::{Request, Response, header};
use trust::DenyReason;

use super::asked::{Asked, Told};
use super::message::{self, Code};
use super::wire::{
    AppendAction, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpResponse, HttpStatus, Kind,
    OkHttpResponse, Status, Struct, Value,
};
use super::{Answered, DecisionPoint};
use crate::edge::TRACE_HEADER;
use crate::{headers, limits};

/// Its path.
pub(crate) const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// An API key may come by it to the edge; here it does not count, and goes no further.
const KEY_HEADER: &str = "x-api-key";
/// Fields that Envoy itself needs while it passes the request on; a guard removes them.
const PROXYS_OWN: &[&str] = &["x-forwarded-proto", "x-forwarded-for", "x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count"];

/// Answers one question.
pub(crate) async fn answer(point: &DecisionPoint, request: Request<Body>) -> Response<Body> {
    let asked: CheckRequest = match message::only(request.into_body(), limits::PEP_QUESTION_BYTES_MAX).await {
        Ok(asked) => asked,
        Err(broken) => {
            // On record as the refusal that Envoy makes of it.
            let _recorded = point.decide(Err(DenyReason::RequestAmbiguous)).await;
            return message::failed(broken.code(), &broken.to_string());
        }
    };
    let read = read(&asked);
    let removed = read.as_ref().map(removed).unwrap_or_default();
    let answered = point.decide(read).await;
    message::answer(&response(answered, removed))
}

/// What is told of the request.
fn read(asked: &CheckRequest) -> Result<Asked, DenyReason> {
    let attributes = asked.attributes.as_ref().ok_or(DenyReason::RequestAmbiguous)?;
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref()).ok_or(DenyReason::RequestAmbiguous)?;
    let principal = attributes.source.as_ref().map(|source| source.principal.as_str()).filter(|principal| !principal.is_empty());
    let mut fields: Vec<(&str, &[u8])> = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    for field in http.header_map.iter().flat_map(|map| &map.headers) {
        let value = if field.raw_value.is_empty() { field.value.as_bytes() } else { &field.raw_value };
        fields.push((&field.key, value));
    }
    Asked::read(&Told { method: &http.method, target: &http.path, host: &http.host, headers: fields, principal })
}

/// Fields of the request that must not reach whoever is behind the proxy.
fn removed(asked: &Asked) -> Vec<String> {
    let is_meant = |name: &str| {
        let claims = headers::claims_identity(name) && !PROXYS_OWN.contains(&name) && name != txn_token::HEADER;
        let traces = headers::names_trace(name) && name != "traceparent";
        let credential = headers::is_credential(name) || name == dpop::HEADER || name == KEY_HEADER;
        credential || claims || traces || name == "baggage"
    };
    let mut names: Vec<String> = asked.head.headers.keys().map(|name| name.as_str().to_owned()).filter(|name| is_meant(name)).collect();
    names.sort();
    names
}

fn response(answered: Answered, removed: Vec<String>) -> CheckResponse {
    let trace = answered.trace;
    let mut said = vec![("id", Kind::Text(trace.trace_hex())), ("allowed", Kind::Bool(answered.outcome.is_ok()))];
    let (status, http_response) = match answered.outcome {
        Ok(allowed) => {
            said.push(("epoch", Kind::Number(allowed.epoch as f64)));
            let mut fields = vec![set("traceparent", trace.to_string())];
            if let Some(token) = allowed.token.as_ref().and_then(|token| token.to_str().ok()) {
                fields.push(set(txn_token::HEADER, token.to_owned()));
            }
            let status = Status { code: Code::Ok as i32, message: String::new() };
            (status, HttpResponse::Ok(OkHttpResponse { headers: fields, headers_to_remove: removed }))
        }
        Err(refusal) => {
            let reason = refusal.reason;
            said.push(("reason", Kind::Text(reason.code().to_owned())));
            let mut fields = vec![
                set(header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
                set(header::CACHE_CONTROL.as_str(), "no-store".to_owned()),
                set(TRACE_HEADER, trace.trace_hex()),
            ];
            if let Some(seconds) = refusal.retry_after_s {
                fields.push(set(header::RETRY_AFTER.as_str(), seconds.to_string()));
            }
            if let Some(methods) = &refusal.allow {
                fields.push(set(header::ALLOW.as_str(), methods.to_string()));
            }
            if reason.status() == 401 {
                let challenge = match reason {
                    DenyReason::CredentialMissing => "Bearer",
                    DenyReason::StepUpMissing => STEP_UP_CHALLENGE,
                    _ => "Bearer error=\"invalid_token\"",
                };
                fields.push(set(header::WWW_AUTHENTICATE.as_str(), challenge.to_owned()));
            }
            let code = if reason.status() == 401 { Code::Unauthenticated } else { Code::PermissionDenied };
            let body = serde_json::json!({ "error": "refused", "reason": reason.code() }).to_string();
            let status = Some(HttpStatus { code: i32::from(reason.status()) });
            let denied = DeniedHttpResponse { status, headers: fields, body };
            (Status { code: code as i32, message: reason.code().to_owned() }, HttpResponse::Denied(denied))
        }
    };
    let fields = said.into_iter().map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) })).collect();
    CheckResponse { status: Some(status), http_response: Some(http_response), dynamic_metadata: Some(Struct { fields }) }
}

fn set(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, raw_value: Vec::new() }),
        append_action: AppendAction::OverwriteIfExistsOrAdd as i32,
    }
}
