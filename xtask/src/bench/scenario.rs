//! What is measured: the scenarios, and the targets that can do them.

use crate::Outcome;

use super::peers;
use super::rig::Rig;

/// Where everything listens, on loopback.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// What the load asks.
    pub entry: u16,
    /// The second hop.
    pub peer: u16,
    /// The app behind everything.
    pub app: u16,
    /// Where the product ships its records.
    pub evidence: u16,
    /// The product's first guard, behind the shim.
    pub onward: u16,
}

/// A program to start, and whether it is measured.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    pub line: Vec<String>,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
    /// Whether its CPU counts, on the measured core.
    pub counted: bool,
}

impl Program {
    /// One that is measured.
    pub fn measured<T: ToString>(line: impl IntoIterator<Item = T>) -> Self {
        Self { line: line.into_iter().map(|word| word.to_string()).collect(), environment: Vec::new(), counted: true }
    }

    /// One that is not.
    pub fn aside<T: ToString>(line: impl IntoIterator<Item = T>) -> Self {
        Self { counted: false, ..Self::measured(line) }
    }
}

/// A way through one or two proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// S1: the edge alone, TLS 1.3 and a JWT.
    Edge,
    /// S2: the edge and a mesh hop.
    EdgeAndHop,
    /// S3: a mesh hop alone, mTLS from one to the other.
    Hop,
}

impl Scenario {
    pub const ALL: [Self; 3] = [Self::Edge, Self::EdgeAndHop, Self::Hop];

    /// `S1`…
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "S1",
            Self::EdgeAndHop => "S2",
            Self::Hop => "S3",
        }
    }

    /// Whether the load comes with TLS and a token.
    #[must_use]
    pub fn is_public(self) -> bool {
        self != Self::Hop
    }

    /// What must listen before the load begins.
    #[must_use]
    pub fn listening(self, ports: Ports) -> Vec<u16> {
        if self == Self::Edge { vec![ports.entry] } else { vec![ports.entry, ports.peer] }
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The product, with everything on.
    Palisade,
    /// The product with nothing but what must be kept: no spans, no access log.
    RecordsOnly,
    /// Bare hyper and rustls.
    Floor,
    /// HAProxy, at that path.
    HaProxy(String),
    /// Envoy with a cache of verified tokens, at that path.
    Envoy(String),
    /// nginx, at that path; it has no JWT.
    Nginx(String),
}

/// The certificate that the first hop shows to the second: the right one, or that of a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Right,
    Stranger,
}

impl Shown {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Right => "gateway",
            Self::Stranger => "evil",
        }
    }
}

impl Target {
    /// As it is called in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Palisade => "Palisade",
            Self::RecordsOnly => "records only",
            Self::Floor => "floor",
            Self::HaProxy(_) => "HAProxy",
            Self::Envoy(_) => "Envoy",
            Self::Nginx(_) => "nginx",
        }
    }

    /// Whether it takes tokens of that algorithm.
    #[must_use]
    pub fn verifies(&self, algorithm: &str) -> bool {
        !(matches!(self, Self::HaProxy(_)) && algorithm == "EdDSA")
    }

    /// What to start for a scenario; nothing when it cannot do it.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn programs(&self, rig: &Rig, scenario: Scenario, shown: Shown) -> Outcome<Option<Vec<Program>>> {
        match self {
            Self::Palisade => palisade(rig, scenario, shown, &[]).map(Some),
            Self::RecordsOnly => palisade(rig, scenario, shown, &["telemetry=records"]).map(Some),
            Self::Floor => Ok(Some(floor(rig, scenario, shown))),
            Self::HaProxy(path) => peers::haproxy(rig, path, scenario, shown).map(Some),
            Self::Envoy(path) => peers::envoy(rig, path, scenario, shown).map(Some),
            Self::Nginx(path) if scenario == Scenario::Hop => peers::nginx(rig, path, shown).map(Some),
            Self::Nginx(_) => Ok(None),
        }
    }
}

/// Who issues the rig's tokens, for whom, with which scope: as the rig's program has it.
pub(super) const ISSUER: &str = "https://issuer.bench.local";
pub(super) const AUDIENCE: &str = "orders";
pub(super) const SCOPE: &str = "orders:read";
/// The SPIFFE IDs of the two hops.
pub(super) const FIRST: &str = "spiffe://bench.local/service/front";
pub(super) const SECOND: &str = "spiffe://bench.local/service/app";

fn tokens(rig: &Rig) -> [String; 4] {
    [format!("jwks={}", rig.file("jwks.json")), format!("iss={ISSUER}"), format!("aud={AUDIENCE}"), format!("scope={SCOPE}")]
}

fn certificate(rig: &Rig, name: &str) -> [String; 2] {
    [format!("cert={}", rig.file(&format!("{name}.pem"))), format!("key={}", rig.file(&format!("{name}.key")))]
}

/// The product, told more than usual if need be.
fn palisade(rig: &Rig, scenario: Scenario, shown: Shown, told: &[&str]) -> Outcome<Vec<Program>> {
    let ports = rig.ports;
    // The first hop writes both anew; what an earlier run left must not be taken for it.
    let authority = rig.config("authority.json", "")?;
    std::fs::write(rig.folder("world").join("token"), "")?;
    let authority = format!("authority={authority}");
    let line = |mode: &str, more: Vec<String>| {
        let mut line =
            vec![rig.program.display().to_string(), mode.to_owned(), rig.told("world", "world"), format!("evidence={}", ports.evidence)];
        line.extend(more);
        line.extend(told.iter().map(|word| (*word).to_owned()));
        line
    };
    let listen = |port: u16| format!("listen={port}");
    let ident = format!("ident={}", shown.name());
    let evidence = Program::aside(line("evidence", vec![listen(ports.evidence)]));
    let edge = |more: Vec<String>| {
        let told = [vec![listen(ports.entry)], tokens(rig).to_vec(), certificate(rig, "gateway").to_vec(), more].concat();
        Program::measured(line("edge", told))
    };
    let inbound = || Program::measured(line("guard-in", vec![listen(ports.peer), format!("app={}", ports.app), authority.clone()]));
    Ok(match scenario {
        Scenario::Edge => vec![evidence, edge(vec![format!("app={}", ports.app)])],
        Scenario::EdgeAndHop => vec![evidence, edge(vec![format!("guard={}", ports.peer), ident, authority.clone()]), inbound()],
        Scenario::Hop => {
            let mut shim = Program::aside(line("shim", vec![listen(ports.entry), format!("to={}", ports.onward)]));
            shim.environment.push(("RIG_TOKEN".to_owned(), rig.folder("world").join("token").display().to_string()));
            let outbound = line("guard-out", vec![listen(ports.onward), format!("peer={}", ports.peer), ident, authority.clone()]);
            vec![evidence, shim, Program::measured(outbound), inbound()]
        }
    })
}

fn floor(rig: &Rig, scenario: Scenario, shown: Shown) -> Vec<Program> {
    let ports = rig.ports;
    let hop = |port: u16, to: u16, more: Vec<String>| {
        let told = vec![rig.program.display().to_string(), "floor".to_owned(), format!("listen={port}"), format!("to={to}")];
        Program::measured([told, more].concat())
    };
    let ca = rig.file("ca.pem");
    let public = [certificate(rig, "gateway").to_vec(), tokens(rig).to_vec()].concat();
    let onward = vec![
        format!("up-ca={ca}"),
        format!("up-cert={}", rig.file(&format!("{}.pem", shown.name()))),
        format!("up-key={}", rig.file(&format!("{}.key", shown.name()))),
        format!("up-id={SECOND}"),
    ];
    let second = || {
        let peer = vec![format!("client-ca={ca}"), format!("allow={FIRST}")];
        hop(ports.peer, ports.app, [certificate(rig, "app").to_vec(), peer].concat())
    };
    match scenario {
        Scenario::Edge => vec![hop(ports.entry, ports.app, public)],
        Scenario::EdgeAndHop => vec![hop(ports.entry, ports.peer, [public, onward].concat()), second()],
        Scenario::Hop => vec![hop(ports.entry, ports.peer, onward), second()],
    }
}
