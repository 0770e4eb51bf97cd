//! Breaking in where there are no user namespaces: I1, I3, L8. The weaker isolation holds what is predicted of it.

use serde_json::{Value, json};
use xtask::demo::Scratch;

use super::{as_nobody, reached};
use crate::contained::copied;

const SERVICES: [&str; 4] = ["web", "api", "validator", "transcoder"];
/// Who tries: the one that calls another, the one in which strangers' bytes are decoded.
const WHO: [&str; 4] = ["--only", "web", "--only", "transcoder"];

// I1, L8: what is measured without namespaces is what the manifest predicts: in the transcoder one input, one folder, nothing else; and
// beyond the sandboxes the ports that such services share with others of the machine.
#[test]
fn without_namespaces_what_is_measured_is_what_is_predicted() {
    let confined = SERVICES.map(|service| (format!("[service.{service}] "), format!("[service.{service}]\nisolation = \"confined\" ")));
    let replace: Vec<(&str, &str)> = confined.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let scratch = Scratch::new().unwrap();
    let setting = copied(&scratch, &replace);
    let output = as_nobody(&scratch, &setting.palisade, &setting.manifest, &[&["--confined", "--profile", "external"], &WHO[..]].concat());
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{complaints}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaints}"));
    let report = &told["report"];
    assert_eq!(told["comparison"]["differences"], json!([]), "prediction and measurement differ");
    assert!(output.status.success(), "{complaints}");
    for service in ["web", "transcoder"] {
        assert_eq!(report["isolation"][service], json!({ "accepts": "confined", "at": ["confined"] }), "{service}");
    }
    let objects = |kind: &str| -> Vec<String> {
        reached(report, "service.transcoder", kind).into_iter().filter(|cell| cell.starts_with("bucket.")).collect()
    };
    assert_eq!(
        (objects("read"), objects("written")),
        (vec!["bucket.originals  job-input".to_owned()], vec!["bucket.renditions  job-folder".to_owned()])
    );
    for kind in ["secret", "egress", "disturbed"] {
        assert_eq!(reached(report, "service.transcoder", kind).len(), 0, "{kind}");
    }
    assert_eq!(report["lateral"], json!({ "web": { "api": ["GET /api/videos"] } }));
    assert!(reached(report, "external", "done").contains("inner listeners answer of somebody public"));
}
