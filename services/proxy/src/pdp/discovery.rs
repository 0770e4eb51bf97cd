//! Discovery (xDS) of what an Envoy needs to call services here: its SVID and key and the trust bundle (SDS), and where the guards of the
//! services that it offers listen (EDS); pushed again whenever they change.
//!
//! A service goes by its name or its SPIFFE ID. Secrets have the names that SPIRE's agent gives: `default` or the SPIFFE ID for the SVID; `ROOTCA`, `ALL` or the trust domain's id for the
//! bundle, which comes with Envoy's validator for SPIFFE, so that nothing but an SVID of this trust domain is believed.
//!
//! Spec:       xDS, state of the world (`DiscoveryRequest`, ACK and NACK), envoy.service.secret.v3, envoy.service.endpoint.v3. Deviation: no
//!             incremental variants (`DeltaSecrets`, `DeltaEndpoints`).
//! Guarantees: C9, C12: no SVID that was revoked or has ended is handed on; each handing on of a key is on record first.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contract::Body;
use http::{Request, Response};
use http_body::Frame;
use prost::Message;
use telemetry::event::{ActDone, FaultRaised};
use tokio::sync::watch;
use trust::Digest;

use super::message::{self, Code, Messages};
use super::proxy_svid::{ProxySvid, pem};
use super::wire::{
    Address, Any, CertificateValidationContext, ClusterLoadAssignment, DataSource, DiscoveryRequest, DiscoveryResponse, Endpoint,
    LbEndpoint, LocalityLbEndpoints, Secret, SecretType, SocketAddress, SpiffeValidator, TlsCertificate, TypedExtensionConfig,
    ValidatedDomain,
};
use super::{DecisionPoint, POINT};
use crate::limits;
use crate::passage::Idle;
use crate::view::Loaded;

/// Path of a stream of secrets.
pub(crate) const SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
/// Path of a stream of endpoints.
pub(crate) const ENDPOINTS: &str = "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints";
/// Path of one answer with secrets.
pub(crate) const FETCH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_CONFIG: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// What is asked for on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SDS.
    Secrets,
    /// EDS.
    Endpoints,
}

impl Kind {
    fn type_url(self) -> &'static str {
        match self {
            Self::Secrets => SECRET,
            Self::Endpoints => ENDPOINT,
        }
    }
}

/// Why nothing is handed on.
type Refused = (Code, String);

/// What there is to hand on, at one moment.
struct Present {
    svid: Arc<ProxySvid>,
    view: Arc<Loaded>,
}

impl DecisionPoint {
    fn present(&self) -> Result<Present, Refused> {
        let refused = |reason: trust::DenyReason| (Code::PermissionDenied, reason.code().to_owned());
        let view = self.in_force().map_err(refused)?;
        let svid = self.proxy.standing().map_err(refused)?;
        Ok(Present { svid, view })
    }

    /// The secrets of those names; all of them where none is named.
    fn secrets(&self, present: &Present, names: &[String]) -> Result<Vec<Any>, Refused> {
        let (id, domain) = (self.proxy.id().to_string(), format!("spiffe://{}", self.proxy.id().trust_domain));
        let all = ["default".to_owned(), "ROOTCA".to_owned()];
        let names = if names.is_empty() { &all } else { names };
        let mut found = Vec::with_capacity(names.len());
        let mut hands_on = false;
        for name in names {
            let kind = if *name == "default" || *name == id {
                hands_on = true;
                certificate(&present.svid)
            } else if *name == "ROOTCA" || *name == "ALL" || *name == domain {
                validation(self.proxy.id().trust_domain.as_str(), &present.view.view.roots)?
            } else {
                return Err((Code::InvalidArgument, format!("there is no secret '{}'; ask for default or ROOTCA", printable(name))));
            };
            let secret = Secret { name: name.clone(), kind: Some(kind) };
            found.push(Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() });
        }
        if hands_on {
            let act = ActDone {
                act: "svid.handed_on",
                by: self.views.identity().id().to_string(),
                to: id,
                detail: format!("until {}", present.svid.peer.not_after_s),
            };
            self.recorder.record(None, &act).map_err(|_| (Code::Unavailable, "audit_unavailable".to_owned()))?;
        }
        Ok(found)
    }

    fn response(&self, kind: Kind, present: &Present, names: &[String], nonce: String) -> Result<DiscoveryResponse, Refused> {
        let resources = match kind {
            Kind::Secrets => self.secrets(present, names)?,
            Kind::Endpoints => endpoints(present, names)?,
        };
        Ok(DiscoveryResponse { version_info: version(kind, present), resources, type_url: kind.type_url().to_owned(), nonce })
    }
}

/// Answers once.
pub(crate) async fn fetch(point: &DecisionPoint, request: Request<Body>) -> Response<Body> {
    let asked: DiscoveryRequest = match message::only(request.into_body(), limits::PEP_QUESTION_BYTES_MAX).await {
        Ok(asked) => asked,
        Err(broken) => return message::failed(broken.code(), &broken.to_string()),
    };
    let answer = check(Kind::Secrets, &asked)
        .and_then(|()| point.present())
        .and_then(|present| point.response(Kind::Secrets, &present, &asked.resource_names, String::new()));
    match answer {
        Ok(answer) => message::answer(&answer),
        Err((code, why)) => message::failed(code, &why),
    }
}

/// Answers for as long as the asker listens.
pub(crate) fn stream(kind: Kind, point: Arc<DecisionPoint>, request: Request<Body>) -> Response<Body> {
    if let Some(idle) = request.extensions().get::<Idle>() {
        idle.extend(limits::PEP_STREAM_IDLE_MS);
    }
    let subscription = Subscription {
        kind,
        requests: Messages::new(request.into_body(), limits::PEP_QUESTION_BYTES_MAX),
        svids: point.proxy.changed(),
        views: point.views.changed(),
        point,
        wanted: None,
        sent: None,
        nonce: 0,
        haste: (0, std::time::Duration::ZERO),
        over: false,
    };
    message::streamed(futures::stream::unfold(subscription, |mut subscription| async move {
        let frame = subscription.next().await?;
        Some((frame, subscription))
    }))
}

/// One stream.
struct Subscription {
    kind: Kind,
    point: Arc<DecisionPoint>,
    requests: Messages,
    svids: watch::Receiver<Option<Arc<ProxySvid>>>,
    views: watch::Receiver<u64>,
    /// Names asked for; nothing before the first request.
    wanted: Option<Vec<String>>,
    /// Names and version of what was sent last.
    sent: Option<(Vec<String>, String)>,
    nonce: u64,
    /// Requests that came too soon after each other, and when the last came (monotonic).
    haste: (u32, std::time::Duration),
    over: bool,
}

impl Subscription {
    /// The next frame of the answer.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        while !self.over {
            match self.due() {
                Ok(Some(response)) => return Some(Frame::data(message::framed(&response))),
                Ok(None) => {}
                Err(refused) => return Some(self.end(refused)),
            }
            let heard = tokio::select! {
                message = self.requests.next::<DiscoveryRequest>() => match message {
                    Some(Ok(asked)) => self.hear(asked),
                    Some(Err(broken)) => Err((broken.code(), broken.to_string())),
                    None => Err((Code::Ok, String::new())),
                },
                Ok(()) = self.svids.changed() => Ok(()),
                Ok(()) = self.views.changed() => Ok(()),
                () = self.point.stop.cancelled() => Err((Code::Unavailable, "the decision point ends".to_owned())),
            };
            if let Err(refused) = heard {
                return Some(self.end(refused));
            }
        }
        None
    }

    fn end(&mut self, (code, why): Refused) -> Frame<Bytes> {
        self.over = true;
        message::trailers(code, &why)
    }

    /// What must be sent now, if anything: what is there differs from what was sent.
    fn due(&mut self) -> Result<Option<DiscoveryResponse>, Refused> {
        let Some(names) = &self.wanted else { return Ok(None) };
        let present = self.point.present()?;
        let version = version(self.kind, &present);
        if self.sent.as_ref().is_some_and(|(sent, of)| sent == names && *of == version) {
            return Ok(None);
        }
        self.nonce = self.nonce.saturating_add(1);
        let response = self.point.response(self.kind, &present, names, self.nonce.to_string())?;
        self.sent = Some((names.clone(), version));
        Ok(Some(response))
    }

    /// Takes a request: the first, an acknowledgement, a complaint, or other names.
    fn hear(&mut self, asked: DiscoveryRequest) -> Result<(), Refused> {
        check(self.kind, &asked)?;
        let now = self.point.clock.monotonic();
        let (count, last) = self.haste;
        let soon = now.saturating_sub(last) < std::time::Duration::from_secs(1);
        self.haste = (if soon { count.saturating_add(1) } else { 0 }, now);
        if self.haste.0 > limits::PEP_STREAM_HASTE_MAX {
            return Err((Code::ResourceExhausted, "too many requests on one stream".to_owned()));
        }
        if let Some(complaint) = &asked.error_detail {
            let cause = format!("the enforcement point does not take what it was sent: {}", printable(&complaint.message));
            // What it complains of was handed on; nothing else happens for it.
            let _recorded = self.point.recorder.record(None, &FaultRaised { point: POINT, action: "discovery".to_owned(), cause });
        }
        let stale = !asked.response_nonce.is_empty() && asked.response_nonce != self.nonce.to_string();
        if !stale {
            self.wanted = Some(asked.resource_names);
        }
        Ok(())
    }
}

fn check(kind: Kind, asked: &DiscoveryRequest) -> Result<(), Refused> {
    if !asked.type_url.is_empty() && asked.type_url != kind.type_url() {
        return Err((Code::InvalidArgument, format!("nothing but {} is served here", kind.type_url())));
    }
    let most = match kind {
        Kind::Secrets => limits::PEP_SECRETS_MAX,
        Kind::Endpoints => limits::PEP_ENDPOINTS_MAX,
    };
    if asked.resource_names.len() > most {
        return Err((Code::ResourceExhausted, format!("more than {most} names in one request")));
    }
    Ok(())
}

fn version(kind: Kind, present: &Present) -> String {
    let view = &present.view.view;
    let mut text = String::new();
    match kind {
        Kind::Secrets => {
            text.push_str(&present.svid.digest.to_hex());
            view.roots.iter().for_each(|root| text.push_str(root));
        }
        Kind::Endpoints => {
            for (service, addresses) in view.pep.iter().flat_map(|pep| &pep.services) {
                text.push_str(&format!("{service} {} ", addresses.join(" ")));
            }
        }
    }
    Digest::of(text.as_bytes()).to_hex().chars().take(16).collect()
}

/// Where the guards of those services listen; of all that are offered where none is named.
fn endpoints(present: &Present, names: &[String]) -> Result<Vec<Any>, Refused> {
    let offered = present.view.view.pep.as_ref().map(|pep| &pep.services);
    let services: Vec<(String, &Vec<String>)> = match (names, offered) {
        (_, None) => Vec::new(),
        ([], Some(offered)) => offered.iter().map(|(id, addresses)| (id.to_string(), addresses)).collect(),
        (names, Some(offered)) => names
            .iter()
            .map(|name| {
                let found = offered.iter().find(|(id, _)| id.to_string() == *name || id.as_service() == Some(name));
                let unknown = || (Code::InvalidArgument, format!("'{}' is no service that this enforcement point offers", printable(name)));
                found.map(|(_, addresses)| (name.clone(), addresses)).ok_or_else(unknown)
            })
            .collect::<Result<_, _>>()?,
    };
    let assigned = services.into_iter().map(|(cluster_name, addresses)| {
        let at = addresses.iter().filter_map(|address| address.parse::<std::net::SocketAddr>().ok());
        let lb_endpoints = at.map(|at| {
            let socket = SocketAddress { address: at.ip().to_string(), port_value: u32::from(at.port()) };
            LbEndpoint { endpoint: Some(Endpoint { address: Some(Address { socket: Some(socket) }) }) }
        });
        let locality = LocalityLbEndpoints { lb_endpoints: lb_endpoints.collect() };
        let assignment = ClusterLoadAssignment { cluster_name, endpoints: vec![locality] };
        Any { type_url: ENDPOINT.to_owned(), value: assignment.encode_to_vec() }
    });
    Ok(assigned.collect())
}

fn certificate(svid: &ProxySvid) -> SecretType {
    let inline = |text: &str| Some(DataSource { inline_bytes: text.as_bytes().to_vec() });
    SecretType::Certificate(TlsCertificate { certificate_chain: inline(&svid.chain), private_key: inline(svid.key.expose()) })
}

fn validation(domain: &str, roots: &[String]) -> Result<SecretType, Refused> {
    let broken = |_| (Code::Unavailable, "the trust bundle cannot be read".to_owned());
    let bundle: String =
        roots.iter().map(|root| STANDARD.decode(root).map(|der| pem("CERTIFICATE", &der))).collect::<Result<_, _>>().map_err(broken)?;
    let domain = ValidatedDomain { name: domain.to_owned(), trust_bundle: Some(DataSource { inline_bytes: bundle.into_bytes() }) };
    let config = Any { type_url: VALIDATOR_CONFIG.to_owned(), value: SpiffeValidator { trust_domains: vec![domain] }.encode_to_vec() };
    let validator = TypedExtensionConfig { name: VALIDATOR.to_owned(), typed_config: Some(config) };
    Ok(SecretType::Validation(CertificateValidationContext { custom_validator_config: Some(validator) }))
}

/// A stranger's text, as far as it may stand in a message of ours.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect()
}
