//! D9: faults on purpose, from the manifest to the answer that a browser gets; put in and taken out while the system runs.

use std::process::Command;
use std::time::{Duration, Instant};

use xtask::curl::Ask;

use crate::Stage;

const FAULT: &str = "\n[fault.refusing]\nservice = \"web\"\nfrom = \"edge\"\nheader = \"x-fault\"\nabort = 418\n";

// D9
#[test]
fn a_fault_happens_while_the_manifest_has_it_and_everybody_is_told() {
    let anchor = "[data.page]                # the page itself, without anybody's data";
    let stage =
        Stage::set_with_copy(&[("name = \"video\"\n", "name = \"video\"\nfaults = true\n"), (anchor, &format!("{FAULT}\n{anchor}"))]);
    let manifest = stage.setting.manifest.display().to_string();
    let check = Command::new(&stage.running.palisade).args(["check", "--manifest", &manifest]).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && said.contains("FAULTS ON PURPOSE") && said.contains("refusing"), "{said}");

    let status = |fields: &[(&str, &str)]| stage.ada.curl.ask("/", &Ask { headers: fields, ..Ask::default() }).unwrap().status;
    assert_eq!((status(&[("x-fault", "1")]), status(&[])), (418, 200));
    assert_eq!(stage.running.person("stranger", &stage.scratch.0).curl.ask("/", &Ask::default()).unwrap().status / 100, 3);
    stage.counted("fault.injected");

    let text = std::fs::read_to_string(&stage.setting.manifest).unwrap();
    let left_behind = text.replace("faults = true\n", "");
    std::fs::write(&stage.setting.manifest, &left_behind).unwrap();
    let refused = stage.running.cli(&["apply", "--manifest", &manifest]).unwrap_err().to_string();
    assert!(refused.contains("takes no faults on purpose"), "{refused}");
    assert_eq!(status(&[("x-fault", "1")]), 418, "nothing has changed");
    std::fs::write(&stage.setting.manifest, left_behind.replace(FAULT, "")).unwrap();
    stage.running.cli(&["apply", "--manifest", &manifest]).unwrap();
    let start = Instant::now();
    while status(&[("x-fault", "1")]) != 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "it is taken out, and happens still");
        std::thread::sleep(Duration::from_millis(100));
    }
}
