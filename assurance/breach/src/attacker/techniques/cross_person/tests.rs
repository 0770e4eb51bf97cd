#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;

use serde_json::json;

use super::*;
use crate::attacker::http::{Answer, Ask};
use crate::attacker::nearby::{Knocked, Nearby, Shown, Speaks};
use crate::attacker::play::CONTENT_BYTES;
use crate::attacker::script::Targets;
use crate::attacker::techniques::Thief;
use crate::predict::tests::{VIDEO, parsed};
use crate::{Act, Mark, Outcome};

/// An edge whose services hand out these grants, and whose store answers every URL so: `good` those as they were given, `bent` the others.
struct Edge {
    grants: bool,
    good: u16,
    bent: u16,
    asked: RefCell<Vec<Request>>,
}

const OWN_GET: &str = "/renditions/OWN/renditions?X-Amz-Expires=300&X-Amz-Signature=1";
const OWN_PUT: &str = "/originals/OWN/originals?X-Amz-Expires=300&X-Amz-Signature=2";

fn own(url: &str) -> String {
    url.replace("OWN", &if url.contains("originals") { next(&mark("ada")) } else { mark("ada") })
}

fn mark(person: &str) -> String {
    Mark::new(Act::Calm, "none", person, 0).to_string()
}

impl Ask for Edge {
    fn ask(&self, request: &Request) -> io::Result<Answer> {
        self.asked.borrow_mut().push(request.clone());
        let status = |status| Ok(Answer { status, ..Answer::default() });
        if request.target.contains("X-Amz-Signature") {
            return status(if [OWN_GET, OWN_PUT].map(own).contains(&request.target) { self.good } else { self.bent });
        }
        if !request.target.starts_with("/api") {
            return status(404);
        }
        let mut said = json!({ "breach_service": "api" });
        let is_new = request.target.contains(&next(&mark("ada")));
        if let Some(fields) = said.as_object_mut().filter(|_| self.grants && is_new) {
            let put = json!([{ "method": "PUT", "bucket": "originals", "url": own(OWN_PUT), "headers": { "content-type": "video/mp4" } }]);
            fields.insert("uploads".to_owned(), put);
        } else if let Some(fields) = said.as_object_mut().filter(|_| self.grants) {
            fields.insert("downloads".to_owned(), json!([{ "method": "GET", "bucket": "renditions", "url": own(OWN_GET) }]));
        }
        Ok(Answer { status: 200, body: said.to_string().into_bytes(), ..Answer::default() })
    }
}

struct Nobody;

impl Nearby for Nobody {
    fn listeners(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    fn knock(&self, _at: SocketAddr, _shown: &Shown, _speaks: Speaks) -> Knocked {
        panic!("nobody knocks here")
    }
}

impl Thief for Nobody {
    fn prove(&self, _method: &str, _path: &str, _token: Option<&str>, _nonce: Option<&str>) -> io::Result<String> {
        panic!("nobody proves anything here")
    }
    fn with_another_certificate(&self) -> &dyn Ask {
        panic!("nobody has a certificate here")
    }
}

fn tried(edge: &Edge) -> Vec<crate::Tried> {
    let script = Script::of(&parsed(VIDEO), Targets::default(), Vec::new());
    let visitor = Visitor {
        who: Who::Vendor,
        door: edge,
        bare: edge,
        script: &script,
        own: mark("ada"),
        victim: mark("bob"),
        scopes: None,
        lesser: None,
        stolen: &[],
        credentials: &[],
        bound: &[],
        unbound: &[],
        thief: &Nobody,
        as_another_user: &|_, _| Err(io::ErrorKind::PermissionDenied.into()),
        nearby: &Nobody,
        by_password_alone: &|| Ok(false),
    };
    let mut notes = Notes::new(ROW.id, &Mark::new(Act::Calm, "none", "ada", 0));
    run(&visitor, &mut notes);
    notes.gathered()
}

fn edge(grants: bool, good: u16, bent: u16) -> Edge {
    Edge { grants, good, bent, asked: RefCell::default() }
}

// L8, L10: bent URLs carry to the byte what the grant is for, so that nothing but the signature refuses them.
#[test]
fn a_grant_is_bent_and_nothing_else_of_it_is_changed() {
    let edge = edge(true, 200, 403);
    let all = tried(&edge);
    let said = |seen: &str| all.iter().any(|one| one.seen == seen && matches!(one.outcome, Outcome::Stopped { .. }));
    assert!(said("a bent grant to GET: 403") && said("a bent grant to PUT: 403"), "{all:?}");
    assert!(!all.iter().any(|one| matches!(one.outcome, Outcome::Untried { .. })), "{all:?}");
    let asked = edge.asked.borrow();
    let bent = |method: &str, bucket: &str| {
        let path = format!("/{bucket}/{}/{bucket}?X-Amz-Expires=300", mark("bob"));
        asked.iter().find(|one| one.method == method && one.target.starts_with(&path)).unwrap()
    };
    let put = bent("PUT", "originals");
    assert_eq!((put.body.len(), put.header("content-type")), (CONTENT_BYTES, Some("video/mp4")));
    assert!(bent("GET", "renditions").body.is_empty());
}

// L8: one that is good is what it is: reading is reading, and a life that was made longer is the own one's.
#[test]
fn a_bent_grant_that_is_good_is_reached_by_its_method() {
    let all = tried(&edge(true, 200, 200));
    let cells: BTreeSet<&Cell> = all.iter().flat_map(|one| &one.cells).filter(|cell| cell.target.starts_with("bucket.")).collect();
    let (read, written) = (|extent| Cell::read("bucket.renditions", extent), |extent| Cell::written("bucket.originals", extent));
    let expected = [read(Extent::Everybody), read(Extent::Own), written(Extent::Everybody), written(Extent::Own)];
    assert_eq!(cells, expected.iter().collect());
}

// L8, L10: where no grant came, or none that is good, nothing was bent, and that is said.
#[test]
fn without_a_good_grant_nothing_was_tried() {
    for edge in [edge(false, 200, 403), edge(true, 403, 403)] {
        let all = tried(&edge);
        for method in ["GET", "PUT"] {
            let why = format!("no presigned URL to {method} was given to it that is good");
            assert!(all.iter().any(|one| one.outcome == Outcome::Untried { why: why.clone() }), "{method}: {all:?}");
        }
    }
}
