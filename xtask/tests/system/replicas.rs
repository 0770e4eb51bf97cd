//! A15, D9, D13: one of three replicas' guards is killed with -9 under load.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::processes;

use crate::Stage;

/// Clients, requests of each, and how many each makes a second: together below what one person may ask for.
pub const CLIENTS: usize = 3;
pub const REQUESTS: usize = 200;
const RATE: usize = 25;
/// Processes tell their metrics at least every 15 s.
const TOLD: Duration = Duration::from_secs(60);

/// The statuses that one client got. The system's client makes a process for each request; this one makes hundreds in one.
pub fn ask_for_long(stage: &Stage) -> std::process::Child {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}\n",
        "--rate",
        &format!("{RATE}/s"),
        "--max-time",
        "60",
    ]);
    command.arg("--cacert").arg(&stage.running.certificate).arg("--cookie").arg(stage.scratch.0.join("ada.cookies"));
    command.arg(format!("{}/?n=[1-{REQUESTS}]", stage.running.address));
    command.stdout(Stdio::piped()).spawn().expect("curl runs")
}

/// Pids of the guards of `web`.
fn guards(stage: &Stage) -> BTreeSet<u32> {
    let all = processes::tree(stage.running.pid()).unwrap();
    all.into_iter().filter(|process| process.name == "guard web").map(|process| process.pid).collect()
}

/// Requests that each of `web`'s guards has let in, by the name of its run.
fn let_in(stage: &Stage) -> BTreeMap<String, u64> {
    let answer: Value = serde_json::from_str(&stage.running.cli(&["metrics"]).unwrap()).unwrap();
    let mut found = BTreeMap::new();
    for line in answer["metrics"].as_str().unwrap().lines() {
        let Some(rest) = line.strip_prefix("palisade_requests_total{workload=\"service/web\",process=\"") else { continue };
        if let (Some((process, labels)), Some((_, count))) = (rest.split_once('"'), line.rsplit_once(' '))
            && labels.contains("point=\"guard\"")
        {
            *found.entry(process.to_owned()).or_default() += count.parse::<f64>().unwrap() as u64;
        }
    }
    found
}

// A15
#[test]
fn one_of_three_replicas_is_killed_under_load_and_people_do_not_notice() {
    let stage = Stage::set_with_copy(&[(
        "run = [\"/usr/bin/python3\", \"web/server.py\"]",
        "run = [\"/usr/bin/python3\", \"web/server.py\"]\nreplicas = { min = 3, max = 3 }",
    )]);
    let before = guards(&stage);
    assert_eq!(before.len(), 3);
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask_for_long(&stage)).collect();
    std::thread::sleep(Duration::from_secs(2));
    let victim = *before.iter().nth(1).unwrap();
    xtask::tree::run(Command::new("kill").args(["-KILL", &victim.to_string()])).unwrap();
    let (mut asked, mut wrong) = (0, Vec::new());
    for client in clients {
        let said = String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap();
        asked += said.lines().count();
        wrong.extend(said.lines().filter(|status| *status != "200").map(str::to_owned));
    }
    println!("{asked} requests, {} errors: {wrong:?}", wrong.len());
    assert_eq!(asked, CLIENTS * REQUESTS);
    assert!(wrong.len() * 1000 <= asked, "{} of {asked}: {wrong:?}", wrong.len());

    let after = guards(&stage);
    assert!(after.len() == 3 && after.difference(&before).count() == 1 && !after.contains(&victim), "{before:?}, then {after:?}");
    let start = Instant::now();
    loop {
        // Three guards, and the next run of the one that was killed: each has had its share.
        let counts = let_in(&stage);
        if counts.len() == 4 && counts.values().all(|count| *count >= 10) {
            println!("requests of each run: {counts:?}");
            return;
        }
        assert!(start.elapsed() < TOLD, "not each guard gets load: {counts:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
