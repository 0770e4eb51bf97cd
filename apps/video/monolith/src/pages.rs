//! The page of the reference system, served from memory, and the two forms that people sign in by.
//!
//! Guarantees: nothing that a person wrote ends the script element or the attribute that it stands in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Path as At, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::accounts::{Objection, Person};
use crate::visitor::{Refusal, cookie, ours, set_cookie};
use crate::{App, Failure};

/// Page and files.
pub(crate) struct Pages {
    template: String,
    files: BTreeMap<String, (&'static str, Vec<u8>)>,
}

impl Pages {
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let kind = match path.extension().and_then(|extension| extension.to_str()) {
                Some("css") => "text/css; charset=utf-8",
                Some("js") => "text/javascript; charset=utf-8",
                Some("svg") => "image/svg+xml",
                _ => continue,
            };
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.insert(name, (kind, std::fs::read(&path)?));
        }
        Ok(Self { template: std::fs::read_to_string(folder.join("page.html"))?, files })
    }
}

/// `GET /`: the page with the first videos in it.
pub(crate) async fn page(State(app): State<Arc<App>>, person: Result<Person, Refusal>) -> Result<Response, Refusal> {
    let person = match person {
        Err(Refusal(StatusCode::UNAUTHORIZED, ..)) => return Ok(Redirect::to("/auth/login?return=/").into_response()),
        person => person?,
    };
    let first = crate::routes::listed(&app, &person, 24, None).await?;
    // The name first: what is put in is looked at again only for the second field, whose text has no braces of ours.
    let (before, rest) = app.pages.template.split_once("{{person}}").unwrap_or_default();
    let (between, after) = rest.split_once("{{first}}").unwrap_or_default();
    Ok(Html(format!("{before}{}{between}{}{after}", escaped(&person.name), embedded(&first))).into_response())
}

/// `GET /static/{file}`.
pub(crate) async fn asset(State(app): State<Arc<App>>, At(file): At<String>) -> Response {
    match app.pages.files.get(&file) {
        Some((kind, bytes)) => ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")], bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `GET /auth/me`.
pub(crate) async fn me(person: Person) -> axum::Json<Value> {
    axum::Json(json!({ "name": person.name }))
}

/// What a form brings.
#[derive(Deserialize)]
pub(crate) struct Entered {
    name: String,
    password: String,
    #[serde(default)]
    repeat: String,
}

/// `GET /auth/login`.
pub(crate) async fn login() -> Response {
    form(StatusCode::OK, "Sign in", false, None)
}

/// `POST /auth/login`.
pub(crate) async fn sign_in(State(app): State<Arc<App>>, Form(entered): Form<Entered>) -> Result<Response, Refusal> {
    match app.accounts.sign_in(&entered.name, entered.password).await.map_err(|error| ours(&error))? {
        Ok(cookie) => Ok(signed_in(&cookie)),
        Err(objection) => Ok(form(StatusCode::UNAUTHORIZED, "Sign in", false, Some(objection))),
    }
}

/// `GET /auth/logout`.
pub(crate) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if let Some(cookie) = cookie(&headers).filter(|_| !foreign) {
        app.accounts.sign_out(&cookie).await.map_err(|error| ours(&error))?;
    }
    let mut answer = Redirect::to("/auth/login?return=/").into_response();
    answer.headers_mut().extend(set_cookie(None).map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(answer)
}

/// `GET /enrol/{code}`.
pub(crate) async fn invited(State(app): State<Arc<App>>, At(code): At<String>) -> Result<Response, Refusal> {
    if app.accounts.is_invited(&code).await.map_err(|error| ours(&error))? {
        return Ok(form(StatusCode::OK, "Choose a name and a password", true, None));
    }
    Err(Refusal(StatusCode::NOT_FOUND, "This link was used or has ended.", "Ask for a new one."))
}

/// `POST /enrol/{code}`.
pub(crate) async fn enrol(State(app): State<Arc<App>>, At(code): At<String>, Form(entered): Form<Entered>) -> Result<Response, Refusal> {
    let enrolled = if entered.password == entered.repeat {
        app.accounts.enrol(&code, &entered.name, entered.password.clone()).await.map_err(|error| ours(&error))?
    } else {
        Err(Objection("The passwords differ."))
    };
    if let Err(objection) = enrolled {
        return Ok(form(StatusCode::BAD_REQUEST, "Choose a name and a password", true, Some(objection)));
    }
    match app.accounts.sign_in(&entered.name, entered.password).await.map_err(|error| ours(&error))? {
        Ok(cookie) => Ok(signed_in(&cookie)),
        Err(_) => Ok(Redirect::to("/auth/login?return=/").into_response()),
    }
}

fn signed_in(cookie: &str) -> Response {
    let mut answer = Redirect::to("/").into_response();
    answer.headers_mut().extend(set_cookie(Some(cookie)).map(|cookie| (header::SET_COOKIE, cookie)));
    answer
}

fn form(status: StatusCode, title: &str, twice: bool, objection: Option<Objection>) -> Response {
    let error = objection.map_or_else(String::new, |Objection(text)| format!("<p id=\"error\">{}</p>", escaped(text)));
    let repeat = if twice { "<p><input type=\"password\" name=\"repeat\" placeholder=\"Once more\"></p>" } else { "" };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><link rel=\"stylesheet\" href=\"/static/app.css\"></head>\
         <body><main><h1>{title}</h1>{error}<form method=\"post\"><p><input name=\"name\" placeholder=\"Name\" autocomplete=\"username\"></p>\
         <p><input type=\"password\" name=\"password\" placeholder=\"Password\"></p>{repeat}<p><button class=\"primary\" type=\"submit\">{title}</button></p></form></main></body></html>"
    );
    (status, Html(html)).into_response()
}

/// Text in an attribute or an element (HTML, section 13.3).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// JSON that cannot end the script element around it (HTML, section 4.12.1.3).
fn embedded(value: &Value) -> String {
    let mut text = value.to_string();
    for (mark, code) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")] {
        text = text.replace(mark, code);
    }
    text
}

#[cfg(test)]
mod tests {
    //! Tests of what is put into pages.
    use super::*;

    #[test]
    fn what_a_person_wrote_stays_text() {
        assert_eq!(escaped("\"><script>"), "&quot;&gt;&lt;script&gt;");
        let text = embedded(&json!({ "name": "</script><script>alert(1)</script>" }));
        assert!(!text.contains('<'), "{text}");
    }
}
