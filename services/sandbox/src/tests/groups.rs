//! Limits for a service as a whole, where the kernel gives control groups to this user.

use super::*;
use crate::cgroup::{Leaf, Place, place};
use crate::namespaces::{self, Identity};

/// Children that each take 40 MiB, less than one process may; how many live when all have been asked for.
const MANY: &str = "import os, time\n\
    pids = []\n\
    for i in range(8):\n  pids.append(os.fork())\n  if pids[-1] == 0:\n    hold = b'x' * (40 << 20)\n    time.sleep(60)\n\
    time.sleep(2)\nprint(sum(os.waitpid(pid, os.WNOHANG)[0] == 0 for pid in pids), flush=True)";

fn many(ground: &Ground) -> Profile {
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/python3").unwrap();
    profile.arguments = vec!["-c".to_owned(), MANY.to_owned()];
    profile.limits.memory_bytes = 128 << 20;
    profile
}

/// Leaves that are there now.
fn leaves() -> usize {
    let folders = match place() {
        Ok(Place::Unified { above, .. }) => vec![above],
        Ok(Place::Split(parts)) => parts.into_iter().map(|(_, own)| own).collect(),
        Err(_) => Vec::new(),
    };
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
    let ours = |pid: &str| std::path::Path::new("/proc").join(pid).exists();
    // Other tests run at the same time: theirs are of inits that live.
    entries
        .filter(|entry| {
            entry.file_name().to_str().and_then(|name| name.strip_prefix(crate::cgroup::prefix().as_str())).is_some_and(|pid| !ours(pid))
        })
        .count()
}

#[test]
fn many_processes_together_get_no_more_memory_than_their_service_may() {
    // I7
    let ground = Ground::new();
    let running = spawn(many(&ground)).unwrap();
    let (limited, report) = (running.applied().holds(LayerName::Cgroup), running.applied().to_string());
    let (exit, lines) = finish(running);
    if !limited {
        // Not delegated to this user: said so, and each process alone is limited.
        assert!(place().is_err(), "{report}");
        return;
    }
    // 8 x 40 MiB do not go into 136 MiB; with version 2 the bomb takes its whole job along, with version 1 some of its processes.
    let lived: usize = lines.first().map_or(0, |count| count.parse().unwrap());
    assert!(lived <= 3, "{lived} children have 40 MiB each: {exit:?} {lines:?}\n{report}");
}

#[test]
fn a_neighbour_of_a_bomb_goes_on_and_nothing_is_left_of_its_group() {
    // I7
    let ground = Ground::new();
    let mut neighbour = ground.profile(&["serve"]);
    (neighbour.port, neighbour.state) = (Some(8080), None);
    neighbour.environment.insert("PORT".to_owned(), "8080".to_owned());
    let neighbour = spawn(neighbour).unwrap();
    drop(neighbour.connect_blocking().unwrap());
    for bomb in ["memory-bomb", "fork-bomb"] {
        let mut profile = ground.profile(&[bomb]);
        profile.limits.cpu_cores = Some(0.5);
        let (_, lines) = finish(spawn(profile).unwrap());
        println!("{bomb}: {lines:?}");
        neighbour.connect_blocking().unwrap();
        assert_eq!(neighbour.exited(), None);
    }
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        leaves() == 0
    });
    assert!(gone, "{} groups of sandboxes that ended are still there", leaves());
}

/// What `as-member` says when all of it held.
const BORN: &str = "born there and ended from outside";

/// A guard without root whose group and whose service's group were delegated to it: `FOLDER/own` and `FOLDER/leaf`. It does what init does.
pub(super) fn as_member(folder: &Path) -> i32 {
    std::fs::write(folder.join("own/cgroup.procs"), "0").unwrap();
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setresgid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
        nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
        // As any program of that user: what it has in `/proc` is its own again.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
    let group = || std::fs::read_to_string("/proc/self/cgroup").unwrap().lines().find(|line| line.starts_with("0::")).map(str::to_owned);
    let before = group().unwrap();
    let leaf = Leaf::born_in(&folder.join("leaf")).unwrap();
    let identity = Identity::of_this_process(65_534);
    namespaces::enter_user(identity).unwrap();
    namespaces::enter_others(true).unwrap();
    let (alive, hold) = nix::unistd::pipe().unwrap();
    let Some(child) = leaf.fork().unwrap() else {
        assert!(group().unwrap().ends_with("/leaf"), "{:?}", group());
        assert!(namespaces::enter_cgroups());
        assert_eq!(group().unwrap(), "0::/");
        nix::unistd::write(&hold, b"x").unwrap();
        loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    };
    assert_eq!(group().unwrap(), before, "only the child is in the leaf");
    assert_eq!(nix::unistd::read(&alive, &mut [0]).unwrap(), 1);
    leaf.leave();
    let ended = nix::sys::wait::waitpid(child, None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Signaled(child, nix::sys::signal::Signal::SIGKILL, false));
    println!("{BORN}");
    0
}

#[test]
fn with_version_2_pid_1_is_born_in_its_group_and_the_group_ends_as_one() {
    // I7. The kernel's own version 2, without the controllers: those may be bound to version 1 here (then limits are, too).
    let base =
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new).into_iter().find(|base| base.join("cgroup.controllers").exists());
    let Some(base) = base.filter(|base| nix::unistd::access(*base, nix::unistd::AccessFlags::W_OK).is_ok()) else {
        println!("not seen: this user may make no group of version 2 here");
        return;
    };
    let folder = base.join(format!("sandbox-test-{}", std::process::id()));
    let all = [folder.clone(), folder.join("own"), folder.join("leaf")];
    for folder in &all {
        std::fs::create_dir(folder).unwrap();
        if nix::unistd::geteuid().is_root() {
            for path in [folder.clone(), folder.join("cgroup.procs"), folder.join("cgroup.kill")] {
                std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
            }
        }
    }
    let out = std::process::Command::new(ourselves()).arg("as-member").arg(&folder).output().unwrap();
    for folder in all.iter().rev() {
        // The last of them may be counted for a moment after its end.
        let gone = (0..400).any(|_| {
            std::fs::remove_dir(folder).is_ok() || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        });
        assert!(gone, "{} is still there: {out:?}", folder.display());
    }
    assert!(String::from_utf8_lossy(&out.stdout).contains(BORN), "{out:?}");
}
