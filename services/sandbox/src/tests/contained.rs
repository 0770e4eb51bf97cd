//! Bombs go off inside; nothing outlives its sandbox.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn bombs_are_contained() {
    // I7
    let ground = Ground::new();
    let forks = output(ground.profile(&["fork-bomb"]));
    let count: u64 = forks.split(' ').next().unwrap().parse().unwrap();
    assert!((50..=64).contains(&count), "{forks}");

    let memory = output(ground.profile(&["memory-bomb"]));
    let count: u64 = memory.split(' ').next().unwrap().parse().unwrap();
    assert!((300..=512).contains(&count), "{memory}");

    let shared = output(ground.profile(&["shared-memory-bomb"]));
    assert!(["dev zero false, tmp 7 MiB", "dev zero false, tmp 8 MiB"].contains(&shared.as_str()), "{shared}");

    let path = ground.state().join("big");
    let (exit, _) = finish(spawn(ground.profile(&["file-bomb", path.to_str().unwrap()])).unwrap());
    assert_eq!(exit.signal, Some(libc::SIGXFSZ));
    assert_eq!(std::fs::metadata(path).unwrap().len(), 64 << 20);
}

/// Writes 4 MiB three times below the state folder, and does this with each file; then stays.
fn keeping(ground: &Ground, what: &str) -> Profile {
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let state = ground.state();
    let code = format!(
        "import mmap, os, time\nkept = []\nfor i in range(3):\n p = f'{}/{{i}}'\n f = open(p, 'w+b')\n f.write(b'x' * (4 << 20))\n f.flush()\n \
         {what}\ntime.sleep(60)",
        state.display()
    );
    profile.arguments = vec!["-c".to_owned(), code];
    profile.limits.file_bytes = 4 << 20;
    profile.limits.state_bytes = 10 << 20;
    profile
}

#[test]
fn a_service_that_fills_its_state_folder_ends_and_does_not_start_until_there_is_room() {
    // I7: as files, as removed ones that are still open, as removed ones that are only mapped.
    for level in [Level::Full, Level::Confined] {
        for what in ["f.close()", "os.unlink(p); kept.append(f)", "kept.append(mmap.mmap(f.fileno(), 4096)); os.unlink(p); f.close()"] {
            let ground = Ground::new();
            let mut profile = keeping(&ground, what);
            profile.required_level = level;
            profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
            let mut below = profile.clone();
            below.limits.state_bytes = 13 << 20;
            below.limits.wall_ms = Some(1_700);
            let (exit, lines) = finish(spawn(below).unwrap());
            assert_eq!(exit.cause, ExitCause::WallClock, "{level:?}, {what}: {lines:?}");
            for entry in std::fs::read_dir(ground.state()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }

            let (exit, lines) = finish(spawn(profile.clone()).unwrap());
            assert!(matches!(&exit.cause, ExitCause::Filled(why) if why.contains("limits.state")), "{level:?}, {what}: {exit:?} {lines:?}");
            if what == "f.close()" {
                let refused = spawn(profile).unwrap_err().to_string();
                assert!(refused.contains("its state folder") && refused.contains("12 MiB of the 10 MiB"), "{refused}");
            }
        }
    }
}

#[test]
fn the_wall_clock_ends_it() {
    // I7
    let ground = Ground::new();
    let mut profile = ground.profile(&["sleep"]);
    profile.limits.wall_ms = Some(200);
    let begun = Instant::now();
    let (exit, _) = finish(spawn(profile).unwrap());
    assert_eq!(exit.cause, ExitCause::WallClock);
    assert!((200..3000).contains(&begun.elapsed().as_millis()));
}

/// The state of each process, by the letter of `/proc/PID/stat`.
fn states(pids: &std::collections::BTreeSet<u32>) -> Vec<char> {
    let state = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap()
    };
    pids.iter().map(state).collect()
}

#[test]
fn a_frozen_sandbox_stands_still_and_can_be_looked_into() {
    // L15: an orphan that counts on, and left its parent long ago.
    let ground = Ground::new();
    let count = ground.state().join("count");
    let mut profile = ground.profile(&["orphan-and-stay", count.to_str().unwrap()]);
    profile.limits.processes = 32;
    let running = spawn(profile).unwrap();
    assert!(await_counting(&count, true));
    let frozen = running.freeze().unwrap();
    // The parent that it left is dead and was never waited for.
    let mut found = states(&frozen);
    found.sort_unstable();
    assert_eq!(found, ['T', 'T', 'Z']);
    assert!(!is_counting(&count));
    assert!(running.exited().is_none());
    assert_eq!(running.freeze().unwrap(), frozen, "twice is once");
    assert!(running.stands_still());
    // Somebody outside lets one go on: that is seen, and undone by freezing again.
    let one = i32::try_from(*frozen.last().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(one), nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(await_counting(&count, true) && !running.stands_still());
    assert_eq!(running.freeze().unwrap(), frozen);
    assert!(running.stands_still() && !is_counting(&count));

    let folder = ground.path("evidence");
    let evidence = running.keep_evidence(&folder, EvidenceLimits { files: 2, bytes: 8 }).unwrap();
    assert_eq!(evidence.processes.keys().copied().collect::<std::collections::BTreeSet<_>>(), frozen);
    let one = evidence.processes.values().next().unwrap();
    assert!(one.arguments.contains(&"orphan-and-stay".to_owned()) && one.maps.contains("[stack]") && one.status.contains("State:\tT"));
    // Four bytes fit, five more do not, and a link out of the sandbox is not followed.
    assert_eq!(evidence.files.keys().collect::<Vec<_>>(), ["a-left"]);
    assert_eq!(std::fs::read(folder.join("tmp/a-left")).unwrap(), b"left");
    let (mounted, left): (Vec<_>, Vec<_>) =
        evidence.left_out.iter().map(String::as_str).partition(|one| one.ends_with("state: mounted there"));
    assert_eq!((mounted.len(), left), (1, vec!["b-more: no room is left", "c-link: no file"]));
    running.kill();
    assert!(!is_counting(&count));
}

/// The orphan counts in this file as long as it lives.
fn is_counting(path: &Path) -> bool {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    let before = read();
    std::thread::sleep(Duration::from_millis(150));
    read() != before
}

pub(super) fn await_counting(path: &Path, expected: bool) -> bool {
    (0..60).any(|_| is_counting(path) == expected)
}

#[test]
fn orphans_end_with_their_service() {
    // I8
    let ground = Ground::new();
    let count = ground.state().join("count");
    assert_eq!(output(ground.profile(&["orphan", count.to_str().unwrap()])), "left");
    assert!(count.exists());
    assert!(!is_counting(&count));
}

#[test]
fn a_dropped_handle_kills() {
    let ground = Ground::new();
    let running = spawn(ground.profile(&["sleep"])).unwrap();
    let pid = nix::unistd::Pid::from_raw(running.pid().try_into().unwrap());
    drop(running);
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        nix::sys::signal::kill(pid, None).is_err()
    });
    assert!(gone);
}

/// A guard in a process of its own, which may be killed.
pub(super) fn guard_of(profile: &Profile) -> std::process::Child {
    let mut guard =
        Command::new(std::env::current_exe().unwrap()).arg("as-guard").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    guard.stdin.take().unwrap().write_all(&serde_json::to_vec(profile).unwrap()).unwrap();
    guard
}

#[test]
fn when_the_guard_is_killed_the_service_is_gone() {
    let ground = Ground::new();
    let count = ground.state().join("count");
    let mut profile = ground.profile(&["-c", ""]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let code = format!("import time\nfor i in range(3000):\n open({count:?}, 'w').write(str(i))\n time.sleep(0.01)");
    profile.arguments = vec!["-c".to_owned(), code];
    let mut guard = guard_of(&profile);
    assert!(await_counting(&count, true));
    guard.kill().unwrap();
    guard.wait().unwrap();
    assert!(await_counting(&count, false));
}

#[test]
fn terminate_asks_first_and_kills_after_the_grace() {
    let ground = Ground::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let polite = spawn(ground.profile(&["sleep"])).unwrap();
    let exit = runtime.block_on(polite.terminate(Duration::from_secs(5)));
    assert_eq!(exit.signal, Some(libc::SIGTERM));

    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let code = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)";
    profile.arguments = vec!["-c".to_owned(), code.to_owned()];
    let mut deaf = spawn(profile).unwrap();
    assert_eq!(deaf.take_lines().unwrap().blocking_recv().unwrap().text, "deaf");
    let begun = Instant::now();
    let exit = runtime.block_on(deaf.terminate(Duration::from_millis(200)));
    assert_eq!(exit.cause, ExitCause::Killed);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn ordinary_programs_work_and_the_start_is_quick() {
    // I13: printed, not asserted tightly, since the machine is shared.
    let ground = Ground::new();
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    profile.scripts = vec![];
    let code = "import threading, subprocess, tempfile, os, json, socket, ssl, sqlite3\n\
        t = threading.Thread(target=lambda: None); t.start(); t.join()\n\
        tempfile.TemporaryFile().write(b'x')\n\
        sqlite3.connect('state.db').execute('create table t(x)')\n\
        print(subprocess.run(['/usr/bin/id', '-u'], capture_output=True).returncode, os.cpu_count() > 0)";
    profile.arguments = vec!["-c".to_owned(), code.to_owned()];
    profile.tools = vec![Artefact::measure("/usr/bin/id").unwrap()];
    assert_eq!(output(profile), "0 True");
    assert!(ground.state().join("state.db").exists());

    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/ffmpeg").unwrap();
    let arguments = "-v error -f lavfi -i testsrc=d=1:s=320x240 -f lavfi -i sine=d=1 -c:v libx264 -c:a aac -movflags +faststart out.mp4";
    profile.arguments = arguments.split(' ').map(str::to_owned).collect();
    assert_eq!(output(profile), "", "FFmpeg has nothing to complain about");
    assert!(std::fs::metadata(ground.state().join("out.mp4")).unwrap().len() > 1000);

    let small = ground.profile(&[]);
    let mut times = Vec::new();
    for _ in 0..10 {
        let mut profile = small.clone();
        profile.program = Artefact::measure("/usr/bin/true").unwrap();
        let begun = Instant::now();
        let running = spawn(profile).unwrap();
        times.push(begun.elapsed());
        drop(running);
    }
    times.sort();
    println!("start of /usr/bin/true until its exec: median {:?}, worst {:?}", times[5], times[9]);
    assert!(times[5] < Duration::from_secs(1));
}

// I8: what the end of a job means: asked, killed after the grace, and gone with all that it started when that returns.
#[test]
fn a_service_that_ignores_its_end_is_gone_with_all_it_started_once_the_grace_is_over() {
    let ground = Ground::new();
    let count = |who: &str| ground.state().join(who);
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let code = format!(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwho = {:?} if os.fork() else {:?}\nos.setsid() if who.endswith('child') else None\n\
         for i in range(3000):\n open(who, 'w').write(str(i))\n time.sleep(0.01)",
        count("parent"),
        count("child"),
    );
    profile.arguments = vec!["-c".to_owned(), code];
    let running = spawn(profile).unwrap();
    assert!(await_counting(&count("parent"), true) && await_counting(&count("child"), true));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exit = runtime.block_on(running.terminate(Duration::from_millis(300)));
    assert_eq!(exit.cause, ExitCause::Killed, "{exit:?}");
    let read = || [std::fs::read_to_string(count("parent")).unwrap(), std::fs::read_to_string(count("child")).unwrap()];
    let at_the_end = read();
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(read(), at_the_end);
}
