//! One job, one sandbox: a delivery goes into a sandbox that nothing has used before, and the sandbox ends with it.
//!
//! The connection is made for this one request and never kept: what a pooled connection remembers, and who is at its other end, must not
//! survive into another job. The answer is held until nothing of the job runs any more, so a lease that has ended is a sandbox that is
//! gone. If the delivery is given up (its connection broke, its lease or time ended), the sandbox is killed at once.
//!
//! Guarantees: I8 job N cannot read a byte of job N-1; H5 the work ends with the lease.
//! Not here:   how a sandbox is made and ended (the assembly's `Connector`).

use async_trait::async_trait;
use contract::{Body, body};
use http::{Request, Response};

use super::service::{self, Connector};
use crate::client::{CallFailed, streams::broken};
use crate::passage::Passage;

/// A sandbox for one job alone. When it is dropped, everything in it is killed.
#[async_trait]
pub trait Job: Send + Sync + std::fmt::Debug + 'static {
    /// A connection to the service in it.
    ///
    /// # Errors
    /// When the service does not listen in time or has ended.
    async fn connect(&self) -> std::io::Result<std::net::TcpStream>;

    /// Ends it: asks the service to end, kills what is left after a while, and returns when nothing of it runs.
    async fn end(self: Box<Self>);
}

/// Hands one request to a sandbox of its own and gives the whole answer once that sandbox has ended.
pub(super) async fn send(connector: &dyn Connector, request: Request<Body>) -> Result<Response<Body>, CallFailed> {
    let job = connector.fresh().await.map_err(CallFailed::Unreachable)?;
    let answered = exchange(&*job, request).await;
    job.end().await;
    answered
}

async fn exchange(job: &dyn Job, request: Request<Body>) -> Result<Response<Body>, CallFailed> {
    let stream = service::adopt(job.connect().await.map_err(CallFailed::Unreachable)?)?;
    let mut sender = service::begin(stream).await?;
    let (parts, rest) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let whole = body::collect(Passage::new(rest).into_body(), trust::limits::JSON_BODY_BYTES_MAX).await;
    Ok(Response::from_parts(parts, body::full(whole.map_err(CallFailed::Unfinished)?)))
}
