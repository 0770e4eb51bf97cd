//! The `edge` role: the public gateway.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use breach::Control;
use contract::Transport;
use proxy::client::Patience;
use proxy::edge::{
    Acme, AcmeSettings, Balancers, CertificateFiles, Certificates, ClientAuthorities, DangerousWithout, Edge, Entrance, Limits, Parts,
    Place, Sessions,
};
use serde::{Deserialize, Serialize};
use trust::{Fault, Network, SpiffeId};

use super::sealer;
use crate::access_log::{self, AccessLog};
use crate::process::{Peers, Process, StartError};

/// What it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Host names.
    pub hosts: Vec<String>,
    /// The host among them that presigned URLs are for, if they have one of their own.
    pub content: Option<String>,
    /// Port that browsers use.
    pub port: u16,
    /// Where `identity` puts the HTTPS certificate of this machine's own hosts, and its key.
    pub tls_dir: PathBuf,
    /// Hosts of this machine alone.
    pub local_hosts: Vec<String>,
    /// Certificates that were brought.
    pub certificates: Vec<Brought>,
    /// Certificates by ACME.
    pub acme: Option<Authority>,
    /// Load balancers that say whom they connect for.
    pub balancers: Vec<Network>,
    /// PEM file of the authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// A session ends after so many seconds without a request.
    pub session_idle_s: u64,
    /// A session ends after so many seconds.
    pub session_life_s: u64,
    /// How much one may ask for.
    pub limits: Told,
    /// Where each request gets a line.
    pub access_log: access_log::Settings,
}

/// Limits that the manifest sets; what is absent is the edge's standard.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Requests a second of one address, and at once.
    pub address: Option<(NonZeroU32, NonZeroU32)>,
    /// Requests a second of one person, and at once.
    pub person: Option<(NonZeroU32, NonZeroU32)>,
    /// Requests of one address under way.
    pub address_in_flight: Option<usize>,
    /// Requests of one person under way.
    pub person_in_flight: Option<usize>,
    /// Requests under way in all.
    pub in_flight: Option<usize>,
    /// Connections of one address.
    pub address_connections: Option<usize>,
}

impl From<manifest::EdgeLimits> for Told {
    fn from(of: manifest::EdgeLimits) -> Self {
        let rate = |rate: manifest::Rate| Some((NonZeroU32::new(rate.requests)?, NonZeroU32::new(rate.burst)?));
        let count = |count: Option<u32>| count.and_then(|count| usize::try_from(count).ok());
        Self {
            address: of.address.and_then(rate),
            person: of.person.and_then(rate),
            address_in_flight: count(of.address_in_flight),
            person_in_flight: count(of.person_in_flight),
            in_flight: count(of.in_flight),
            address_connections: count(of.address_connections),
        }
    }
}

impl Told {
    /// All of them.
    #[must_use]
    pub fn limits(self) -> Limits {
        let standard = Limits::standard();
        let (address_rate, address_burst) = self.address.unwrap_or((standard.address_rate, standard.address_burst));
        let (person_rate, person_burst) = self.person.unwrap_or((standard.person_rate, standard.person_burst));
        Limits {
            address_rate,
            address_burst,
            person_rate,
            person_burst,
            address_in_flight_max: self.address_in_flight.unwrap_or(standard.address_in_flight_max),
            person_in_flight_max: self.person_in_flight.unwrap_or(standard.person_in_flight_max),
            in_flight_max: self.in_flight.unwrap_or(standard.in_flight_max),
            address_connections_max: self.address_connections.unwrap_or(standard.address_connections_max),
            ..standard
        }
    }
}

/// A certificate that was brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brought {
    /// Its name in the manifest.
    pub name: String,
    /// Hosts that it is shown for.
    pub hosts: Vec<String>,
    /// PEM file of the chain.
    pub chain: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// An ACME authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its directory.
    pub directory: String,
    /// Hosts with a certificate each.
    pub hosts: Vec<String>,
    /// Where it may write to.
    pub contact: Vec<String>,
    /// PEM file of the directory's root.
    pub root: Option<PathBuf>,
}

impl Settings {
    /// The files of every certificate but those of ACME.
    fn files(&self) -> Vec<CertificateFiles> {
        let brought = self.certificates.iter().cloned();
        let mut all: Vec<_> = brought.map(|Brought { name, hosts, chain, key }| CertificateFiles { name, hosts, chain, key }).collect();
        if !self.local_hosts.is_empty() {
            all.push(CertificateFiles {
                name: "local".to_owned(),
                hosts: self.local_hosts.clone(),
                chain: self.tls_dir.join("chain.pem"),
                key: self.tls_dir.join("key.pem"),
            });
        }
        all
    }
}

/// Runs it.
///
/// # Errors
/// `Refused` when certificate or database cannot be used; `Failed` when something may be gone at the next try.
pub async fn run(process: Arc<Process>) -> Result<(), StartError> {
    let settings: Settings = process.settings()?;
    let joined = process.join().await?;
    process.first_view(&joined.view).await?;
    let certificates = Certificates::open(settings.files()).map_err(StartError::refused_by)?;
    let acme = acme(&process, &settings, &certificates)?;
    let (clock, entropy) = (process.clock.clone(), process.entropy.clone());
    let database = process.boot.dir.join("sessions.db");
    let sessions = Sessions::open(&database, settings.session_idle_s, settings.session_life_s, clock.clone(), entropy.clone());
    let sessions = sessions.await.map_err(StartError::refused_by)?;
    // An upload or a long answer is under way for as long as bytes move; the head of an answer may wait for a service that starts.
    let peers = joined.peers(Patience::Call);
    let clients = settings.client_ca.as_deref().map_or_else(|| Ok(ClientAuthorities::none()), ClientAuthorities::load);
    let clients = clients.map_err(StartError::refused_by)?;
    let (metrics, log) = (process.recorder.metrics().clone(), settings.access_log.clone());
    let log = AccessLog::start(log, clock.clone(), metrics).map_err(StartError::refused_by)?;
    let without = |control| process.goes_without(control);
    let dangerous_without = DangerousWithout {
        signature: without(Control::SignIn),
        scope: without(Control::Scope),
        step_up: without(Control::StepUp),
        role: without(Control::Role),
    };
    let limits = if without(Control::Limits) { Limits::dangerous_none() } else { settings.limits.limits() };
    let parts = Parts {
        place: Place { hosts: settings.hosts.iter().cloned().collect(), content: settings.content.clone(), port: settings.port },
        limits,
        clients,
        views: joined.view.clone(),
        sessions,
        peers: Arc::new(Viewed(peers)),
        recorder: process.recorder.clone().with_access_log(log.clone()),
        clock,
        entropy,
    };
    let edge = match dangerous_without == DangerousWithout::default() {
        true => Edge::new(parts),
        false => Edge::dangerous_new(parts, dangerous_without),
    };
    let edge = edge.map_err(StartError::failed_by)?;
    let listener = process.listeners().tcp("public")?;
    process.wait_until_minting(&joined).await?;
    process.ready(None).await;
    let entrance = Entrance { certificates, balancers: Balancers::of(settings.balancers), acme: acme.is_some() };
    if let Some(acme) = acme {
        tokio::spawn(acme.run(process.stop.clone()));
    }
    let ran = edge.run(listener, entrance, process.stop.clone()).await;
    log.finish();
    ran.map_err(StartError::failed_by)?;
    process.finish(&joined.identity).await
}

fn acme(process: &Process, settings: &Settings, certificates: &Arc<Certificates>) -> Result<Option<Acme>, StartError> {
    let Some(told) = settings.acme.clone() else { return Ok(None) };
    let sealer = sealer(process, "edge")?;
    let folder = process.boot.dir.join("acme");
    let told = AcmeSettings { directory: told.directory, hosts: told.hosts, contact: told.contact, root: told.root, folder };
    let (recorder, clock, entropy) = (process.recorder.clone(), process.clock.clone(), process.entropy.clone());
    Acme::open(told, sealer, Arc::clone(certificates), recorder, clock, entropy).map(Some).map_err(StartError::refused_by)
}

#[derive(Debug)]
struct Viewed(Arc<Peers>);

impl proxy::edge::Peers for Viewed {
    fn transport(&self, peer: &SpiffeId) -> Result<Arc<dyn Transport>, Fault> {
        Ok(self.0.transport(peer)?)
    }
}
