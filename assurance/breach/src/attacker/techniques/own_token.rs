//! A token that a stranger writes: in the form that the gateway takes, of nobody, with every scope and an administrator's role.
//!
//! Guarantees: A7 measured, L13.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::login::{ACCESS_TYP, ISSUER_PATH};
use serde_json::{Value, json};

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::{Request, text_of};
use crate::attacker::note::now_ms;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "own-token",
    title: "Writes an access token itself, with every scope and role, under a key of its own and under the name of the real one.",
    attack: "T1606",
    stride: Stride::S,
    controls: &[Control::SignIn],
    run: Run::Outside(run, &[Who::Stranger]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let told = |path: &str| -> Option<Value> {
        serde_json::from_slice(&visitor.bare.ask(&Request::new("GET", format!("{ISSUER_PATH}{path}"))).ok()?.body).ok()
    };
    // Whoever asks is told where tokens come from, and under which names their keys go.
    let Some(issuer) = told("/.well-known/openid-configuration").and_then(|all| text_of(&all, "issuer").map(str::to_owned)) else {
        return notes.untried("nobody says where tokens come from");
    };
    let real = told("/jwks").and_then(|all| all.get("keys")?.as_array()?.first()?.get("kid")?.as_str().map(str::to_owned));
    let keys = [Some("a key of its own".to_owned()), real];
    for (number, key) in keys.iter().flatten().enumerate() {
        let token = written(visitor, &issuer, key);
        // The name of a genuine key is random.
        let how = if number == 0 { "under its own key" } else { "under the name of the real key" };
        shown(visitor, notes, &token, how);
    }
}

fn shown(visitor: &Visitor<'_>, notes: &mut Notes, token: &str, how: &str) {
    let with = |method: &str, target: &str| Request::new(method, target).with("authorization", format!("Bearer {token}"));
    for (service, part) in &visitor.script.services {
        for route in part.routes.iter().filter(|route| route.public && route.method != "TCP" && !route.websocket) {
            let request = with(&route.method, &format!("{}?breach={}", filled(&route.path, &visitor.own), visitor.own));
            let request = if route.method == "GET" { request } else { request.body("application/json", "{}") };
            let action = format!("{} {}", route.method, route.path);
            match visitor.bare.ask(&request) {
                Ok(answer) if answer.text().contains(&format!("\"breach_service\":\"{service}\"")) => {
                    for cell in Cell::of_call(&format!("service.{service}"), &route.method, &action, Extent::Everybody) {
                        notes.reached(cell, format!("a service answers: {how}"));
                    }
                }
                Ok(answer) => notes.stopped(Some(Control::SignIn), format!("{how}: {}", answer.status)),
                Err(_) => notes.stopped(Some(Control::SignIn), format!("{how}: no answer")),
            }
        }
    }
    match visitor.bare.ask(&with("GET", "/console")) {
        Ok(answer) if answer.is_success() => {
            notes.reached(Cell::done("role.evidence", "GET /console", Extent::Everybody), format!("the console: {how}"));
        }
        Ok(answer) => notes.stopped(Some(Control::SignIn), format!("the console, {how}: {}", answer.status)),
        Err(_) => notes.stopped(Some(Control::SignIn), format!("the console, {how}: no answer")),
    }
}

/// Everything as `login` would write it but the signature.
fn written(visitor: &Visitor<'_>, issuer: &str, key: &str) -> String {
    let routes = visitor.script.services.values().flat_map(|part| &part.routes);
    let scopes: std::collections::BTreeSet<&str> = routes.filter_map(|route| route.scope.as_deref()).collect();
    let now_s = now_ms() / 1000;
    let claims = json!({
        "iss": issuer, "aud": issuer.strip_suffix(ISSUER_PATH).unwrap_or(issuer), "sub": "somebody", "client_id": "edge",
        "iat": now_s, "auth_time": now_s, "exp": now_s.saturating_add(600), "jti": "its-own", "sid": "its-own",
        "scope": scopes.into_iter().collect::<Vec<_>>().join(" "), "roles": [policy::ADMIN_ROLE],
    });
    let head = json!({ "alg": "ES256", "typ": ACCESS_TYP, "kid": key });
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", part(head.to_string().as_bytes()), part(claims.to_string().as_bytes()), part(&[7; 64]))
}
