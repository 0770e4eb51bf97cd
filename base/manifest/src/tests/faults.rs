//! D9: faults on purpose, and that none is left behind.

use super::*;

fn with(system: &str, fault: &str) -> String {
    VIDEO.replacen("trust_domain = ", &format!("{system}trust_domain = "), 1) + fault
}

const SLOW: &str = "\n[fault.slow]\nservice = \"api\"\nroute = \"GET /api/videos\"\nfrom = \"web\"\npercent = 10\ndelay = \"200ms\"\n";

#[test]
fn faults_are_taken_by_a_system_that_says_so_and_by_no_other() {
    let manifest = Manifest::parse("x", &with("faults = true\n", SLOW)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((manifest.faults["slow"].act, manifest.faults["slow"].percent), (FaultAct::DelayMs(200), 10));
    for (text, said) in [
        (with("", SLOW), "takes no faults on purpose"),
        (with("faults = false\n", SLOW), "takes no faults on purpose"),
        (with("faults = true\n", ""), "only leave a door open"),
        (with("faults = true\n", &SLOW.replace("\"api\"", "\"apx\"")), "did you mean 'api'"),
        (with("faults = true\n", &SLOW.replace("GET /api/videos", "GET /api/video")), "has no route"),
        (with("faults = true\n", &SLOW.replace("\"web\"", "\"nobody\"")), "no workload 'nobody'"),
        (with("faults = true\n", &SLOW.replace("percent = 10", "percent = 0")), "between 1 and 100"),
        (with("faults = true\n", &SLOW.replace("percent = 10", "percent = 101")), "between 1 and 100"),
        (with("faults = true\n", &SLOW.replace("delay = \"200ms\"", "")), "exactly one of"),
        (with("faults = true\n", &SLOW.replace("percent = 10", "reset = true")), "exactly one of"),
        (with("faults = true\n", &SLOW.replace("delay = \"200ms\"", "abort = 200")), "between 400 and 599"),
        (with("faults = true\n", &SLOW.replace("percent = 10", "header = \"X-Fault\"")), "a field's name"),
    ] {
        let error = refused(&text).to_string();
        assert!(error.contains(said), "{said:?} is not in: {error}");
    }
}
