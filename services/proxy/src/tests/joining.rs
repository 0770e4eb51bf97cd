//! Joining and renewing over `identity`'s socket.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::identity::{Join, ROUTES, Renew};
use contract::{Body, Caller, Peer, Room, Route, body};
use http::{Request, Response, StatusCode};
use trust::{Secret, SpiffeId, SystemEntropy};

use super::world::{TestCa, World};
use crate::enforce::{Enforcement, Views};
use crate::renewal::{self, Invitation, JoinError, Kept};
use crate::serve;
use crate::svid::WorkloadIdentity;

/// An `identity` that issues to whoever has the token, for `life_s`.
struct Issuing {
    ca: Arc<TestCa>,
    id: SpiffeId,
    life_s: i64,
    seen: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Room for Issuing {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }
    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match (path.as_str(), &caller.peer) {
            ("/join", Peer::Local(local)) => {
                assert_eq!(local.pid, i32::try_from(std::process::id()).unwrap());
                let join: Join = body::parse_json(request.into_body()).await.unwrap();
                self.seen.lock().unwrap().push(join.token);
                body::json(StatusCode::OK, &self.ca.issue(&join.csr, &self.id, 0, self.life_s))
            }
            ("/renew", Peer::Workload(id)) => {
                self.seen.lock().unwrap().push(format!("renew {id}"));
                let renew: Renew = body::parse_json(request.into_body()).await.unwrap();
                body::json(StatusCode::OK, &self.ca.issue(&renew.csr, id, 0, self.life_s))
            }
            _ => body::plain(StatusCode::FORBIDDEN),
        }
    }
}

fn no_pidfd(_: std::os::fd::BorrowedFd<'_>) -> Option<std::os::fd::OwnedFd> {
    None
}

struct Socket {
    world: World,
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    id: SpiffeId,
}

/// Serves `Issuing` in the name of the role `server`.
fn socket(server: &str, life_s: i64) -> Socket {
    let world = World::new();
    let ca = Arc::new(TestCa::new("pair.example"));
    let identity = ca.identity(&ca.domain.role(server), world.clock.clone());
    let id = ca.domain.service("front");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let room = Issuing { ca: Arc::clone(&ca), id: id.clone(), life_s, seen: Arc::clone(&seen) };
    let bundle = Some(Arc::clone(identity.bundle()));
    let room = Arc::new(Enforcement::new(Arc::new(room), "identity", world.recorder.clone(), world.clock.clone(), bundle, Views::Unneeded));
    let folder = tempfile::tempdir().unwrap();
    let listener = crate::listen::unix(&folder.path().join("identity")).unwrap();
    let stop = world.stop.clone();
    tokio::spawn(async move { serve::joining(room, &identity, listener, no_pidfd, stop).await });
    std::fs::write(folder.path().join("roots"), ca.bundle().roots.join("\n")).unwrap();
    Socket { world, folder, seen, id }
}

impl Socket {
    async fn join(&self) -> Result<Arc<WorkloadIdentity>, JoinError> {
        let roots = std::fs::read_to_string(self.folder.path().join("roots")).unwrap().lines().map(str::to_owned).collect();
        let invitation = Invitation {
            spiffe_id: self.id.clone(),
            socket: self.folder.path().join("identity"),
            token: Secret::new("the-token".to_owned()),
            roots,
            artefacts: Vec::new(),
        };
        renewal::join(invitation, self.world.clock.clone(), SystemEntropy::shared()).await
    }
}

// C5, C7
#[tokio::test]
async fn a_process_joins_with_its_token() {
    let socket = socket("identity", 3600);
    let identity = socket.join().await.unwrap();
    assert_eq!(identity.id(), &socket.id);
    assert_eq!(*socket.seen.lock().unwrap(), ["the-token"]);
}

// C7: somebody else behind the socket, even with a good SVID, is not told the token.
#[tokio::test]
async fn the_token_is_not_told_to_anyone_but_identity() {
    let socket = socket("queue", 3600);
    let refused = socket.join().await.unwrap_err();
    assert!(matches!(&refused, JoinError::Identity(fault) if fault.kind == trust::FaultKind::Refused), "{refused}");
    assert!(socket.seen.lock().unwrap().is_empty());
}

// C7: without an SVID nothing but joining is answered there.
#[tokio::test]
async fn a_process_without_an_svid_may_only_join() {
    let socket = socket("identity", 3600);
    let identity = socket.join().await.unwrap();
    let path = socket.folder.path().join("identity");
    let anonymous = crate::client::IdentityTransport::new(path, identity.bundle(), None).unwrap();
    for route in ROUTES.iter().filter(|route| route.path != "/join") {
        let request = super::world::request(route.method, route.path, &[], body::empty());
        let status = contract::Transport::send(&*anonymous, request).await.unwrap().status();
        assert!(status == 401 || status == 403, "{}: {status}", route.path);
    }
}

// C9
#[tokio::test]
async fn an_svid_is_renewed_at_half_of_its_life_with_a_new_key() {
    let socket = socket("identity", 4);
    let identity = socket.join().await.unwrap();
    let (kid, mut changed) = (identity.signing_key().kid().to_owned(), identity.changed());
    let path = socket.folder.path().join("identity");
    let keeping = tokio::spawn(renewal::keep(
        Arc::clone(&identity),
        path,
        socket.world.recorder.clone(),
        SystemEntropy::shared(),
        socket.world.stop.clone(),
    ));
    tokio::time::timeout(Duration::from_secs(4), changed.changed()).await.expect("renewed before its end").unwrap();
    assert_ne!(identity.signing_key().kid(), kid);
    assert_eq!(socket.seen.lock().unwrap().last().unwrap(), &format!("renew {}", socket.id));
    socket.world.stop.cancel();
    assert_eq!(keeping.await.unwrap(), Kept::Stopped);
}

// C9: identity away for good: the end is said, not hidden.
#[tokio::test]
async fn an_svid_that_cannot_be_renewed_ends() {
    let socket = socket("identity", 3);
    let identity = socket.join().await.unwrap();
    let nowhere = socket.folder.path().join("nowhere");
    let kept = renewal::keep(identity, nowhere, socket.world.recorder.clone(), SystemEntropy::shared(), socket.world.stop.clone());
    assert_eq!(tokio::time::timeout(Duration::from_secs(8), kept).await.unwrap(), Kept::Ended);
}
