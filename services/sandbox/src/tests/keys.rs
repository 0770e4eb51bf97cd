//! The guard's memory: out of reach for its workload, and for any other process of the same user.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use super::*;

const NOBODY: u32 = 65_534;

/// Another user where this is root, so that nothing below is refused or allowed for root's sake.
pub(super) fn as_nobody(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

/// Tries to read, trace and write a process; prints what worked.
const SPY: &str = "import ctypes, os, sys\n\
    pid, libc, won = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True), []\n\
    for name in ('mem', 'environ', 'maps', 'auxv', 'fd', 'root', 'cwd', 'exe', 'map_files', 'stack', 'syscall'):\n\
    \x20 path = f'/proc/{pid}/{name}'\n\
    \x20 try:\n    os.listdir(path) if name in ('fd', 'map_files') else os.readlink(path) if name in ('root', 'cwd', 'exe') else open(path, 'rb').close() if name == 'mem' else open(path, 'rb').read(1)\n    won.append(name)\n\
    \x20 except OSError: pass\n\
    buffer = ctypes.create_string_buffer(8)\n\
    class V(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\n\
    here, there = V(ctypes.cast(buffer, ctypes.c_void_p), 8), V(ctypes.cast(buffer, ctypes.c_void_p), 8)\n\
    for name in ('process_vm_readv', 'process_vm_writev'):\n\
    \x20 if getattr(libc, name)(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0: won.append(name)\n\
    \x20 elif ctypes.get_errno() == 14: won.append(name + ' (another address)')\n\
    for name, request in (('attach', 16), ('seize', 0x4206)):\n\
    \x20 if libc.ptrace(request, pid, 0, 0) == 0: won.append(name)\n\
    print(' '.join(won))";

pub(super) fn spied(pid: u32) -> String {
    let out = as_nobody(&mut Command::new("/usr/bin/python3")).args(["-c", SPY, &pid.to_string()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A guard as another process, and (not the test's) a sleeping service below it.
fn guard(ground: &Ground) -> std::process::Child {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&ground.state(), Some(NOBODY.into()), Some(NOBODY.into())).unwrap();
    }
    let profile = serde_json::to_vec(&ground.profile(&["sleep"])).unwrap();
    let mut command = Command::new(ourselves());
    command.arg("as-guard").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut guard = as_nobody(&mut command).spawn().unwrap();
    guard.stdin.take().unwrap().write_all(&profile).unwrap();
    // Its service runs: it has long done what it does first.
    let children = format!("/proc/{0}/task/{0}/children", guard.id());
    let tasks = format!("/proc/{}/task", guard.id());
    let started = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let all = std::fs::read_dir(&tasks).unwrap().flatten();
        all.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default()).any(|found| !found.is_empty())
    });
    assert!(started, "{children}");
    guard
}

#[test]
fn no_process_of_the_same_user_reads_or_traces_a_guard_and_a_crash_leaves_nothing() {
    // I12
    let ground = Ground::new();
    let mut plain = as_nobody(Command::new("/usr/bin/sleep").arg("60")).spawn().unwrap();
    let all = spied(plain.id());
    assert!(all.contains("mem") && all.contains("attach"), "the spy is no good: {all}");
    plain.kill().unwrap();
    plain.wait().unwrap();

    let mut guard = guard(&ground);
    assert_eq!(spied(guard.id()), "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", guard.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard.id().try_into().unwrap()), nix::sys::signal::Signal::SIGSEGV).unwrap();
    let status = guard.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGSEGV), false));
}

#[test]
fn no_workload_reads_or_traces_its_guard() {
    // I11, I12: this process is the guard.
    forbid_dumps().unwrap();
    let own = std::process::id();
    for level in [Level::Full, Level::Confined] {
        let ground = Ground::new();
        let files = ["mem", "environ", "maps", "fd", "root", "cwd", "task", "map_files", "status"];
        let plan = Plan {
            read: files.iter().map(|file| format!("/proc/{own}/{file}").into()).chain([PathBuf::from("/proc/kcore")]).collect(),
            write: vec![format!("/proc/{own}/mem").into(), format!("/proc/{own}/oom_score_adj").into()],
            signal: vec![own.try_into().unwrap()],
            ..still()
        };
        let mut profile = ground.probing(&plan);
        profile.required_level = level;
        profile.dangerous_simulate.no_user_namespaces = level == Level::Confined;
        let reached = reached(profile);
        assert!(reached.read.is_empty() && reached.written.is_empty() && reached.spied.is_empty(), "{level:?}: {reached:?}");
        assert!(!reached.signalled.contains(&own.try_into().unwrap()), "{level:?}");
        for call in ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"] {
            assert_eq!(reached.calls[call], "killed by SIGKILL", "{level:?}: {call}");
        }
    }
}

#[test]
fn the_only_ways_in_and_out_are_descriptors_that_were_passed() {
    // I9: nothing that outlives the sandbox can be written by a path, and no file of another can be opened by one.
    let ground = Ground::new();
    let mut profile = ground.profile(&[]);
    profile.state = None;
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    let code = "import os, json\n\
        mounts = [line.split() for line in open('/proc/self/mountinfo')]\n\
        print(json.dumps({'writable': sorted({m[4] for m in mounts if 'rw' in m[5].split(',')}), 'fds': sorted(os.listdir('/proc/self/fd')), \
        'out': [os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in (0, 1, 2)]}))";
    profile.arguments = vec!["-c".to_owned(), code.to_owned()];
    let said: serde_json::Value = serde_json::from_str(&output(profile)).unwrap();
    // Its own `/tmp`, which ends with it, and `/proc` of its own processes.
    assert_eq!(said["writable"], serde_json::json!(["/proc", "/tmp"]), "{said}");
    assert_eq!(said["out"], serde_json::json!(["/dev/null", "pipe", "pipe"]));
    // The fourth is the listing itself.
    assert_eq!(said["fds"].as_array().unwrap().len(), 4, "{said}");
}
