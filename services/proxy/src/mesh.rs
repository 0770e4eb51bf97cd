//! A guard's data path: what comes in to its service (`inbound`) and what goes out of it (`outbound`), each as the named steps of
//! DESIGN section 5 in one file.
//!
//! The service sees loopback only. It is told who asks in headers that nobody else can set, and gets the transaction token as an opaque
//! value to pass along. What it passes along counts only if this guard delivered it and the request that brought it is still under way.
//!
//! Guarantees: A5, A6, D1, D4 to D7, D10, D11, E17, A18, J2, J7.
//! Not here:   the sandbox, starting the service, measuring it (the assembly); policies (`view`).

mod fault;
mod flight;
mod h2c;
mod health;
mod inbound;
mod job;
mod outbound;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};

use contract::Body;
use http::{Request, Response};
use telemetry::Recorder;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use trust::{Clock, Fault, SpiffeId};

use crate::bundle::PeerSvid;
use crate::client::{Address, MachineResolver, MeshTransport, Patience, Resolve};
use crate::serve::{self, accepting, connection};
use crate::svid::WorkloadIdentity;
use crate::view::ViewHolder;

use fault::Faults;
use flight::{Flight, Places};
use health::Health;
pub use job::Job;
use outbound::egress::{self, Destinations};
pub use service::Connector;
use service::Service;

/// One service's guard.
pub struct Guard {
    identity: Arc<WorkloadIdentity>,
    views: Arc<ViewHolder>,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    service: Service,
    flight: Flight,
    places: Places,
    peers: Mutex<BTreeMap<SpiffeId, Arc<MeshTransport>>>,
    destinations: Destinations,
    faults: Faults,
    health: Health,
    dangerous_without: DangerousWithout,
}

/// What a guard does not look at. In a throw-away copy of a system alone, to see that an attack finds that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DangerousWithout {
    /// A genuine token counts although this guard never delivered it, or what brought it is over.
    pub flight: bool,
    /// Routes that are not declared are let out.
    pub routes: bool,
    /// Whoever calls is let in, and on whatever route.
    pub callers: bool,
    /// A destination outside is the one that the service asks for.
    pub destinations: bool,
}

impl Guard {
    /// A guard that decides by `views` and reaches its service through `connector`.
    #[must_use]
    pub fn new(views: Arc<ViewHolder>, recorder: Recorder, clock: Arc<dyn Clock>, connector: Arc<dyn Connector>) -> Arc<Self> {
        Self::resolving_by(views, recorder, clock, connector, Arc::new(MachineResolver))
    }

    /// The same without a part of its checks. For a throw-away copy of a system alone, to see that an attack finds that.
    #[must_use]
    pub fn dangerous_new(
        views: Arc<ViewHolder>,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        connector: Arc<dyn Connector>,
        without: DangerousWithout,
    ) -> Arc<Self> {
        Arc::new(Self { dangerous_without: without, ..Self::made(views, recorder, clock, connector, Arc::new(MachineResolver)) })
    }

    /// The same, which resolves the names of destinations outside by `resolver`.
    pub(crate) fn resolving_by(
        views: Arc<ViewHolder>,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        connector: Arc<dyn Connector>,
        resolver: Arc<dyn Resolve>,
    ) -> Arc<Self> {
        Arc::new(Self::made(views, recorder, clock, connector, resolver))
    }

    fn made(
        views: Arc<ViewHolder>,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        connector: Arc<dyn Connector>,
        resolver: Arc<dyn Resolve>,
    ) -> Self {
        Self {
            destinations: Destinations::new(resolver, Arc::clone(&clock)),
            faults: Faults::default(),
            health: Health::default(),
            identity: Arc::clone(views.identity()),
            views,
            recorder,
            clock,
            service: Service::new(connector),
            flight: Flight::default(),
            places: Places::default(),
            peers: Mutex::default(),
            dangerous_without: DangerousWithout::default(),
        }
    }

    /// Lets requests in from the mesh, until `stop` and the end of what is in flight.
    ///
    /// # Errors
    /// When the listener cannot be used at all.
    pub async fn inbound(self: Arc<Self>, listener: StdListener, stop: CancellationToken) -> io::Result<()> {
        let (identity, recorder) = (Arc::clone(&self.identity), self.recorder.clone());
        let guard = Arc::clone(&self);
        let handler = move |peer, request| inbound::serve(Arc::clone(&self), peer, request);
        let carry = move |peer, stream, stop| inbound::flow::carry(Arc::clone(&guard), peer, stream, stop);
        serve::flows::mesh_and_flows(&identity, listener, stop, (recorder, inbound::POINT), handler, carry).await
    }

    /// Answers one request of a workload whose SVID was verified: what `inbound` does once a handshake is over.
    pub async fn answer(self: &Arc<Self>, peer: impl Into<Arc<PeerSvid>>, request: Request<Body>) -> Response<Body> {
        inbound::serve(Arc::clone(self), peer.into(), request).await
    }

    /// Takes requests from the service on the sandbox's listener for `port`, until `stop` and the end of what is in flight.
    ///
    /// # Errors
    /// When the listener cannot be used at all.
    pub async fn outbound(self: Arc<Self>, port: u16, listener: StdListener, stop: CancellationToken) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let each = |(stream, _): (TcpStream, SocketAddr)| {
            let (guard, stop) = (Arc::clone(&self), stop.clone());
            async move {
                // Without it small requests are slower, nothing else.
                let _nodelay = stream.set_nodelay(true);
                if outbound::flow::is_raw(&guard, port) {
                    return outbound::flow::carry(guard, port, stream, stop).await;
                }
                let refused = serve::refused_messages(&guard.recorder, outbound::POINT, guard.identity.id().to_string());
                if egress::is_outside(&guard, port) {
                    let handler = move |request| egress::serve(Arc::clone(&guard), port, request);
                    return connection::by_preface(stream, handler, &stop, refused).await;
                }
                let handler = move |request| outbound::serve(Arc::clone(&guard), port, request);
                connection::by_preface(stream, handler, &stop, refused).await;
            }
        };
        accepting::run(listener, each, &stop).await;
        Ok(())
    }

    /// Requests and deliveries under way: zero for `idle_stop_s` is when a service that scales to zero may be stopped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.places.taken()
    }

    fn transport(&self, peer: &SpiffeId) -> Result<Arc<MeshTransport>, Fault> {
        let mut peers = self.peers.lock().map_err(|_| Fault::internal("the table of peers is poisoned"))?;
        if let Some(transport) = peers.get(peer) {
            return Ok(Arc::clone(transport));
        }
        let address = Address::Viewed(Arc::clone(&self.views));
        let transport = MeshTransport::new(&self.identity, peer.clone(), address, Patience::Call)?;
        peers.insert(peer.clone(), Arc::clone(&transport));
        Ok(transport)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("identity", &self.identity).field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
