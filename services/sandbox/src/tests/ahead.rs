//! Starts that are one step ahead: an init that waits for its profile.

use super::keys::{as_nobody, spied};
use super::*;

fn launcher() -> Launcher {
    Launcher::new("/proc/self/exe", ["sandbox-init".into()])
}

/// Waits until there is no such process, not even a dead one.
fn is_gone(pid: u32) -> bool {
    let there = || Path::new(&format!("/proc/{pid}")).exists();
    (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !there()
    })
}

#[test]
fn an_init_that_waits_is_used_for_one_start_and_nothing_is_lost_with_it() {
    // I8, I13
    let ground = Ground::new();
    let profile = ground.probing(&still());
    let ahead = Ahead::new(launcher());
    assert_eq!(ahead.waiting(), None);
    // Nothing waits: it works as well.
    assert!(finish(ahead.spawn(profile.clone()).unwrap()).0.success());
    ahead.step().unwrap();
    let waits = ahead.waiting().unwrap();
    // One is enough.
    ahead.step().unwrap();
    assert_eq!(ahead.waiting(), Some(waits));
    let running = ahead.spawn(profile.clone()).unwrap();
    assert_eq!((running.pid(), ahead.waiting()), (waits, None), "the one that waited, and never again");
    let (exit, lines) = finish(running);
    assert!(exit.success(), "{exit:?} {lines:?}");
    let _: Reached = serde_json::from_str(&lines.concat()).unwrap();
    assert!(is_gone(waits));
    // One that was killed meanwhile is no start less.
    ahead.step().unwrap();
    let killed = ahead.waiting().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    while ahead.waiting().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let running = ahead.spawn(profile.clone()).unwrap();
    assert_ne!(running.pid(), killed);
    assert!(finish(running).0.success());
    assert!(is_gone(killed), "and it is reaped");
    // Whoever wants none any more has none.
    ahead.step().unwrap();
    let last = ahead.waiting().unwrap();
    ahead.stand_down();
    assert!(is_gone(last));
    ahead.step().unwrap();
    let last = ahead.waiting().unwrap();
    drop(ahead);
    assert!(is_gone(last));
}

#[test]
fn a_wrong_profile_is_refused_before_the_one_that_waits_is_used() {
    // I5
    let ground = Ground::new();
    let ahead = Ahead::new(launcher());
    ahead.step().unwrap();
    let waits = ahead.waiting();
    let wrong = Profile { state: Some("/".into()), ..ground.probing(&still()) };
    assert!(matches!(ahead.spawn(wrong), Err(SandboxError::Profile(_))));
    assert_eq!(ahead.waiting(), waits);
    // And a file that is not the locked one is refused by it.
    let mut other = ground.probing(&still());
    other.program.sha256 = "0".repeat(64);
    assert!(matches!(ahead.spawn(other), Err(SandboxError::ArtefactMismatch(_))));
}

/// A guard that waits for work: tells its init's number, and ends with its standard input.
pub(super) fn as_guard() -> i32 {
    forbid_dumps().unwrap();
    let ahead = Ahead::new(launcher());
    ahead.step().unwrap();
    println!("{}", ahead.waiting().unwrap());
    let mut rest = String::new();
    std::io::stdin().read_to_string(&mut rest).unwrap();
    // Without a word to it: the kernel ends it.
    std::process::exit(0)
}

#[test]
fn nobody_gets_into_an_init_that_waits_and_it_ends_with_its_guard() {
    // I12
    use std::io::BufRead;
    let mut command = std::process::Command::new(ourselves());
    command.arg("as-guard-ahead").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut guard = as_nobody(&mut command).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let init: u32 = line.trim().parse().unwrap();
    // It is another program a moment after it was made; from then on nobody reads it.
    let quiet = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        spied(init).is_empty()
    });
    assert!(quiet, "{}", spied(init));
    let limits = std::fs::read_to_string(format!("/proc/{init}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    drop(guard.stdin.take());
    assert!(guard.wait().unwrap().success());
    assert!(is_gone(init));
}
