//! AuthZEN: questions and answers as JSON, for whatever enforces and is no Envoy.
//!
//! A subject is a person, with the access token that says so (`properties.access_token`), or a workload whose SVID the asker has verified,
//! with the transaction token that came along (`properties.txn_token`); an id alone says nothing. An action is a method, a resource a
//! path (`type` is `route`). A permission comes with the transaction token that must go on with the request.
//!
//! Spec:       OpenID AuthZEN Authorization API 1.0, sections 5 to 7, 9 and 10. Deviations: no search; the addresses in the metadata are
//!             `http`, since the socket is on this machine.
//! Guarantees: E21; A13 questions, and how many of them come at once, are limited; a question that cannot be read is refused, and recorded.

use contract::{Body, body, txn_token};
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trust::DenyReason;

use super::asked::{Asked, Told};
use super::{Answered, DecisionPoint};
use crate::limits;

/// Path of one question.
pub(crate) const EVALUATION: &str = "/access/v1/evaluation";
/// Path of several.
pub(crate) const EVALUATIONS: &str = "/access/v1/evaluations";
/// Path of the metadata.
pub(crate) const METADATA: &str = "/.well-known/authzen-configuration";
/// Names a request for its sender (section 10.1.3).
const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_BYTES_MAX: usize = 256;

/// Section 5.1.
#[derive(Debug, Clone, Deserialize)]
struct Subject {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    #[serde(default)]
    properties: Map<String, Value>,
}

/// Section 5.2.
#[derive(Debug, Clone, Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    #[serde(default)]
    properties: Map<String, Value>,
}

/// Section 5.3.
#[derive(Debug, Clone, Deserialize)]
struct Action {
    name: String,
}

/// Section 6.1; of several, each part may be that of all (section 7.1.1).
#[derive(Debug, Clone, Default, Deserialize)]
struct Evaluation {
    subject: Option<Subject>,
    action: Option<Action>,
    resource: Option<Resource>,
}

/// Section 7.1.
#[derive(Debug, Clone, Deserialize)]
struct Evaluations {
    #[serde(flatten)]
    common: Evaluation,
    #[serde(default)]
    evaluations: Vec<Evaluation>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Options {
    #[serde(default)]
    evaluations_semantic: Semantic,
}

/// Section 7.1.2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Semantic {
    #[default]
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

/// Answers on one of the three paths.
pub(crate) async fn answer(point: &DecisionPoint, request: Request<Body>) -> Response<Body> {
    let id = request.headers().get(REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX).cloned();
    let mut response = match request.uri().path() {
        METADATA => metadata(&request),
        EVALUATION => match parse::<Evaluation>(request, limits::PEP_QUESTION_BYTES_MAX).await {
            Ok(evaluation) => match asked(&evaluation) {
                Ok(asked) => body::json(StatusCode::OK, &said(&point.decide(asked).await)),
                Err(missing) => unreadable(point, StatusCode::BAD_REQUEST, missing).await,
            },
            Err((status, why)) => unreadable(point, status, &why).await,
        },
        _ => match parse::<Evaluations>(request, limits::PEP_QUESTIONS_BYTES_MAX).await {
            Ok(evaluations) => several(point, evaluations).await,
            Err((status, why)) => unreadable(point, status, &why).await,
        },
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn several(point: &DecisionPoint, Evaluations { common, evaluations, options }: Evaluations) -> Response<Body> {
    if evaluations.is_empty() {
        // Section 7.1: then it is one question.
        return match asked(&common) {
            Ok(asked) => body::json(StatusCode::OK, &said(&point.decide(asked).await)),
            Err(missing) => unreadable(point, StatusCode::BAD_REQUEST, missing).await,
        };
    }
    if evaluations.len() > limits::PEP_QUESTIONS_MAX {
        let why = format!("more than {} questions at once", limits::PEP_QUESTIONS_MAX);
        return unreadable(point, StatusCode::PAYLOAD_TOO_LARGE, &why).await;
    }
    let mut answers = Vec::with_capacity(evaluations.len());
    for each in evaluations {
        let whole = Evaluation {
            subject: each.subject.or_else(|| common.subject.clone()),
            action: each.action.or_else(|| common.action.clone()),
            resource: each.resource.or_else(|| common.resource.clone()),
        };
        let (permitted, answer) = match asked(&whole) {
            Ok(asked) => {
                let answered = point.decide(asked).await;
                (answered.outcome.is_ok(), said(&answered))
            }
            Err(missing) => {
                let _recorded = point.decide(Err(DenyReason::RequestAmbiguous)).await;
                (false, json!({ "decision": false, "context": { "error": { "status": 400, "message": missing } } }))
            }
        };
        answers.push(answer);
        match options.evaluations_semantic {
            Semantic::DenyOnFirstDeny if !permitted => break,
            Semantic::PermitOnFirstPermit if permitted => break,
            _ => {}
        }
    }
    body::json(StatusCode::OK, &json!({ "evaluations": answers }))
}

async fn parse<T: for<'de> Deserialize<'de>>(request: Request<Body>, bytes_max: usize) -> Result<T, (StatusCode, String)> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json".to_owned()));
    }
    let bytes = body::collect(request.into_body(), bytes_max).await.map_err(|fault| {
        let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::BAD_REQUEST);
        (status, fault.public)
    })?;
    serde_json::from_slice(&bytes).map_err(|error| (StatusCode::BAD_REQUEST, format!("no question of AuthZEN: {error}")))
}

/// The question; or which part of it is missing or unknown. One that is whole may still be refused for what it says.
fn asked(evaluation: &Evaluation) -> Result<Result<Asked, DenyReason>, &'static str> {
    let subject = evaluation.subject.as_ref().ok_or("subject is missing")?;
    let action = evaluation.action.as_ref().ok_or("action is missing")?;
    let resource = evaluation.resource.as_ref().ok_or("resource is missing")?;
    if resource.kind != "route" {
        return Err("the resource's type is 'route', its id a path");
    }
    let text = |properties: &Map<String, Value>, name: &str| properties.get(name).and_then(Value::as_str).map(str::to_owned);
    let host = text(&resource.properties, "hostname").unwrap_or_else(|| "localhost".to_owned());
    if resource.id.contains('?') {
        return Err("the resource's id is a path, without a query");
    }
    let (carried, principal) = match subject.kind.as_str() {
        "user" => (text(&subject.properties, "access_token"), None),
        "workload" => (text(&subject.properties, "txn_token"), Some(subject.id.as_str())),
        _ => return Err("the subject's type is 'user' or 'workload'"),
    };
    let headers = match (&carried, principal) {
        (Some(token), Some(_)) => vec![(txn_token::HEADER, token.as_bytes())],
        _ => Vec::new(),
    };
    let asked = Asked::read(&Told { method: &action.name, target: &resource.id, host: &host, headers, principal });
    Ok(match (asked, principal, carried) {
        (Ok(_), None, None) => Err(DenyReason::CredentialMissing),
        (Ok(asked), None, Some(token)) => Ok(asked.of_person(subject.id.clone(), token)),
        (asked, ..) => asked,
    })
}

/// Section 5.5.
fn said(answered: &Answered) -> Value {
    let mut context = Map::from_iter([("id".to_owned(), answered.trace.trace_hex().into())]);
    match &answered.outcome {
        Ok(allowed) => {
            if let Some(token) = allowed.token.as_ref().and_then(|token| token.to_str().ok()) {
                context.insert("txn_token".to_owned(), token.into());
            }
        }
        Err(refusal) => {
            context.insert("reason".to_owned(), refusal.reason.code().into());
            context.insert("status".to_owned(), refusal.reason.status().into());
        }
    }
    json!({ "decision": answered.outcome.is_ok(), "context": context })
}

/// On record as a refusal, since whoever asks lets nothing pass for it.
async fn unreadable(point: &DecisionPoint, status: StatusCode, why: &str) -> Response<Body> {
    let _recorded = point.decide(Err(DenyReason::RequestAmbiguous)).await;
    body::json(status, &json!({ "error": why }))
}

/// Section 9.
fn metadata(request: &Request<Body>) -> Response<Body> {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
    let host = named.filter(|host| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]_".contains(&b))).unwrap_or("localhost");
    let at = |path: &str| format!("http://{host}{path}");
    body::json(
        StatusCode::OK,
        &json!({
            "policy_decision_point": at(""),
            "access_evaluation_endpoint": at(EVALUATION),
            "access_evaluations_endpoint": at(EVALUATIONS),
        }),
    )
}
