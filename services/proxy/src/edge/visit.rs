//! A visit: a request from outside, once it is known that it can be read in one way only, and stripped of what strangers may not say.
//!
//! Nothing of a visit's headers claims an identity any more; its credential stands apart, so that it cannot travel on by accident.
//!
//! Spec:       RFC 9110 sections 7.2 (Host) and 7.6.1; W3C Trace Context section 3.4; Fetch Metadata (`Sec-Fetch-Site`).
//! Guarantees: A4, A5, A11 (credentials are taken out here), A14 (cross-site), J5 (a stranger's trace is noted, never joined).
//! Not here:   whether the credential is good (`person`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use contract::control::EdgeProfile;
use contract::{Body, dpop, opaque};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, header};
use telemetry::Shown;
use trust::{DenyReason, Secret};

use super::client_certificate::ClientCertificate;
use super::cookie;
use super::cors::{self, Preflight};
use super::destination::{Asked, Destination};
use super::listen::Door;
use super::session::Reference;
use super::stop::Stop;
use crate::account::Account;
use crate::websocket::Opening;
use crate::{canonical, headers};

/// Headers by which tracing systems name a trace or carry things along it, besides those of `headers::names_trace`.
const TRACE_HEADERS: &[&str] = &["baggage", "uber-trace-id", "x-request-id", "x-cloud-trace-context", "x-amzn-trace-id"];
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// The other place for an API key, which many clients know of gateways.
const KEY_HEADER: &str = "x-api-key";

/// Where the edge is, as browsers write it.
///
/// Tokens and sessions are for one origin: that of `localhost` if it is among the hosts, else of the first. Pages at the other hosts lead
/// there. Presigned URLs are for that one, too, or for a host of their own, where there is nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Host names, lower-case.
    pub hosts: BTreeSet<String>,
    /// The host among them that presigned URLs are for, if they have one of their own.
    pub content: Option<String>,
    /// Port that browsers use.
    pub port: u16,
}

/// What a request shows to say who makes it.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nothing.
    Nothing,
    /// A session's id.
    Session(Reference),
    /// A session cookie that is none.
    SessionMalformed,
    /// An access token.
    Token {
        /// It.
        token: Secret<String>,
        /// How it is shown.
        scheme: Scheme,
    },
}

/// How an access token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Whoever bears it (RFC 6750, section 2.1).
    Bearer,
    /// With a proof of the key that it is bound to (RFC 9449, section 7.1).
    Dpop,
}

/// Where a request was made, as far as the browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// On a page of this origin.
    Same,
    /// By the person: typed, or from a bookmark.
    Typed,
    /// Elsewhere.
    Cross,
    /// Not said: not a browser of these years.
    Unsaid,
}

/// A request that was accepted.
#[derive(Debug)]
pub struct Visit {
    /// Address that it came from.
    pub from: IpAddr,
    /// The origin that it was made to: `https://HOST[:PORT]`.
    pub origin: String,
    /// The origin that people sign in at, and that tokens are for.
    pub main: String,
    /// Where it goes.
    pub destination: Destination,
    /// Who it claims to be from.
    pub credential: Credential,
    /// The proof of a key that came with it (RFC 9449).
    pub proof: Option<String>,
    /// The certificate that its connection has shown.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Names the browser while it signs in.
    pub browser: Option<Reference>,
    /// Where it was made.
    pub site: Site,
    /// The other origin that may read the answer, if it was made there and the route names it.
    pub reader: Option<String>,
    /// It was made to the host of what people have stored.
    pub apart: bool,
    /// `Authorization`, `DPoP` and cookies that are `login`'s business; nobody else gets them.
    pub for_login: HeaderMap,
    /// It opens a WebSocket.
    pub opening: Option<Opening>,
    /// Method, target and the rest of the headers.
    pub head: Parts,
}

impl Place {
    /// The host that a request names, lower-case.
    ///
    /// # Errors
    /// `RequestAmbiguous` for a host that is not written plainly; `HostUnknown` when it is not one of ours.
    pub fn host<'h>(&self, host: &'h str) -> Result<Cow<'h, str>, DenyReason> {
        // As browsers write it, nearly always; everything else is read as carefully as it needs.
        if let Some(name) = self.written(host) {
            return Ok(Cow::Borrowed(name));
        }
        let authority: Authority = host.parse().map_err(|_| DenyReason::RequestAmbiguous)?;
        let name = authority.host().to_ascii_lowercase();
        let written_plainly =
            authority.as_str().len() == authority.host().len() + authority.port().map_or(0, |p| p.as_str().len().saturating_add(1));
        if !written_plainly {
            return Err(DenyReason::RequestAmbiguous);
        }
        if !self.hosts.contains(&name) || authority.port_u16().unwrap_or(443) != self.port {
            return Err(DenyReason::HostUnknown);
        }
        Ok(Cow::Owned(name))
    }

    /// The name, if it is one of our hosts, with our port, as `origin_of` would write it.
    fn written<'h>(&self, host: &'h str) -> Option<&'h str> {
        let name = match (self.port, host.rsplit_once(':')) {
            (443, None) => host,
            (443, Some(_)) | (_, None) => return None,
            (port, Some((name, digits))) if !digits.starts_with(['0', '+']) && digits.parse() == Ok(port) => name,
            _ => return None,
        };
        self.hosts.contains(name).then_some(name)
    }

    /// The origin that people sign in at.
    #[must_use]
    pub fn origin_main(&self) -> String {
        let for_people = || self.hosts.iter().filter(|host| Some(*host) != self.content.as_ref());
        let main = for_people().find(|host| *host == "localhost").or_else(|| for_people().next());
        self.origin_of(main.map_or("localhost", String::as_str))
    }

    /// The origin of what people have stored, if it has one of its own.
    #[must_use]
    pub fn origin_of_content(&self) -> Option<String> {
        self.content.as_deref().map(|host| self.origin_of(host))
    }

    fn origin_of(&self, name: &str) -> String {
        if self.port == 443 { format!("https://{name}") } else { format!("https://{name}:{}", self.port) }
    }
}

impl Visit {
    /// Reads a request; its body is given back untouched.
    ///
    /// # Errors
    /// `RequestAmbiguous`, `HostUnknown`, `RouteUnknown`, `MethodUnlisted`.
    pub fn read(
        place: &Place,
        profile: &EdgeProfile,
        from: IpAddr,
        mut request: Request<Body>,
        account: &mut Account,
    ) -> Result<(Self, Body), Stop> {
        let opening = Opening::take(&mut request)?;
        let (mut head, body) = request.into_parts();
        let certificate = head.extensions.remove::<Arc<ClientCertificate>>();
        let ambiguous = |_| Stop::from(DenyReason::RequestAmbiguous);
        let path = canonical::request(&head.method, &head.uri, head.version, &head.headers).map_err(ambiguous)?;
        let host = place.host(host(&head).ok_or(DenyReason::RequestAmbiguous)?)?;
        if head.extensions.get::<Door>().is_some_and(|door| !door.leads_to(&host)) {
            return Err(DenyReason::HostUnknown.into());
        }
        let (origin, main) = (place.origin_of(&host), place.origin_main());
        let has_own_routes = origin != main && profile.routes.iter().any(|route| route.host.as_deref() == Some(&*host));
        let asked = Asked { host: has_own_routes.then_some(&*host), fields: &head.headers };
        let apart = place.content.as_deref() == Some(&*host);
        let preflight = match apart {
            true => Preflight::of_content(profile, &main, &head.method, &head.headers, path),
            false => Preflight::find(profile, asked, &head.method, path),
        };
        let destination = match preflight {
            Some(preflight) => Destination::Preflight(preflight),
            None if apart => Destination::of_content(profile, &head.method, path)?,
            None => Destination::find(profile, asked, &head.method, path)?,
        };
        if place.content.is_some() && !apart && matches!(destination, Destination::Presigned { .. }) {
            return Err(DenyReason::RouteUnknown.into());
        }
        let name = destination.name(&head.method);
        account.act(destination.action(), &name, &name);
        if opening.is_some() && !destination.takes_websockets() {
            return Err(DenyReason::UpgradeUnlisted.into());
        }
        if origin != main && !has_own_routes && !apart {
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            let leads_on = destination.is_page() && head.method == Method::GET;
            let elsewhere = Stop::Redirected { reason: DenyReason::RouteUnknown, to: format!("{main}{target}") };
            return Err(if leads_on { elsewhere } else { DenyReason::RouteUnknown.into() });
        }
        if let Some(stranger) = headers::trace(&head.headers) {
            account.note("claimed_trace", stranger.trace_hex());
        }
        let fields = &mut head.headers;
        let site = if opening.is_some() { Site::of_opening(fields, &origin) } else { Site::of(fields, &origin) };
        let reader = if apart { cors::reader_of_content(&main, fields) } else { cors::reader(&destination, fields) };
        let (mut credential, proof) = (credential(fields)?, proof(fields)?);
        if has_own_routes && matches!(credential, Credential::Session(_)) {
            // Nobody signs in here, so no browser has a session here.
            credential = Credential::SessionMalformed;
        }
        if apart {
            // Whoever has a URL has it; nothing that a browser or a program adds makes it more.
            credential = Credential::Nothing;
        }
        let browser = cookie::find(fields, cookie::SIGN_IN)?.and_then(|text| Reference::parse(&text));
        let for_login = if matches!(destination, Destination::Login { .. }) { kept_for_login(fields) } else { HeaderMap::new() };
        cleanse(fields);
        Ok((
            Self {
                from,
                origin,
                main,
                destination,
                credential,
                proof,
                certificate,
                browser,
                site,
                reader,
                apart,
                for_login,
                opening,
                head,
            },
            body,
        ))
    }

    /// What it shows to say who makes it, for the access log.
    #[must_use]
    pub fn shown(&self) -> Shown {
        match (&self.credential, &self.destination) {
            (_, Destination::Presigned { .. }) => Shown::Presigned,
            (Credential::Nothing, _) => Shown::Nothing,
            (Credential::Session(_) | Credential::SessionMalformed, _) => Shown::Session,
            (Credential::Token { token, .. }, _) if opaque::meant(token.expose()) == Some(opaque::Kind::Key) => Shown::Key,
            (Credential::Token { .. }, _) => Shown::Token,
        }
    }

    /// Path and query as the browser sent them.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// The values of one query parameter, decoded.
    pub fn query(&self, name: &str) -> impl Iterator<Item = String> {
        url::form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes())
            .filter(move |(its_name, _)| its_name == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The one value of a query parameter; none if it is repeated.
    #[must_use]
    pub fn single(&self, name: &str) -> Option<String> {
        let mut values = self.query(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether the method may change something (RFC 9110, section 9.2.1).
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        !matches!(self.head.method, Method::GET | Method::HEAD)
    }
}

impl Site {
    fn of(fields: &HeaderMap, origin: &str) -> Self {
        let mut said = fields.get_all(SEC_FETCH_SITE).iter();
        match (said.next().map(http::HeaderValue::as_bytes), said.next()) {
            (Some(b"same-origin"), None) => return Self::Same,
            (Some(b"none"), None) => return Self::Typed,
            (Some(_), _) => return Self::Cross,
            (None, _) => {}
        }
        let mut origins = fields.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Self::Unsaid,
            (Some(value), None) if value.as_bytes() == origin.as_bytes() => Self::Same,
            _ => Self::Cross,
        }
    }
}

impl Site {
    /// Of a WebSocket's opening, where the page's origin decides (RFC 6455, section 10.2) and nothing else may contradict it.
    fn of_opening(fields: &HeaderMap, origin: &str) -> Self {
        let origins: Vec<_> = fields.get_all(header::ORIGIN).iter().map(http::HeaderValue::as_bytes).collect();
        match (Self::of(fields, origin), origins.as_slice()) {
            (Self::Cross, _) => Self::Cross,
            (_, [one]) if *one == origin.as_bytes() => Self::Same,
            (_, []) => Self::Unsaid,
            _ => Self::Cross,
        }
    }
}

/// Whether somebody who looks at pages asks, as far as the headers tell.
#[must_use]
pub fn wants_page(fields: &HeaderMap) -> bool {
    fields.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

fn host(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(header::HOST)?.to_str().ok(),
    }
}

fn credential(fields: &HeaderMap) -> Result<Credential, DenyReason> {
    let mut authorizations = fields.get_all(header::AUTHORIZATION).iter();
    let token = match (authorizations.next(), authorizations.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => return Err(DenyReason::RequestAmbiguous),
        (Some(value), None) => {
            // Another scheme is a token that we cannot accept.
            let (name, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
            let scheme = if name.eq_ignore_ascii_case("dpop") { Scheme::Dpop } else { Scheme::Bearer };
            let known = scheme == Scheme::Dpop || name.eq_ignore_ascii_case("bearer");
            Some(Credential::Token { token: Secret::new(if known { token.trim() } else { "" }.to_owned()), scheme })
        }
    };
    let token = match (token, key(fields)?) {
        (Some(_), Some(_)) => return Err(DenyReason::RequestAmbiguous),
        (token, key) => token.or(key),
    };
    match (token, cookie::find(fields, cookie::SESSION)?) {
        (Some(_), Some(_)) => Err(DenyReason::RequestAmbiguous),
        (Some(token), None) => Ok(token),
        (None, Some(text)) => Ok(Reference::parse(&text).map_or(Credential::SessionMalformed, Credential::Session)),
        (None, None) => Ok(Credential::Nothing),
    }
}

/// The API key in a field of its own, which takes nothing else.
fn key(fields: &HeaderMap) -> Result<Option<Credential>, DenyReason> {
    let mut keys = fields.get_all(KEY_HEADER).iter();
    match (keys.next(), keys.next()) {
        (_, Some(_)) => Err(DenyReason::RequestAmbiguous),
        (None, None) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().unwrap_or_default().trim();
            let token = if opaque::meant(text) == Some(opaque::Kind::Key) { text } else { "" };
            Ok(Some(Credential::Token { token: Secret::new(token.to_owned()), scheme: Scheme::Bearer }))
        }
    }
}

/// The one proof that a request may have (RFC 9449, section 4.3, number 1).
fn proof(fields: &HeaderMap) -> Result<Option<String>, DenyReason> {
    let mut proofs = fields.get_all(dpop::HEADER).iter();
    match (proofs.next(), proofs.next()) {
        (_, Some(_)) => Err(DenyReason::RequestAmbiguous),
        (proof, None) => Ok(proof.map(|proof| proof.to_str().unwrap_or_default().to_owned())),
    }
}

/// What `login` gets of the credentials: the token and its proof as they came, and the cookies that are not the edge's.
fn kept_for_login(fields: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    if let Some(value) = fields.get(header::AUTHORIZATION) {
        kept.insert(header::AUTHORIZATION, value.clone());
    }
    if let Some(value) = fields.get(dpop::HEADER) {
        kept.insert(dpop::HEADER, value.clone());
    }
    if let Some(value) = cookie::without_ours(fields) {
        kept.insert(header::COOKIE, value);
    }
    kept
}

fn cleanse(fields: &mut HeaderMap) {
    headers::strip_hop_by_hop_and(fields, |name| {
        let is_credential = headers::is_credential(name) || name == dpop::HEADER || name == KEY_HEADER;
        is_credential || headers::claims_identity(name) || headers::names_trace(name) || TRACE_HEADERS.contains(&name)
    });
}
