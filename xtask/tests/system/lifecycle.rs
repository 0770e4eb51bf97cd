//! Lives of processes: D3, D5, D13, N11, M5.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xtask::processes;

use crate::{READY, Stage};

/// Parents of all processes.
fn parents() -> BTreeMap<u32, u32> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        parents.insert(pid, parent);
    }
    parents
}

fn pid_of(stage: &Stage, name: &str) -> Option<u32> {
    processes::tree(stage.running.pid()).unwrap().into_iter().find(|p| p.name == name).map(|p| p.pid)
}

fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

// D3, D5, D13: a service is its guard's descendant, dies with it, and others do not notice.
#[test]
fn a_service_never_runs_without_its_guard() {
    let stage = Stage::set();
    let (guard, service) = (pid_of(&stage, "guard api").unwrap(), pid_of(&stage, "video-api").unwrap());
    let family = parents();
    let ancestors: Vec<u32> = std::iter::successors(Some(service), |pid| family.get(pid).copied()).collect();
    assert!(ancestors.contains(&guard), "the api is not its guard's descendant");
    assert_services_are_apart_by_user(&stage);
    let others: Vec<u32> = ["guard web", "edge", "objects", "queue"].iter().filter_map(|name| pid_of(&stage, name)).collect();
    xtask::tree::run(std::process::Command::new("kill").args(["-KILL", &guard.to_string()])).unwrap();
    wait_until("the service is gone with its guard", Duration::from_secs(5), || {
        !std::path::Path::new(&format!("/proc/{service}/root")).exists()
    });
    // Asked at once: the answer waits for the new guard instead of finding nobody (D3).
    stage.ada.wait_for_api(Duration::from_secs(30)).unwrap();
    let now: Vec<u32> = ["guard web", "edge", "objects", "queue"].iter().filter_map(|name| pid_of(&stage, name)).collect();
    assert_eq!(others, now, "other processes were started anew");
}

/// I1: where root runs the system, each service is a user of its own, and none is root's; else all are ours.
fn assert_services_are_apart_by_user(stage: &Stage) {
    let user_of = |name: &str| {
        let all = processes::tree(stage.running.pid()).unwrap();
        let pid = all.iter().find(|process| process.name.ends_with(name)).unwrap_or_else(|| panic!("{name} does not run: {all:?}")).pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    let users: Vec<u32> = ["video-api", "video-validator", "server.py"].into_iter().map(user_of).collect();
    let supervisor = user_of("supervisor");
    println!("users: {users:?}");
    if supervisor == 0 {
        assert!(
            users.iter().all(|user| *user >= 61_184) && users[0] != users[1] && users[1] != users[2] && users[0] != users[2],
            "{users:?}"
        );
    } else {
        assert!(users.iter().all(|user| *user == supervisor), "{users:?}");
    }
}

// N11: nothing of the transcoder runs before the first job, nor some time after the last one.
#[test]
fn the_transcoder_scales_from_zero_and_back() {
    let stage = Stage::set();
    let runs = |name: &str| pid_of(&stage, name).is_some();
    assert!(!runs("video-transcoder"), "it runs before there is work");
    let uploaded = stage.ada.upload(&stage.video(10), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["transcoding"], READY).unwrap();
    assert!(runs("video-transcoder"));
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
    let guard = pid_of(&stage, "guard transcoder").unwrap();
    wait_until("the transcoder ends with its job (I8)", Duration::from_secs(20), || !runs("video-transcoder"));
    let idle = processes::tree(stage.running.pid()).unwrap().into_iter().find(|p| p.pid == guard).unwrap();
    println!("an idle transcoder costs its guard's {:?} KiB (PSS; root only)", idle.pss_bytes.map(|bytes| bytes / 1024));
    // And again from zero.
    let uploaded = stage.ada.upload(&stage.video(2), "video/mp4").unwrap();
    stage.ada.wait_for(&uploaded.id, &["ready"], READY).unwrap();
}

// M5: a manifest comes into force as a whole, while requests are answered; a wrong one changes nothing.
#[test]
fn a_manifest_is_applied_to_a_running_system_whole_or_not_at_all() {
    let stage = Stage::set_with_copy(&[]);
    let manifest = stage.setting.manifest.clone();
    let text = std::fs::read_to_string(&manifest).unwrap();
    let apply = || stage.running.cli(&["apply", "--manifest", &manifest.display().to_string()]);

    std::fs::write(&manifest, text.replace("bucket.originals:delete", "bucket.orignals:delete")).unwrap();
    let refused = apply().unwrap_err().to_string();
    assert!(refused.contains("originals"), "no suggestion: {refused}");
    stage.ada.api("GET", "/api/videos", None, 200).unwrap();

    // Nobody may list any more: the flow and the route are gone, everywhere, at once.
    let row = "  { path = \"/api/videos\", methods = [\"GET\"], purpose = \"view\", scope = \"videos\" },\n";
    assert!(text.contains(row));
    std::fs::write(&manifest, text.replace(row, "").replace("calls = [\"service.api:GET /api/videos\"]", "calls = []")).unwrap();
    println!("{}", apply().unwrap());
    wait_until("the route is gone", Duration::from_secs(5), || {
        let answer = stage.ada.curl.ask("/api/videos", &xtask::curl::Ask::default()).unwrap();
        [404, 405].contains(&answer.status)
    });
    std::fs::write(&manifest, &text).unwrap();
    apply().unwrap();
    wait_until("the route is back", Duration::from_secs(5), || stage.ada.api("GET", "/api/videos", None, 200).is_ok());
}

// N7: the services' programs have no line of security code.
#[test]
fn the_services_have_no_line_of_security_code() {
    const WORDS: &[&str] =
        &["authorization", "bearer", "jwt", "cookie", "tls", "certificate", "password", "hmac", "csrf", "oauth", "signing"];
    let folder = xtask::tree::root().join("apps/video");
    let (mut found, mut in_the_twin) = (Vec::new(), 0);
    let mut lines = 0;
    for extension in ["rs", "py", "js"] {
        for path in xtask::tree::files(&folder, extension).unwrap() {
            if path.display().to_string().contains("test") || path.ends_with("rehearse.py") {
                continue;
            }
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                lines += 1;
                let code = line.split("//").next().unwrap_or_default().to_lowercase();
                let words: Vec<&str> = code.split(|c: char| !c.is_ascii_alphabetic()).collect();
                let here = WORDS.iter().filter(|w| words.contains(*w)).map(|w| format!("{}: {w}: {line}", path.display()));
                // The same application as one process has all of it, so these words are found where they are.
                if path.starts_with(folder.join("monolith")) { in_the_twin += here.count() } else { found.extend(here) }
            }
        }
    }
    assert!(lines > 1000, "only {lines} lines were looked at");
    assert_eq!(found, Vec::<String>::new());
    assert!(in_the_twin > 20, "the words were found {in_the_twin} times in the twin, which is full of them");
}
