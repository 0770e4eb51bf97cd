//! The contract of a guard towards `queue`: deliveries. (Calls of other services are the manifest's routes, not a contract's.)

use http::{Method, Request};
use trust::{Fault, TraceContext};

use crate::body;
use crate::queue::Leased;
use crate::route::{Route, Who};
use crate::transport::{Call, Client};

/// Every route.
pub const ROUTES: &[Route] = &[Route { method: "POST", path: "/events", action: "guard.deliver", who: Who::Roles(&["queue"]) }];

/// Header with the name of the queue.
pub const QUEUE_HEADER: &str = "palisade-queue";
/// Header with the job's id, for the service.
pub const JOB_HEADER: &str = "palisade-job";
/// Header with the person, for the service.
pub const USER_HEADER: &str = "palisade-user";
/// Header with the purpose, for the service.
pub const PURPOSE_HEADER: &str = "palisade-purpose";
/// Header of a guard's refusal that says that this replica is out: another may be asked. It means nothing from anybody but a guard.
pub const REPLICA_OUT_HEADER: &str = "palisade-replica-out";
/// Header in which `queue` announces an attempt's number, from 1.
pub const ATTEMPT_HEADER: &str = "palisade-attempt";

/// Hands a message to a guard and gives the status that its service answered with. The lease lives while this is awaited.
///
/// # Errors
/// Those of the transport; `BadRequest` when the event cannot be written as headers.
pub async fn deliver(guard: &Client, queue: &str, leased: &Leased, trace: Option<TraceContext>) -> Result<u16, Fault> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/events")
        .header(QUEUE_HEADER, queue)
        .header(JOB_HEADER, &leased.job)
        .header(ATTEMPT_HEADER, leased.attempt.to_string())
        .body(body::full(leased.event.data.clone()))
        .map_err(|error| Fault::bad_request("the message cannot be written as a request").because(error))?;
    leased.event.write_headers(request.headers_mut())?;
    let answer = guard.send(&Call { token: leased.token.as_deref(), trace }, request).await?;
    let status = answer.status().as_u16();
    // The answer's end is the delivery's end: a service that breaks off in the middle has not acknowledged.
    body::collect(answer.into_body(), trust::limits::JSON_BODY_BYTES_MAX).await?;
    Ok(status)
}
