//! Rooms: what a service crate is to the rest of the house, a function from a request with a verified caller to an answer.
//!
//! A room never sees a listener, a certificate or another service. Who called is established before it is asked.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use trust::{Authority, SpiffeId, TraceContext};

use crate::body::Body;
use crate::route::Route;

/// A service, assembled.
#[async_trait]
pub trait Room: Send + Sync + 'static {
    /// Every route that it answers; anything else is refused before it is asked.
    fn routes(&self) -> &'static [Route];

    /// Answers a request on one of its routes, from a caller that the route's `Who` admits.
    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body>;
}

/// Who calls, verified.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The process at the other end of the connection.
    pub peer: Peer,
    /// The person's authority that came along, verified against the view's keys.
    pub authority: Option<VerifiedAuthority>,
    /// The span of this request.
    pub trace: TraceContext,
}

/// A transaction token and what it says.
#[derive(Debug, Clone)]
pub struct VerifiedAuthority {
    /// What it says.
    pub authority: Authority,
    /// The token itself, to pass on.
    pub token: Arc<str>,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A workload that proved its SVID (mTLS).
    Workload(SpiffeId),
    /// A process of this machine over a UNIX socket, before it has an identity. Attested by the kernel.
    Local(LocalPeer),
    /// A process of this machine over the operator's UNIX socket, run by the user that runs Palisade.
    Operator(LocalPeer),
    /// The supervisor, over the socket pair that it made when it started this process.
    Supervisor,
}

/// What the kernel says of a process at the other end of a UNIX socket.
#[derive(Debug, Clone)]
pub struct LocalPeer {
    /// Effective user id when it connected (`SO_PEERCRED`).
    pub uid: u32,
    /// Process id when it connected.
    pub pid: i32,
    /// A handle on that very process (`SO_PEERPIDFD`, Linux 6.5), which a reused pid cannot take over. Absent on older kernels.
    pub pidfd: Option<Arc<OwnedFd>>,
}

impl Caller {
    /// The caller's SPIFFE ID, if it has one.
    #[must_use]
    pub fn workload(&self) -> Option<&SpiffeId> {
        match &self.peer {
            Peer::Workload(id) => Some(id),
            _ => None,
        }
    }

    /// The authority that came along.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref().map(|v| &v.authority)
    }
}
