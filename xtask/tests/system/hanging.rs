//! A15: one of three replicas' programs hangs under load: it takes connections and answers nothing. Its guard finds out and says so.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::processes;

use crate::Stage;
use crate::replicas::{CLIENTS, REQUESTS, ask_for_long};

/// How long a change may take to be found on a busy machine.
const FOUND: Duration = Duration::from_secs(60);

fn signal(name: &str, pid: u32) {
    xtask::tree::run(Command::new("kill").args([name, &pid.to_string()])).unwrap();
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FOUND, "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

// A15
#[test]
fn one_of_three_replicas_hangs_under_load_and_people_do_not_notice() {
    let stage = Stage::set_with_copy(&[(
        "run = [\"/usr/bin/python3\", \"web/server.py\"]",
        "run = [\"/usr/bin/python3\", \"web/server.py\"]\nreplicas = { min = 3, max = 3 }\n\
         health = { path = \"/healthz\", interval = \"200ms\", timeout = \"1s\", unhealthy = 2, healthy = 2 }",
    )]);
    let programs: Vec<u32> = {
        let guards = processes::tree(stage.running.pid()).unwrap().into_iter().filter(|process| process.name == "guard web");
        let below = |guard: processes::Process| processes::tree(guard.pid).unwrap().into_iter().find(|one| one.name.ends_with("server.py"));
        guards.filter_map(below).map(|process| process.pid).collect()
    };
    assert_eq!(programs.len(), 3);
    let said = |act: &str| crate::audit_text(&stage.running.dir).matches(&format!("\"act\":\"{act}\"")).count();
    until("each was well before it got requests", || said("service.healthy") == 3);
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask_for_long(&stage)).collect();
    std::thread::sleep(Duration::from_secs(2));
    signal("-STOP", programs[1]);
    until("it is found to hang", || said("service.unhealthy") == 1);
    let (mut asked, mut wrong) = (0, Vec::new());
    for client in clients {
        let said = String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap();
        asked += said.lines().count();
        wrong.extend(said.lines().filter(|status| *status != "200").map(str::to_owned));
    }
    println!("{asked} requests, {} errors: {wrong:?}", wrong.len());
    assert_eq!(asked, CLIENTS * REQUESTS);
    assert!(wrong.len() * 1000 <= asked, "{} of {asked}: {wrong:?}", wrong.len());
    signal("-CONT", programs[1]);
    until("it comes back", || said("service.healthy") == 4);
}
