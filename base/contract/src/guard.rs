//! The contract of a guard towards `queue`: deliveries. (Calls of other services are the manifest's routes, not a contract's.)

use crate::route::{Route, Who};

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
/// Header in which `queue` announces an attempt's number, from 1.
pub const ATTEMPT_HEADER: &str = "palisade-attempt";
