//! What an account keeps of a request for the access log: parts that share their bytes with the request, and two counts.
//!
//! Nothing is formatted here, and nothing at all is kept at doors without an access log.
//!
//! Not here: what a line says (`telemetry::access`), who writes it (the assembly).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::Body;
use http::{Request, header};
use http_body::Body as _;
use telemetry::{Asked, Shown};

use crate::passage::Passage;

/// Where a request came from, as its connection says.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Address; none in the mesh, where callers have identities.
    pub address: Option<IpAddr>,
    /// Version of TLS: `1.3` or `1.2`.
    pub tls: &'static str,
}

impl Arrival {
    /// Over a connection between workloads, which is TLS 1.3 always.
    pub(crate) const MESH: Self = Self { address: None, tls: "1.3" };
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) asked: Asked,
    came: Option<Arc<AtomicU64>>,
    tunnelled: u64,
    pub(crate) went: u64,
}

impl Watched {
    /// Looks at a request, whose body is counted from then on if it has one.
    pub(crate) fn begin(request: Request<Body>, arrival: Arrival, shown: Shown) -> (Box<Self>, Request<Body>) {
        let asked = Asked {
            method: request.method().clone(),
            target: request.uri().clone(),
            host: request.headers().get(header::HOST).cloned(),
            agent: request.headers().get(header::USER_AGENT).cloned(),
            version: request.version(),
            tls: arrival.tls,
            from: arrival.address,
            shown,
        };
        let mut watched = Box::new(Self { asked, came: None, tunnelled: 0, went: 0 });
        if request.body().is_end_stream() {
            return (watched, request);
        }
        let came = Arc::new(AtomicU64::new(0));
        watched.came = Some(Arc::clone(&came));
        (watched, request.map(|body| Passage::new(body).counted_in(came).into_body()))
    }

    /// What a tunnel has carried.
    pub(crate) fn tunnelled(&mut self, bytes_in: u64, bytes_out: u64) {
        (self.tunnelled, self.went) = (bytes_in, bytes_out);
    }

    /// Bytes of the caller's.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.came.as_ref().map_or(0, |came| came.load(Ordering::Relaxed)).saturating_add(self.tunnelled)
    }
}
