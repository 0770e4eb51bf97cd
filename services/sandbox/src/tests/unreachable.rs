//! What is not declared cannot be reached: files, addresses, processes, the kernel's further doors.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// The answers that a level must give, by the name of the attempt.
pub(super) fn assert_doors_closed(reached: &Reached, level: Level) {
    // By init; by the kernel where init may not see it.
    const KILLED: [&str; 2] = ["killed by SIGKILL", "killed by SIGSYS"];
    let open = ["socket tcp4", "socket tcp6", "socketpair unix stream", "getpid"];
    // Within namespaces there is nobody else, and no other address.
    let within = ["listen at every address", "slow down everybody of this user", "bind the parent to a processor"];
    for (name, fate) in &reached.calls {
        let expected: &[&str] = match name.as_str() {
            name if open.contains(&name) || (within.contains(&name) && level == Level::Full) => &["done"],
            "listen at every address" => &["EACCES"],
            "socketpair unix datagram" => &["EAFNOSUPPORT"],
            // By init, or by the kernel where init may not see it.
            "child's end that continues" => &["killed by SIGKILL", "EPERM"],
            name if name.starts_with("socket ") => &["EAFNOSUPPORT"],
            "clone3" | "memfd_create" => &["ENOSYS"],
            "seccomp"
            | "prctl seccomp"
            | "personality"
            | "setuid 0"
            | "shmget"
            | "shared anonymous mmap"
            | "tcp fast open"
            | "timer that continues"
            | "input that continues"
            | "parent's end that continues"
            | "hide from who looks"
            | "slow down everybody of this user"
            | "bind the parent to a processor"
            | "future call" => &["EPERM"],
            "x32 getpid" => &["EPERM"],
            _ => &KILLED,
        };
        assert!(expected.contains(&fate.as_str()), "{name}: {fate}, expected {expected:?}");
    }
    assert!(reached.calls.len() > 55, "the corpus shrank to {}", reached.calls.len());
}

#[test]
fn what_can_be_opened_is_what_is_declared() {
    // I2, I11
    let ground = Ground::new();
    std::fs::write(ground.path("declared"), "yes, said the finch").unwrap();
    std::fs::write(ground.path("undeclared"), "no, said the canary").unwrap();
    // `/` itself cannot be listed inside, so each of its entries is tried.
    let top = std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().path());
    let plan = Plan {
        walk: top.chain(["/".into()]).collect(),
        write: vec![
            ground.path("declared"),
            ground.path("new"),
            ground.state().join("new"),
            "/tmp/new".into(),
            "/etc/hosts".into(),
            "/new".into(),
            "/usr/new".into(),
            "/dev/null".into(),
        ],
        canaries: vec!["the finch".to_owned(), "the canary".to_owned()],
        ..Plan::default()
    };
    let mut profile = ground.probing(&plan);
    profile.read.push(ground.path("declared"));
    let mut declared = profile.read.clone();
    declared.extend([profile.program.path.clone(), ground.state()]);
    declared.extend(["/etc/hosts", "/etc/passwd", "/etc/group", "/tmp"].map(PathBuf::from));
    let reached = reached(profile);

    let own = |path: &Path| {
        // Its own process, seen twice: by number and as `self` (a link, not followed).
        path.starts_with("/proc") && reached.processes.len() == 1 && path.starts_with(format!("/proc/{}", reached.processes[0]))
    };
    let extra: Vec<_> = reached.walked.iter().filter(|path| !below(path, &declared) && !own(path)).collect();
    assert!(extra.is_empty(), "{extra:?}");
    assert!(reached.walked.contains(&ground.path("declared")));
    assert!(!reached.walked.contains(&ground.path("undeclared")));
    assert!(reached.walked.len() > 100, "the walk saw nothing: {}", reached.walked.len());
    // Beside the state folder only the private /tmp, in which this ground's folder is the sandbox's own.
    let outside: Vec<_> = reached.written.iter().filter(|path| !path.starts_with("/tmp") || below(path, &[ground.state()])).collect();
    assert_eq!(outside, [&ground.state().join("new"), &PathBuf::from("/dev/null")]);
    assert!(reached.written.contains(&"/tmp/new".into()));
    assert!(!ground.path("new").exists() && !Path::new("/tmp/new").exists(), "written on the host");
    assert_eq!(std::fs::read_to_string(ground.path("declared")).unwrap(), "yes, said the finch");
    assert_eq!(reached.read, [PathBuf::from("/etc/passwd")], "the generated one");
    assert!(reached.walked.iter().any(|path| path.starts_with("/proc")), "its own process");
    // Its own arguments hold both words; beyond them only the declared file holds one.
    let places: Vec<_> = reached.canaries.iter().filter(|place| !own(Path::new(place))).collect();
    assert_eq!(places, [&ground.path("declared").display().to_string()]);
    assert!(reached.executed.is_empty(), "{:?}", reached.executed);
    assert_eq!(reached.environment, BTreeMap::from([("LANG".to_owned(), "C".to_owned())]));
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap_or_default().contains("new"));
}

#[test]
fn no_address_is_reached_but_the_flows() {
    // I3
    let ground = Ground::new();
    let (_outside, outside) = own_listener();
    let flow = "127.0.0.1:7001".parse().unwrap();
    let also = "127.0.0.1:7002".parse().unwrap();
    let plan = Plan { connect: vec![outside, flow, also, "1.1.1.1:7001".parse().unwrap(), "[::1]:7001".parse().unwrap()], ..still() };
    let mut profile = ground.probing(&plan);
    profile.flows = vec![Flow { name: "queue".to_owned(), port: 7001 }];
    let reached = reached(profile);
    assert_eq!(reached.connected, [flow]);
    assert!(reached.listening.is_empty(), "{:?}", reached.listening);
}

#[test]
fn other_ways_out_are_closed_on_every_landlock_abi() {
    // I4
    for abi in 1..=7 {
        let ground = Ground::new();
        let mut profile = ground.probing(&still());
        profile.dangerous_simulate.landlock_abi = Some(abi);
        let running = spawn(profile).unwrap();
        assert_eq!(running.applied().level, Some(Level::Full));
        assert_eq!(running.applied().holds(LayerName::LandlockTcp), abi >= 4);
        let (exit, lines) = finish(running);
        assert!(exit.success(), "{exit:?}");
        let reached: Reached = serde_json::from_str(&lines.concat()).unwrap();
        assert_doors_closed(&reached, Level::Full);
        assert!(reached.executed.is_empty());
        assert!(reached.connected.is_empty());
    }
}

#[test]
fn other_processes_are_neither_seen_nor_signalled() {
    // I11, I12
    let ground = Ground::new();
    let own = i32::try_from(std::process::id()).unwrap();
    let plan = Plan { signal: vec![own, 2, 3], ..still() };
    let reached = reached(ground.probing(&plan));
    assert_eq!(reached.processes.len(), 1, "PID 1 is hidden: {:?}", reached.processes);
    assert!(reached.spied.is_empty());
    // Processes 2 and 3 of its own namespace may be the attacker itself and its child; nobody else is there.
    assert!(!reached.signalled.contains(&own));
}

#[test]
fn nothing_is_left_of_roots_powers() {
    // I1, I4
    let ground = Ground::new();
    let reached = reached(ground.probing(&still()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(reached.powers[set], "0000000000000000", "{set}");
    }
    let descriptors: Vec<_> = reached.descriptors.keys().copied().collect();
    assert_eq!(descriptors, [0, 1, 2], "{:?}", reached.descriptors);
    let powers = &reached.powers;
    assert_eq!(powers["NoNewPrivs"], "1");
    assert_eq!(powers["Seccomp"], "2");
    assert!(!powers["Uid"].split_whitespace().any(|id| id == "0"), "{}", powers["Uid"]);
}

#[test]
fn an_unprivileged_guard_gets_the_same_sandbox() {
    // I1
    if !nix::unistd::geteuid().is_root() {
        return; // Then every other test of this crate is this one.
    }
    use std::os::unix::process::CommandExt;
    let ground = Ground::new();
    let nobody = 65_534;
    nix::unistd::chown(&ground.state(), Some(nobody.into()), Some(nobody.into())).unwrap();
    let plan = Plan { read: vec![ground.state(), "/root".into(), "/etc/shadow".into()], ..still() };
    let profile = serde_json::to_vec(&ground.probing(&plan)).unwrap();
    let mut guard =
        Command::new(ourselves()).arg("as-guard").uid(nobody).gid(nobody).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    guard.stdin.take().unwrap().write_all(&profile).unwrap();
    let out = guard.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    let reached: Reached = serde_json::from_str(&text.replace('\n', "")).unwrap_or_else(|cause| panic!("{cause}: {text}"));
    assert_eq!(reached.read, [ground.state()]);
    assert_eq!(reached.powers["CapBnd"], "0000000000000000");
    assert_eq!(reached.powers["uid"], "65534");
    assert_doors_closed(&reached, Level::Full);
}

#[test]
fn each_start_is_fresh() {
    // I8
    let ground = Ground::new();
    let plan = Plan { read: vec!["/tmp/left".into()], write: vec!["/tmp/left".into()], ..still() };
    for _ in 0..2 {
        let reached = reached(ground.probing(&plan));
        assert_eq!(reached.written.len(), 1);
        // Reading comes first, so it would be the file of the start before.
        assert!(reached.read.is_empty());
    }
}

#[test]
fn in_another_programs_place_the_attacker_reports_into_its_output() {
    // I3, I11: what an end-to-end test puts where FFmpeg is.
    let ground = Ground::new();
    let out = ground.state().join("out.mp4");
    let printed = output(ground.profile(&["-i", "in.mp4", out.to_str().unwrap()]));
    let reached: Reached = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Reached>(&printed.replace('\n', "")).unwrap().calls, reached.calls);
    assert_doors_closed(&reached, Level::Full);
    assert_eq!(reached.read, [PathBuf::from("/etc/passwd")]);
    assert!(reached.written.is_empty() && reached.connected.is_empty() && reached.listening.is_empty(), "{reached:?}");
    assert!(reached.executed.is_empty() && reached.signalled.is_empty() && reached.spied.is_empty(), "{reached:?}");
    assert!(reached.canaries.is_empty(), "{:?}", reached.canaries);
}
