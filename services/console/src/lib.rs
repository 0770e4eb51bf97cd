//! Console: pages out of facts. The system map with its live flows, traces from browser to rendition, the audit log, refusals.
//!
//! Server-rendered HTML, escaped by the template engine; own style sheet and script; nothing from elsewhere, nothing inline, so that a
//! strict Content-Security-Policy holds. What a page shows comes through `contract::console::Reader`.
//!
//! Guarantees: J12 (built-in viewer), J4 (the decision at each hop, readable), J9 (refusals per hour), J10 in part (undeclared calls).
//! Not here:   facts (`evidence`), who may look (the route's `Who`, before this is asked).

mod audit;
mod breach;
mod map;
mod page;
mod phrase;
mod trace;
mod traces;

use async_trait::async_trait;
use contract::console::{AuditFilter, Pages, Reader, TraceFilter};
use contract::{Body, Caller, body};
use http::{HeaderValue, Response, StatusCode, header};
use trust::Fault;

use page::{Page, Query};

/// What a browser may load and do on a page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                                           form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const LIST_LIMIT: u32 = 100;

/// The pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Console;

#[async_trait]
impl Pages for Console {
    async fn page(&self, reader: &dyn Reader, caller: &Caller, path: &str, query: &str) -> Response<Body> {
        if let Some(asset) = asset(path) {
            return asset;
        }
        let query = Query::parse(query);
        let user = caller.authority().map(|a| a.user.clone()).unwrap_or_default();
        let made = made(reader, path, &query).await;
        let (status, page) = match made {
            Ok(Some(page)) => (StatusCode::OK, page),
            Ok(None) => (StatusCode::NOT_FOUND, page::message("Nothing here", "There is no such page, or the trace is no longer kept.")),
            Err(fault) => {
                let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, page::message("Not now", "Evidence could not read its store. Its log says why."))
            }
        };
        let state = reader.audit_state();
        let html = if query.is("part") { page.content } else { page::shell(&page, &user, &state, path) };
        secured(body::with_type(status, "text/html; charset=utf-8", html), "no-store")
    }
}

async fn made(reader: &dyn Reader, path: &str, query: &Query) -> Result<Option<Page>, Fault> {
    let page = match path.strip_prefix("/console").unwrap_or(path).trim_end_matches('/') {
        "" => map::page(&reader.map().await?),
        "/breach" => breach::page(reader.breach().await?.as_ref(), &reader.map().await?),
        "/traces" => {
            let filter =
                TraceFilter { video: query.text("video"), user: query.text("user"), troubled: query.is("troubled"), limit: LIST_LIMIT };
            let traces = reader.traces(&filter).await?;
            traces::page(&filter, &traces)
        }
        "/audit" => {
            let filter = AuditFilter {
                event: query.text("event"),
                reason: query.text("reason"),
                who: query.text("who"),
                refused: query.is("refused"),
                before: query.text("before").parse().ok(),
                limit: LIST_LIMIT,
            };
            let records = reader.audit(&filter).await?;
            audit::page(&filter, &records, &reader.audit_state())
        }
        "/decisions" => {
            let filter = AuditFilter { refused: true, reason: query.text("reason"), limit: LIST_LIMIT, ..AuditFilter::default() };
            let records = reader.audit(&filter).await?;
            audit::refusals_page(&filter, &records, &reader.map().await?)
        }
        other => {
            let trace = other.strip_prefix("/traces/").filter(|t| t.len() == 32 && t.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(id) = trace else { return Ok(None) };
            let Some(detail) = reader.trace(id).await? else { return Ok(None) };
            trace::page(&detail)
        }
    };
    Ok(Some(page))
}

fn asset(path: &str) -> Option<Response<Body>> {
    let (media, bytes): (&'static str, &'static [u8]) = match path {
        "/console/console.css" => ("text/css; charset=utf-8", include_bytes!("../assets/console.css")),
        "/console/console.js" => ("text/javascript; charset=utf-8", include_bytes!("../assets/console.js")),
        "/console/mark.svg" => ("image/svg+xml", include_bytes!("../assets/mark.svg")),
        _ => return None,
    };
    Some(secured(body::with_type(StatusCode::OK, media, bytes), "private, max-age=60"))
}

fn secured(mut response: Response<Body>, cache: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

#[cfg(test)]
mod tests;
