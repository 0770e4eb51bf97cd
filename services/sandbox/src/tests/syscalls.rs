//! System calls: lists of a service's own, and what is told of those that are denied.

use std::collections::BTreeSet;

use super::unreachable::assert_doors_closed;
use super::*;

/// Runs it to its end: what it printed, and what was seen of it.
fn watched(profile: Profile) -> (Exit, String, Vec<Seen>) {
    let mut running = spawn(profile).unwrap();
    let mut seen = running.take_seen().unwrap();
    let (exit, lines) = finish(running);
    let mut all = Vec::new();
    while let Some(one) = seen.blocking_recv() {
        all.push(one);
    }
    (exit, lines.concat(), all)
}

/// Count and whether it was killed, by kind.
fn denied(seen: &[Seen]) -> BTreeMap<String, (u64, bool)> {
    let mut all: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    for one in seen {
        let Seen::Denied(denials) = one else { continue };
        for denial in denials {
            let entry = all.entry(denial.call.clone()).or_default();
            *entry = (entry.0 + denial.count, denial.killed);
        }
    }
    all
}

fn traced(seen: &[Seen]) -> BTreeSet<String> {
    let names = seen.iter().filter_map(|one| if let Seen::Traced(names) = one { Some(names.clone()) } else { None });
    names.flatten().collect()
}

#[test]
fn denied_calls_are_told_by_name() {
    // I6
    for level in [Level::Full, Level::Confined] {
        let ground = Ground::new();
        let mut profile = ground.probing(&Plan { connect: vec!["127.0.0.1:1".parse().unwrap()], ..still() });
        profile.required_level = level;
        profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
        let (exit, text, seen) = watched(profile);
        let reached: Reached = serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {exit:?} {text}"));
        assert_doors_closed(&reached, level);
        let denied = denied(&seen);
        println!("{level:?}: {denied:?}");
        for fatal in ["ptrace", "bpf", "io_uring_setup", "keyctl", "userfaultfd", "mount", "unshare", "clone", "setns"] {
            assert!(denied.get(fatal).is_some_and(|(count, killed)| *count >= 1 && *killed), "{level:?}: {fatal}: {denied:?}");
        }
        for refused in ["setuid", "personality", "mmap", "socket inet datagram", "socket packet raw", "socket unix stream", "call 10000"] {
            assert!(denied.get(refused).is_some_and(|(count, killed)| *count >= 1 && !killed), "{level:?}: {refused}: {denied:?}");
        }
        assert_eq!(denied.contains_key("connect 127.0.0.1:1"), level == Level::Confined, "{denied:?}");
    }
}

#[test]
fn a_flood_of_denied_calls_is_a_few_tellings_and_slows_nobody_else() {
    // I6
    let ground = Ground::new();
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let code = "import os\nfor i in range(20000):\n  try: os.setuid(0)\n  except PermissionError: pass\nprint('done')";
    profile.arguments = vec!["-c".to_owned(), code.to_owned()];
    let (exit, text, seen) = watched(profile);
    assert!(exit.success() && text == "done", "{exit:?} {text}");
    assert_eq!(denied(&seen).get("setuid"), Some(&(20_000, false)), "every one is counted");
    assert!(seen.len() < 100, "{}", seen.len());
}

#[test]
fn an_ordinary_program_is_denied_nothing() {
    // I6
    let ground = Ground::new();
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/ffmpeg").unwrap();
    let arguments = "-v error -f lavfi -i testsrc=d=1:s=320x240 -c:v libx264 out.mp4";
    profile.arguments = arguments.split(' ').map(str::to_owned).collect();
    let (exit, _, seen) = watched(profile);
    assert!(exit.success());
    assert_eq!(denied(&seen), BTreeMap::new());
}

#[test]
fn what_was_traced_is_enough_and_nothing_besides_is_allowed() {
    // I6
    for level in [Level::Full, Level::Confined] {
        let ground = Ground::new();
        let (_listener, address) = own_listener();
        let at = |mut profile: Profile, calls: Calls| {
            profile.required_level = level;
            profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
            profile.calls = calls;
            profile
        };
        let (exit, text, seen) = watched(at(ground.profile(&["echo", "hello"]), Calls::Traced));
        assert!(exit.success() && text == "hello", "{exit:?} {text}");
        let names = traced(&seen);
        assert!(names.contains("openat") && !names.contains("socket"), "{names:?}");

        let list = Calls::parse(&Calls::text(names.iter().map(String::as_str))).unwrap();
        let count = list.count();
        assert!(count * 2 < Calls::General.count(), "{count} calls are no narrow list");
        let running = spawn(at(ground.profile(&["echo", "again"]), list.clone())).unwrap();
        assert!(running.applied().to_string().contains(&format!("{count} calls allowed, a list of its own")), "{}", running.applied());
        drop(running);
        let (exit, text, seen) = watched(at(ground.profile(&["echo", "again"]), list.clone()));
        assert!(exit.success() && text == "again", "{exit:?} {text}");
        assert_eq!(denied(&seen), BTreeMap::new());

        // One that the general list has, and this one has not.
        let (_, text, seen) = watched(at(ground.profile(&["connect", &address.to_string()]), list.clone()));
        assert!(text.starts_with("error: "), "{text}");
        assert_eq!(denied(&seen).keys().collect::<Vec<_>>(), ["socket inet stream"]);
        // And nothing that the general list lacks.
        let (_, _, seen) = watched(at(ground.profile(&["connect", &address.to_string()]), Calls::Listed(["ptrace".to_owned()].into())));
        assert!(!denied(&seen).is_empty(), "a list that says little allows little");
    }
}

#[test]
fn where_another_filter_asks_already_the_kernel_denies_by_itself() {
    // I5, I6
    let ground = Ground::new();
    let mut profile = ground.probing(&still());
    profile.dangerous_simulate.seccomp_listener_taken = true;
    let running = spawn(profile.clone()).unwrap();
    assert!(running.applied().holds(LayerName::Seccomp) && !running.applied().holds(LayerName::DeniedCalls), "{}", running.applied());
    let (exit, lines) = finish(running);
    let reached: Reached = serde_json::from_str(&lines.concat()).unwrap_or_else(|cause| panic!("{cause}: {exit:?} {lines:?}"));
    assert_doors_closed(&reached, Level::Full);
    assert_eq!(reached.calls["ptrace"], "killed by SIGSYS");

    // Where destinations are decided by asking, and where a trace is, there is no start without it.
    for (level, calls) in [(Level::Confined, Calls::General), (Level::Full, Calls::Traced)] {
        let mut profile = profile.clone();
        profile.required_level = level;
        profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
        profile.calls = calls;
        assert!(matches!(spawn(profile), Err(SandboxError::MissingLayer { .. })));
    }
}
