//! The sandbox's profile, from what the view says of the service: its files, flows, limits and environment.
//!
//! Guarantees: I2, I3, I7 as far as the manifest declares them; F8 nothing secret is in the environment.
//! Not here:   how each part is enforced (`sandbox`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::control::ServiceProfile;
use sandbox::{Artefact, Flow, Level, Limits, Profile};

use super::Settings;

/// Where every service listens, inside its own network namespace.
const SERVICE_PORT: u16 = 8080;
/// How long an inbound connection waits for a service that is starting, in milliseconds.
const START_PATIENCE_MS: u64 = 20_000;

/// What `service` may have, with what the guard was told of its folder and its user.
pub(super) fn of(service: &ServiceProfile, settings: &Settings) -> Profile {
    let state_dir = settings.state_dir.as_path();
    let artefact = |path: &str| {
        let digest = service.artefacts.iter().find(|a| a.path == path).map(|a| a.digest.to_hex());
        // Without a digest nothing matches, and nothing starts.
        Artefact { path: PathBuf::from(path), sha256: digest.unwrap_or_default() }
    };
    let program = service.run.first().map(String::as_str).unwrap_or_default();
    let tools: Vec<Artefact> = service.tools.iter().map(|path| artefact(path)).collect();
    let is_executed = |path: &String| path == program || service.tools.contains(path);
    let scripts = service.artefacts.iter().filter(|a| !is_executed(&a.path)).map(|a| artefact(&a.path)).collect();
    let mut read = Profile::system_read();
    read.extend(service.read.iter().map(PathBuf::from));
    let limits = &service.limits;
    let some = |n: u64| if n == 0 { u64::MAX } else { n };
    Profile {
        name: service.name.clone(),
        required_level: if service.isolation == "confined" { Level::Confined } else { Level::Full },
        program: artefact(program),
        arguments: service.run.iter().skip(1).cloned().collect(),
        environment: environment(service, state_dir),
        port: Some(SERVICE_PORT),
        flows: service.outbound.iter().map(|o| Flow { name: o.env.clone(), port: o.port }).collect(),
        tools,
        scripts,
        read,
        state: service.state.then(|| state_dir.to_path_buf()),
        work_dir: None,
        limits: Limits {
            memory_bytes: some(limits.memory_bytes),
            processes: some(limits.pids),
            open_files: some(limits.files),
            file_bytes: some(limits.file_bytes),
            cpu_seconds: None,
            cpu_cores: (limits.cpu > 0.0).then_some(limits.cpu),
            wall_ms: None,
            tmp_bytes: some(limits.tmp_bytes),
        },
        run_as_id: settings.run_as_id,
        start_patience_ms: START_PATIENCE_MS,
        dangerous_simulate: sandbox::Simulate::default(),
    }
}

/// What the service finds in its environment: where its neighbours are, all on loopback, and nothing secret (F8).
fn environment(service: &ServiceProfile, state_dir: &Path) -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME", "/tmp".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PORT", SERVICE_PORT.to_string()),
        // The guard signs for the service: any S3 client is content with these.
        ("AWS_ACCESS_KEY_ID", "palisade".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "palisade".to_owned()),
        ("AWS_REGION", "local".to_owned()),
    ];
    let mut environment: BTreeMap<String, String> = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if service.state {
        environment.insert("STATE_DIR".to_owned(), state_dir.display().to_string());
    }
    for outbound in &service.outbound {
        let scheme = if outbound.is_tcp() { "tcp" } else { "http" };
        environment.insert(outbound.env.clone(), format!("{scheme}://127.0.0.1:{}", outbound.port));
    }
    environment
}
