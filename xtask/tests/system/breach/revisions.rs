//! `palisade breach --compare` against a real repository, and `--tell` to a real system: L8, L9.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use xtask::demo::Scratch;

use crate::Stage;
use crate::contained::copied;

fn git(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    // Whatever the settings of who runs this.
    command.arg("-C").arg(folder).args(["-c", "user.name=a", "-c", "user.email=a@example", "-c", "commit.gpgsign=false"]).args(arguments);
    xtask::tree::run(&mut command).unwrap();
}

// L9: what a branch lets somebody reach fails the command; what it takes away is told, and does not.
#[test]
fn a_branch_that_reaches_more_fails_and_one_that_reaches_less_is_told() {
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &[]);
    let folder = setting.manifest.parent().unwrap();
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "narrow"]);
    let before = std::fs::read_to_string(&setting.manifest).unwrap();
    let wider = before.replace(
        "calls = [\"service.api:GET /api/videos\"]",
        "calls = [\"service.api:GET /api/videos\", \"service.api:GET /api/videos/{id}\"]",
    );
    assert_ne!(before, wider);
    std::fs::write(&setting.manifest, wider).unwrap();
    git(folder, &["commit", "--quiet", "-a", "-m", "wider"]);

    let compared = |reference: &str, format: &str| {
        let mut command = Command::new(&setting.palisade);
        let output = command
            .args(["breach", &format!("--compare={reference}"), "--format", format, "--manifest"])
            .arg(&setting.manifest)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, complaints) = compared("HEAD~1", "text");
    assert_eq!(code, Some(1), "{text}{complaints}");
    assert!(text.contains("service.web now calls api GET /api/videos/{id}"), "{text}");
    let (code, text, _) = compared("HEAD~1", "json");
    let told: Value = serde_json::from_str(&text).unwrap();
    let changes = told["comparison"]["differences"].as_array().unwrap();
    assert!(code == Some(1) && !changes.is_empty() && changes.iter().all(|change| change["change"] == "added"), "{changes:?}");
    assert_eq!(compared("HEAD", "text").0, Some(0), "nothing has changed since");

    std::fs::write(&setting.manifest, &before).unwrap();
    let (code, text, complaints) = compared("HEAD", "text");
    assert_eq!(code, Some(0), "{text}{complaints}");
    assert!(text.contains("service.web no longer calls api GET /api/videos/{id}"), "{text}");
    let (code, _, complaints) = compared("no-such-branch", "text");
    assert!(code == Some(64) && complaints.contains("no such revision"), "{complaints}");
    let (code, _, _) = compared("--output=x", "text");
    assert_eq!(code, Some(64), "a revision is no option");
}

// L8: told to the system that runs, it is on its console, and on that of nobody who is no administrator.
#[test]
fn a_breach_that_is_told_is_on_the_console() {
    let stage = Stage::set();
    let page = || {
        let answer = stage.ada.curl.page("/console/breach").unwrap();
        (answer.status, answer.text())
    };
    assert!(page().1.contains("palisade breach --predict --tell"), "nothing was told yet: {:?}", page());
    let manifest = stage.setting.manifest.display().to_string();
    let mut command = Command::new(&stage.setting.palisade);
    command.args(["breach", "--predict", "--tell", "--manifest", &manifest, "--dir"]).arg(&stage.running.dir);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (status, html) = page();
    assert_eq!(status, 200);
    assert!(html.contains("service.transcoder") && html.contains("insider-mfa"), "{html}");
    assert!(!html.contains("another manifest"), "it is the one in force: {html}");
    let bob = stage.invited("bob");
    assert_ne!(bob.curl.page("/console/breach").unwrap().status, 200);
}
