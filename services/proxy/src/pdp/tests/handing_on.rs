//! Secrets by SDS: what is handed on, pushed again when it changes, and no longer once it may not be used.

use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use futures::SinkExt;
use futures::channel::mpsc;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::world::World;
use crate::limits;
use crate::pdp::discovery::{ENDPOINTS, FETCH, SECRETS};
use crate::pdp::message;
use crate::pdp::wire::{Any, ClusterLoadAssignment, DiscoveryRequest, DiscoveryResponse, Secret, SecretType, SpiffeValidator, Status};

/// One stream, from its asker's side.
struct Asker {
    requests: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    answers: Body,
}

impl Asker {
    async fn new(world: &World) -> Self {
        Self::of(world, SECRETS).await
    }

    async fn of(world: &World, path: &str) -> Self {
        let (requests, stream) = mpsc::channel(256);
        let request = Request::post(path).header("content-type", "application/grpc").body(StreamBody::new(stream).boxed_unsync()).unwrap();
        let answers = world.answer(request).await.into_body();
        Self { requests, answers }
    }

    async fn ask(&mut self, asked: DiscoveryRequest) {
        self.requests.send(Ok(Frame::data(message::framed(&asked)))).await.unwrap();
    }

    async fn names(&mut self, names: &[&str]) {
        self.ask(DiscoveryRequest { resource_names: names.iter().map(|name| (*name).to_owned()).collect(), ..Default::default() }).await;
    }

    /// The next answer; or how the stream ended.
    async fn hear(&mut self) -> Result<DiscoveryResponse, (String, String)> {
        let frame =
            tokio::time::timeout(Duration::from_secs(20), self.answers.frame()).await.expect("an answer").expect("not over").unwrap();
        match frame.into_data() {
            Ok(data) => Ok(DiscoveryResponse::decode(data.slice(5..)).unwrap()),
            Err(frame) => {
                let fields = frame.into_trailers().unwrap();
                let said = |name: &str| fields.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
                Err((said("grpc-status"), said("grpc-message")))
            }
        }
    }

    /// Nothing comes.
    async fn hears_nothing(&mut self) {
        let frame = tokio::time::timeout(Duration::from_millis(200), self.answers.frame()).await;
        assert!(frame.is_err(), "{frame:?}");
    }

    async fn acknowledge(&mut self, answer: &DiscoveryResponse, names: &[&str]) {
        self.ask(DiscoveryRequest {
            version_info: answer.version_info.clone(),
            response_nonce: answer.nonce.clone(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            type_url: answer.type_url.clone(),
            error_detail: None,
        })
        .await;
    }
}

fn secret(any: &Any) -> Secret {
    assert_eq!(any.type_url, "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret");
    Secret::decode(any.value.as_slice()).unwrap()
}

/// The certificate of an answer, with the key that must be its.
fn leaf(secret: &Secret) -> CertificateDer<'static> {
    let Some(SecretType::Certificate(certificate)) = &secret.kind else { panic!("{secret:?}") };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&certificate.certificate_chain.clone().unwrap().inline_bytes).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&certificate.private_key.clone().unwrap().inline_bytes).unwrap();
    rustls::sign::CertifiedKey::from_der(chain.clone(), key, &crate::tls::provider()).expect("a key of its certificate");
    chain[0].clone()
}

fn validator(secret: &Secret) -> SpiffeValidator {
    let Some(SecretType::Validation(validation)) = &secret.kind else { panic!("{secret:?}") };
    let custom = validation.custom_validator_config.clone().unwrap();
    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
    SpiffeValidator::decode(custom.typed_config.unwrap().value.as_slice()).unwrap()
}

// E21, C9
#[tokio::test]
async fn the_svid_and_the_bundle_are_handed_on_by_the_names_that_spire_gives_and_pushed_when_they_change() {
    let world = World::new();
    let mut asker = Asker::new(&world).await;
    asker.names(&["default", "ROOTCA"]).await;
    let first = asker.hear().await.unwrap();
    let (svid, bundle) = (secret(&first.resources[0]), secret(&first.resources[1]));
    assert_eq!((svid.name.as_str(), bundle.name.as_str()), ("default", "ROOTCA"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf(&svid))
        .map(|(rest, cert)| (rest.len(), cert.subject_alternative_name().unwrap().unwrap().value.general_names[0].to_string()))
        .unwrap();
    assert!(parsed.contains("spiffe://video.example/pep/envoy"), "{parsed}");
    let domains = validator(&bundle).trust_domains;
    assert_eq!((domains.len(), domains[0].name.as_str()), (1, "video.example"));
    let root = CertificateDer::from_pem_slice(&domains[0].trust_bundle.clone().unwrap().inline_bytes).unwrap();
    assert_eq!(world.ours.bundle().roots(), [base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &root)]);
    let handed = |world: &World| world.audit().iter().filter(|r| r.event == "ActDone" && r.fields["act"] == "svid.handed_on").count();
    assert_eq!(handed(&world), 1, "on record");

    asker.acknowledge(&first, &["default", "ROOTCA"]).await;
    asker.hears_nothing().await;
    // A view that changes nothing of this brings nothing either.
    world.later(|_| ());
    asker.hears_nothing().await;

    world.renew(3000);
    let second = asker.hear().await.unwrap();
    assert_ne!(second.version_info, first.version_info);
    assert_ne!(leaf(&secret(&second.resources[0])), leaf(&svid));
    // An answer to the one before is no question.
    asker.acknowledge(&first, &["default"]).await;
    asker.hears_nothing().await;
    // Complaints are on record, and answered with nothing new.
    asker
        .ask(DiscoveryRequest {
            response_nonce: second.nonce.clone(),
            resource_names: vec!["default".into(), "ROOTCA".into()],
            error_detail: Some(Status { code: 3, message: "bad key".into() }),
            ..Default::default()
        })
        .await;
    asker.hears_nothing().await;
    assert_eq!(handed(&world), 2);
    // Other names, by the ids this time.
    asker
        .ask(DiscoveryRequest {
            response_nonce: second.nonce.clone(),
            resource_names: vec!["spiffe://video.example/pep/envoy".into(), "spiffe://video.example".into(), "ALL".into()],
            ..Default::default()
        })
        .await;
    let third = asker.hear().await.unwrap();
    assert_eq!(leaf(&secret(&third.resources[0])), leaf(&secret(&second.resources[0])));
    assert_eq!(validator(&secret(&third.resources[2])), validator(&bundle));
    drop(asker.requests);
    let frame = asker.answers.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(frame["grpc-status"], "0", "the asker has ended it");
}

// C12: from the moment that it is revoked nothing is handed on.
#[tokio::test]
async fn a_stream_ends_when_the_identity_is_revoked_or_the_process_drains() {
    let world = World::new();
    let mut asker = Asker::new(&world).await;
    asker.names(&["default"]).await;
    asker.hear().await.unwrap();
    world.revoke(&world.domain.pep("envoy"));
    assert_eq!(asker.hear().await.unwrap_err(), ("7".to_owned(), "svid_revoked".to_owned()));
    let mut again = Asker::new(&world).await;
    again.names(&["ROOTCA"]).await;
    assert_eq!(again.hear().await.unwrap_err().0, "7");

    let world = World::new();
    let mut asker = Asker::new(&world).await;
    asker.names(&[]).await;
    assert_eq!(asker.hear().await.unwrap().resources.len(), 2, "all of them");
    world.stop.cancel();
    assert_eq!(asker.hear().await.unwrap_err().0, "14");
}

// A13
#[tokio::test]
async fn what_is_asked_for_in_vain_or_too_often_ends_the_stream() {
    let world = World::new();
    let mut unknown = Asker::new(&world).await;
    unknown.names(&["default", "other"]).await;
    let (code, why) = unknown.hear().await.unwrap_err();
    assert!(code == "3" && why.contains("there is no secret 'other'"), "{why}");

    let mut kind = Asker::new(&world).await;
    kind.ask(DiscoveryRequest { type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(), ..Default::default() }).await;
    assert_eq!(kind.hear().await.unwrap_err().0, "3");

    let names = |count: usize| vec!["ROOTCA"; count];
    let mut most = Asker::new(&world).await;
    most.names(&names(limits::PEP_SECRETS_MAX)).await;
    assert_eq!(most.hear().await.unwrap().resources.len(), limits::PEP_SECRETS_MAX);
    let mut many = Asker::new(&world).await;
    many.names(&names(limits::PEP_SECRETS_MAX + 1)).await;
    assert_eq!(many.hear().await.unwrap_err().0, "8");

    // The clock of this world stands still, so every request comes in the same second; the first comes at its very beginning.
    let mut hasty = Asker::new(&world).await;
    for _ in 0..limits::PEP_STREAM_HASTE_MAX {
        hasty.ask(DiscoveryRequest { response_nonce: "stale".into(), ..Default::default() }).await;
    }
    hasty.names(&["ROOTCA"]).await;
    assert_eq!(hasty.hear().await.unwrap_err().0, "8");
    let mut patient = Asker::new(&world).await;
    for _ in 1..limits::PEP_STREAM_HASTE_MAX {
        patient.ask(DiscoveryRequest { response_nonce: "stale".into(), ..Default::default() }).await;
    }
    patient.names(&["ROOTCA"]).await;
    patient.hear().await.unwrap();
}

#[tokio::test]
async fn one_answer_may_be_fetched_and_without_a_record_none_is() {
    let world = World::new();
    let asked = DiscoveryRequest { resource_names: vec!["default".into()], ..Default::default() };
    let framed = message::framed(&asked).to_vec();
    let (answer, status, _) = world.call(FETCH, framed.clone()).await;
    assert_eq!(status, "0");
    leaf(&secret(&DiscoveryResponse::decode(answer.unwrap()).unwrap().resources[0]));
    world.sink.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let (answer, status, why) = world.call(FETCH, framed).await;
    assert_eq!((answer, status.as_str(), why.as_str()), (None, "14", "audit_unavailable"));
    let delta = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
    assert_eq!(world.call(delta, Vec::new()).await.1, "12");
}

// E21: where the services are that it offers; and no others.
#[tokio::test]
async fn the_guards_of_what_is_offered_are_told_and_told_again_when_they_move() {
    let world = World::new();
    let mut asker = Asker::of(&world, ENDPOINTS).await;
    asker.names(&["api"]).await;
    let told = |answer: &DiscoveryResponse| {
        let assigned = ClusterLoadAssignment::decode(answer.resources[0].value.as_slice()).unwrap();
        let sockets = assigned.endpoints[0].lb_endpoints.iter().map(|e| e.endpoint.clone().unwrap().address.unwrap().socket.unwrap());
        (assigned.cluster_name.clone(), sockets.map(|s| format!("{}:{}", s.address, s.port_value)).collect::<Vec<_>>())
    };
    let first = asker.hear().await.unwrap();
    assert_eq!(first.type_url, "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
    assert_eq!(told(&first), ("api".to_owned(), vec!["127.0.0.1:4001".to_owned(), "127.0.0.1:4002".to_owned()]));
    world.renew(3000);
    asker.hears_nothing().await;
    let api = world.domain.service("api");
    world.later(|view| view.pep.as_mut().unwrap().services = [(api.clone(), vec!["127.0.0.1:5001".to_owned()])].into());
    assert_eq!(told(&asker.hear().await.unwrap()).1, ["127.0.0.1:5001"]);
    let mut by_id = Asker::of(&world, ENDPOINTS).await;
    by_id.names(&["spiffe://video.example/service/api"]).await;
    assert_eq!(told(&by_id.hear().await.unwrap()).0, "spiffe://video.example/service/api");
    let mut other = Asker::of(&world, ENDPOINTS).await;
    other.names(&["front"]).await;
    assert_eq!(other.hear().await.unwrap_err().0, "3");
    assert_eq!(world.audit().iter().filter(|r| r.event == "ActDone").count(), 0, "no key was handed on");
}
