//! Answers that are no success: what went wrong, and what to do about it.
//!
//! Guarantees: what a person gets to see never holds a neighbour's words; those go to the log.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use video_wire::{fault::Fault, serve::log};

use crate::{catalogue::CatalogueFault, route::NAME, video::Objection};

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: &'static str,
    hint: &'static str,
}

impl Refusal {
    /// What was asked for makes no sense.
    pub(crate) fn bad((error, hint): Objection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, hint }
    }

    /// Nobody is signed in.
    pub(crate) fn nobody() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "You are not signed in.", hint: "Sign in and try again." }
    }

    /// There is no such video for this person.
    pub(crate) fn no_video() -> Self {
        let hint = "It may have been deleted; reload the page.";
        Self { status: StatusCode::NOT_FOUND, error: "There is no such video.", hint }
    }

    /// The video cannot be watched yet.
    pub(crate) fn not_ready() -> Self {
        let hint = "Wait until it is ready.";
        Self { status: StatusCode::CONFLICT, error: "This video cannot be watched yet.", hint }
    }
}

impl From<CatalogueFault> for Refusal {
    fn from(fault: CatalogueFault) -> Self {
        log(NAME, &fault.to_string());
        let hint = "Try again in a moment.";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: "The catalogue cannot be read.", hint }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        log(NAME, &fault.to_string());
        if fault.status() == Some(StatusCode::FORBIDDEN) {
            let hint = "Sign in again; if that does not help, you lack the permission.";
            return Self { status: StatusCode::FORBIDDEN, error: "The video store refused this.", hint };
        }
        let hint = "Try again in a moment.";
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: "The video store cannot be reached.", hint }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "hint": self.hint }))).into_response()
    }
}
