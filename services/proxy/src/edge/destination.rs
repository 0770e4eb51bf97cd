//! Destinations: where a method and a path lead. What leads nowhere is never passed on.
//!
//! A host with routes of its own serves these and nothing else; so does the host of what people have stored (docs/adr/0013). At the host that people sign in at, Palisade's own paths (`/auth`, `/oidc`, `/console`)
//! win over buckets, and those over the services' routes; among these the most literal template wins, whatever the order, and of equal
//! ones that whose fields the request has.
//!
//! Guarantees: A3 routes by host, field, method and path; A6 deny by default: unknown is 404, another method 405 with `Allow`.
//! Not here:   who may (`authorise`).

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::control::{EdgeProfile, PublicRoute};
use contract::login::ISSUER_PATH;
use contract::route::{Route, Who};
use http::{HeaderMap, Method};
use trust::DenyReason;

use super::cors::Preflight;
use super::stop::{Refusal, Stop};
use crate::canonical::{self, Choice};

/// Longest body of a request to `login`, in bytes: a form.
const FORM_BYTES_MAX: u64 = 64 * 1024;

/// What else than method and path a request is asked by.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The host, if it has routes of its own.
    pub host: Option<&'a str>,
    /// Its header.
    pub fields: &'a HeaderMap,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The edge's own pages around sessions.
    Session(SessionPage),
    /// `login`'s public endpoints, under the issuer's path.
    Login {
        /// The row of its contract.
        route: &'static Route,
        /// The path there.
        path: String,
    },
    /// An object by presigned URL.
    Presigned {
        /// Its bucket.
        bucket: String,
        /// Largest object there, in bytes.
        body_bytes_max: u64,
    },
    /// The console of `evidence`, for administrators.
    Console {
        /// The row of its contract.
        route: &'static Route,
    },
    /// A service.
    Service(Arc<PublicRoute>),
    /// Nowhere: a browser asks whether a page of another origin may go there.
    Preflight(Preflight),
}

/// The edge's own pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPage {
    /// Begins a sign-in.
    SignIn,
    /// Takes `login`'s answer.
    Callback,
    /// Ends the session.
    SignOut,
    /// Who is signed in.
    Me,
}

impl Destination {
    /// Where `method` and `path` (canonical, no query) lead, asked like that.
    ///
    /// # Errors
    /// `RouteUnknown`, `MethodUnlisted`, or `RequestAmbiguous` for a path whose values could be read in two ways, or a field that
    /// is repeated and decides.
    pub fn find(profile: &EdgeProfile, asked: Asked<'_>, method: &Method, path: &str) -> Result<Self, Stop> {
        if asked.host.is_some() {
            return service(profile, asked, method, path);
        }
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "auth" => session_page(method, path),
            "oidc" => login(method, path),
            "console" => console(method, path),
            _ => match profile.buckets.get(first) {
                Some(max) => presigned(method, path, first, *max),
                None => service(profile, asked, method, path),
            },
        }
    }

    /// Where they lead at the host of what people have stored: to an object by presigned URL, or nowhere.
    ///
    /// # Errors
    /// `RouteUnknown`, `MethodUnlisted`.
    pub fn of_content(profile: &EdgeProfile, method: &Method, path: &str) -> Result<Self, Stop> {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match profile.buckets.get(first) {
            Some(max) => presigned(method, path, first, *max),
            None => Err(DenyReason::RouteUnknown.into()),
        }
    }

    /// Its name in metrics and audit records: never a request's own bytes.
    #[must_use]
    pub fn name(&self, method: &Method) -> String {
        match self {
            Self::Session(page) => format!("edge:{}", page.path()),
            Self::Login { route, .. } => format!("login:{} {}", route.method, route.path),
            Self::Presigned { bucket, .. } => format!("objects:{method} /{bucket}/{{*key}}"),
            Self::Console { route } => format!("evidence:{} {}", route.method, route.path),
            Self::Service(route) => format!("{}:{} {}", route.service.as_service().unwrap_or_default(), route.method, route.path),
            Self::Preflight(_) => "edge:preflight".to_owned(),
        }
    }

    /// What the decision about it is called in audit records.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match self {
            Self::Session(page) => page.action(),
            Self::Login { route, .. } | Self::Console { route } => route.action,
            Self::Presigned { .. } => "redeem",
            Self::Service(_) => "enter",
            Self::Preflight(_) => "cors.preflight",
        }
    }

    /// Whether people look at what it answers.
    #[must_use]
    pub fn is_page(&self) -> bool {
        match self {
            Self::Session(page) => *page != SessionPage::Me,
            Self::Login { route, .. } => {
                let of_login = ["login.authorize", "login.sign_in.page", "login.sign_in", "login.sign_in.second"];
                of_login.contains(&route.action)
                    || matches!(route.action, "login.enrol.page" | "login.enrol" | "login.factor.page" | "login.factor")
            }
            Self::Console { .. } => true,
            Self::Presigned { .. } | Self::Preflight(_) => false,
            Self::Service(route) => route.page,
        }
    }

    /// Whether a WebSocket may be opened there.
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        matches!(self, Self::Service(route) if route.websocket)
    }

    /// The service's route, if it is one.
    #[must_use]
    pub fn route(&self) -> Option<&PublicRoute> {
        match self {
            Self::Service(route) => Some(route),
            _ => None,
        }
    }

    /// Largest body, in bytes.
    #[must_use]
    pub fn body_bytes_max(&self) -> u64 {
        match self {
            Self::Session(_) | Self::Login { .. } | Self::Console { .. } => FORM_BYTES_MAX,
            Self::Preflight(_) => 0,
            Self::Presigned { body_bytes_max, .. } => *body_bytes_max,
            Self::Service(route) => route.body_bytes_max,
        }
    }
}

impl SessionPage {
    const ALL: [Self; 4] = [Self::SignIn, Self::Callback, Self::SignOut, Self::Me];

    fn path(self) -> &'static str {
        match self {
            Self::SignIn => "/auth/login",
            Self::Callback => contract::login::EDGE_CALLBACK,
            Self::SignOut => "/auth/logout",
            Self::Me => "/auth/me",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::SignIn => "session.sign_in",
            Self::Callback => "session.callback",
            Self::SignOut => "session.sign_out",
            Self::Me => "session.read",
        }
    }

    fn takes(self, method: &Method) -> bool {
        *method == Method::GET || (self == Self::SignOut && *method == Method::POST)
    }
}

fn session_page(method: &Method, path: &str) -> Result<Destination, Stop> {
    let page = SessionPage::ALL.into_iter().find(|page| page.path() == path).ok_or(DenyReason::RouteUnknown)?;
    if page.takes(method) {
        return Ok(Destination::Session(page));
    }
    Err(method_unlisted(if page == SessionPage::SignOut { &["GET", "POST"] } else { &["GET"] }))
}

fn login(method: &Method, path: &str) -> Result<Destination, Stop> {
    let inner = path.strip_prefix(ISSUER_PATH).unwrap_or_default();
    let public = |route: &&Route| matches!(route.who, Who::Roles(&["edge"]) | Who::Doors);
    let route = row(contract::login::ROUTES, public, method, inner)?;
    Ok(Destination::Login { route, path: inner.to_owned() })
}

fn console(method: &Method, path: &str) -> Result<Destination, Stop> {
    let for_people = |route: &&Route| matches!(route.who, Who::Person(_));
    Ok(Destination::Console { route: row(contract::evidence::ROUTES, for_people, method, path)? })
}

/// The row of a contract that fits, among those that are public.
fn row(
    table: &'static [Route],
    public: impl Fn(&&'static Route) -> bool + Clone,
    method: &Method,
    path: &str,
) -> Result<&'static Route, Stop> {
    let rows = table.iter().filter(public).map(|row| (row.method, row.path, row));
    match canonical::choose(rows, method.as_str(), path).map_err(|_| DenyReason::RequestAmbiguous)? {
        Choice::Row(row, _) => Ok(row),
        Choice::MethodUnlisted(methods) => Err(method_unlisted(&methods)),
        Choice::Unknown => Err(DenyReason::RouteUnknown.into()),
    }
}

fn presigned(method: &Method, path: &str, bucket: &str, body_bytes_max: u64) -> Result<Destination, Stop> {
    let key = path.strip_prefix('/').and_then(|p| p.strip_prefix(bucket)).and_then(|p| p.strip_prefix('/'));
    if key.is_none_or(str::is_empty) {
        return Err(DenyReason::RouteUnknown.into());
    }
    match *method {
        Method::GET | Method::HEAD | Method::PUT => Ok(Destination::Presigned { bucket: bucket.to_owned(), body_bytes_max }),
        _ => Err(method_unlisted(&["GET", "HEAD", "PUT"])),
    }
}

/// The service's route that `method` and `path` (canonical, no query) lead to, asked like that.
///
/// # Errors
/// As `Destination::find`.
pub fn service(profile: &EdgeProfile, asked: Asked<'_>, method: &Method, path: &str) -> Result<Destination, Stop> {
    let here = profile.routes.iter().filter(|row| row.host.as_deref() == asked.host);
    for name in here.clone().flat_map(|row| row.headers.keys()) {
        if asked.fields.get_all(name.as_str()).iter().count() > 1 {
            return Err(DenyReason::RequestAmbiguous.into());
        }
    }
    let has = |row: &&Arc<PublicRoute>| {
        row.headers.iter().all(|(name, value)| asked.fields.get(name.as_str()).is_some_and(|found| found.as_bytes() == value.as_bytes()))
    };
    // Of equally literal rows the first is taken: those that ask for fields come first.
    let conditional = here.clone().filter(|row| !row.headers.is_empty()).filter(has);
    let rows = conditional.chain(here.filter(|row| row.headers.is_empty()));
    let rows = rows.map(|row| (row.method.as_str(), row.path.as_str(), row));
    match canonical::choose(rows, method.as_str(), path).map_err(|_| DenyReason::RequestAmbiguous)? {
        Choice::Row(row, _) => Ok(Destination::Service(Arc::clone(row))),
        Choice::MethodUnlisted(methods) => Err(method_unlisted(&methods)),
        Choice::Unknown => Err(DenyReason::RouteUnknown.into()),
    }
}

fn method_unlisted(methods: &[&str]) -> Stop {
    let allow = methods.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    Stop::Refused(Refusal { allow: Some(allow.into()), ..Refusal::from(DenyReason::MethodUnlisted) })
}
