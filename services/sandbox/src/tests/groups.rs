//! Limits for a service as a whole, where the kernel gives control groups to this user.

use super::*;
use crate::cgroup::{Place, place};

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
    entries.filter(|entry| entry.file_name().to_str().and_then(|name| name.strip_prefix("palisade-")).is_some_and(|pid| !ours(pid))).count()
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
