//! The sandbox's profile, from what the view says of the service: its files, flows, limits and environment.
//!
//! Guarantees: I2, I3, I6, I7 as far as the manifest declares them; F8 nothing secret is in the environment.
//! Not here:   how each part is enforced (`sandbox`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use contract::control::ServiceProfile;
use sandbox::{Artefact, ArtefactMismatch, Backend, Calls, DangerousWithout, Flow, Level, Limits, Profile, SandboxError};
use trust::Digest;

use super::Settings;

/// Where every service listens, inside its own network namespace.
const SERVICE_PORT: u16 = 8080;
/// How long an inbound connection waits for a service that is starting, in milliseconds.
const START_PATIENCE_MS: u64 = 20_000;

/// Longest list of system calls, bytes.
const CALLS_BYTES_MAX: u64 = 64 * 1024;

/// What `service` may have, with what the guard was told of its folder and its user.
///
/// # Errors
/// When the service has a list of system calls that cannot be read, or is not the locked one.
pub(super) fn of(service: &ServiceProfile, settings: &Settings) -> Result<Profile, SandboxError> {
    let state_dir = settings.state_dir.as_path();
    let artefact = |path: &str| {
        let locked = service.artefacts.iter().find(|a| a.path == path).map(|a| a.digest.to_hex());
        let digest = if settings.dangerous_unlocked { dangerous_as_it_lies(path) } else { locked };
        // Without a digest nothing matches, and nothing starts.
        Artefact { path: PathBuf::from(path), sha256: digest.unwrap_or_default() }
    };
    let program = service.run.first().map(String::as_str).unwrap_or_default();
    let tools: Vec<Artefact> = service.tools.iter().map(|path| artefact(path)).collect();
    let is_executed = |path: &String| path == program || service.tools.contains(path);
    let is_script = |path: &String| !is_executed(path) && service.syscalls.as_ref() != Some(path);
    let scripts = service.artefacts.iter().filter(|a| is_script(&a.path)).map(|a| artefact(&a.path)).collect();
    // Where there may be no network of its own, every service would have the same ports.
    let confined = service.isolation == "confined";
    let shared = confined || settings.dangerous_without == Some(DangerousWithout::NetworkNamespace);
    let port = |wish: u16| if shared { 0 } else { wish };
    let mut read = Profile::system_read();
    read.extend(service.read.iter().map(PathBuf::from));
    let limits = &service.limits;
    let some = |n: u64| if n == 0 { u64::MAX } else { n };
    Ok(Profile {
        name: service.name.clone(),
        required_level: if confined { Level::Confined } else { Level::Full },
        backend: if service.bwrap { Backend::Bwrap } else { Backend::Own },
        program: artefact(program),
        arguments: service.run.iter().skip(1).cloned().collect(),
        environment: environment(service, state_dir),
        port: Some(port(SERVICE_PORT)),
        flows: service.outbound.iter().map(|o| Flow { name: o.env.clone(), port: port(o.port) }).collect(),
        tools,
        scripts,
        read,
        state: service.state.then(|| state_dir.to_path_buf()),
        work_dir: None,
        calls: calls(service, settings)?,
        limits: Limits {
            memory_bytes: some(limits.memory_bytes),
            processes: some(limits.pids),
            open_files: some(limits.files),
            file_bytes: some(limits.file_bytes),
            cpu_seconds: None,
            cpu_cores: (limits.cpu > 0.0).then_some(limits.cpu),
            wall_ms: None,
            tmp_bytes: some(limits.tmp_bytes),
            state_bytes: some(limits.state_bytes),
        },
        run_as_id: settings.run_as_id,
        start_patience_ms: START_PATIENCE_MS,
        dangerous_simulate: sandbox::Simulate::default(),
        dangerous_without: dangerous_without(settings)?,
    })
}

/// The digest of what lies there now, whatever was locked.
fn dangerous_as_it_lies(path: &str) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    Digest::of_reader(file).ok().map(|digest| digest.to_hex())
}

/// The wall that it goes without, in a throw-away copy of a system; each start has temporary files of its own nevertheless.
fn dangerous_without(settings: &Settings) -> Result<Option<DangerousWithout>, SandboxError> {
    let Some(DangerousWithout::MountNamespace(base)) = &settings.dangerous_without else { return Ok(settings.dangerous_without.clone()) };
    let failed = |error: std::io::Error| SandboxError::Profile(format!("{}: {error}", base.display()));
    let folder = base.join(trust::clock::random_hex(&*trust::SystemEntropy::shared(), 8));
    std::fs::create_dir(&folder).map_err(failed)?;
    Ok(Some(DangerousWithout::MountNamespace(folder)))
}

/// The system calls that it may make: those of its list, which must be the locked one.
fn calls(service: &ServiceProfile, settings: &Settings) -> Result<Calls, SandboxError> {
    if settings.trace.is_some() {
        return Ok(Calls::Traced);
    }
    let Some(path) = &service.syscalls else { return Ok(Calls::General) };
    let unreadable = |why: String| SandboxError::Profile(format!("the list of system calls {path}: {why}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(CALLS_BYTES_MAX).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    let found = Digest::of(text.as_bytes());
    let expected = service.artefacts.iter().find(|artefact| artefact.path == *path).map(|artefact| artefact.digest);
    if expected != Some(found) {
        let expected = expected.map(|digest| digest.to_hex()).unwrap_or_default();
        return Err(ArtefactMismatch { path: PathBuf::from(path), expected, found: found.to_hex() }.into());
    }
    Calls::parse(&text).map_err(unreadable)
}

/// What the service finds in its environment: where its neighbours are, all on loopback, and nothing secret (F8).
fn environment(service: &ServiceProfile, state_dir: &Path) -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME", "/tmp".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        // The sandbox puts the ports in.
        ("PORT", "{port}".to_owned()),
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
        environment.insert(outbound.env.clone(), format!("{scheme}://127.0.0.1:{{flow:{}}}", outbound.env));
    }
    environment
}
