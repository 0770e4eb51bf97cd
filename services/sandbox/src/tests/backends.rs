//! The same tests with bubblewrap in the place of what is built here. Needs `bwrap` (Debian: bubblewrap).

use std::process::Command;

use super::*;

/// Tests of this crate that hold under both; each in a process of its own, which has the word for bubblewrap.
const SAME: [&str; 24] = [
    "ahead::an_init_that_waits_is_used_for_one_start_and_nothing_is_lost_with_it",
    "contained::a_dropped_handle_kills",
    "contained::a_frozen_sandbox_stands_still_and_can_be_looked_into",
    "contained::a_service_that_ignores_its_end_is_gone_with_all_it_started_once_the_grace_is_over",
    "contained::bombs_are_contained",
    "contained::orphans_end_with_their_service",
    "contained::the_wall_clock_ends_it",
    "contained::when_the_guard_is_killed_the_service_is_gone",
    "drift::a_file_that_is_changed_under_a_running_service_ends_it",
    "drift::a_file_that_is_replaced_by_another_ends_a_service_that_could_open_it_by_its_path",
    "keys::no_workload_reads_or_traces_its_guard",
    "keys::the_only_ways_in_and_out_are_descriptors_that_were_passed",
    "refused::a_changed_script_or_tool_is_refused",
    "refused::a_swapped_program_is_refused",
    "syscalls::denied_calls_are_told_by_name",
    "syscalls::what_was_traced_is_enough_and_nothing_besides_is_allowed",
    "talking::a_flow_leads_to_its_listener",
    "talking::services_in_rust_and_python_answer_and_end_when_asked",
    "unreachable::an_unprivileged_guard_gets_the_same_sandbox",
    "unreachable::each_start_is_fresh",
    "unreachable::no_address_is_reached_but_the_flows",
    "unreachable::nothing_is_left_of_roots_powers",
    "unreachable::other_processes_are_neither_seen_nor_signalled",
    "unreachable::what_can_be_opened_is_what_is_declared",
];

#[test]
fn bubblewrap_in_our_place_passes_the_same_tests() {
    // I16
    let ground = Ground::new();
    let mut profile = ground.profile(&["sleep"]);
    profile.backend = Backend::Bwrap;
    let report = spawn(profile).unwrap().applied().clone();
    assert_eq!(report.level, Some(Level::Full));
    assert!(report.to_string().contains("by bwrap: own root"), "{report}");
    for layer in spawn(Profile { backend: Backend::Own, ..ground.profile(&["sleep"]) }).unwrap().applied().layers.iter() {
        assert_eq!(report.holds(layer.name), layer.applied, "{}: {report}", layer.name);
    }
    let run = |test: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let out = command.args(["--exact", &format!("tests::{test}"), "--nocapture"]).env("SANDBOX_BACKEND", "bwrap").output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (!out.status.success() || !said.contains("1 passed")).then(|| format!("{test}:\n{said}"))
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let halves = SAME
            .chunks(SAME.len().div_ceil(3))
            .map(|some| scope.spawn(move || some.iter().filter_map(|test| run(test)).collect::<Vec<_>>()));
        halves.collect::<Vec<_>>().into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} tests fail under bubblewrap:\n{}", failed.len(), failed.join("\n"));
}
