//! The edge's own surfaces, and what is behind it.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "edge-surfaces",
    title: "Asks the edge for the store, inner paths and files that it should not have.",
    attack: "T1190",
    stride: Stride::I,
    controls: &[Control::SignIn, Control::Role],
    run: Run::Outside(run, &[Who::Stranger, Who::Person, Who::Vendor]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let mut paths: Vec<String> =
        ["/metrics", "/.env", "/.git/config", "/palisade.toml", "/..%2f..%2fetc/passwd", "/palisade/view", "/records"]
            .map(str::to_owned)
            .to_vec();
    for bucket in visitor.script.buckets.keys() {
        paths.push(format!("/{bucket}"));
        paths.push(format!("/{bucket}/{}/{bucket}", visitor.victim));
        paths.push(format!("/presigned/{bucket}/{}/{bucket}", visitor.victim));
        paths.push(format!("/{bucket}/{}/{bucket}?X-Amz-Signature=0&X-Amz-Credential=x", visitor.victim));
    }
    for path in paths {
        match visitor.door.ask(&Request::new("GET", path.clone())) {
            Ok(answer) if answer.is_success() && !answer.text().contains("/oidc/") => {
                notes.reached(Cell::read(format!("edge{path}"), Extent::Everybody), format!("{path}: {}", answer.status));
            }
            Ok(answer) => notes.stopped(Some(Control::SignIn), answer.status.to_string()),
            Err(_) => notes.stopped(Some(Control::SignIn), "no answer"),
        }
    }
}
