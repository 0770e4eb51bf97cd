//! Events as they arrive and leave: CloudEvents 1.0 in binary mode, data as JSON.
//!
//! Spec:       CloudEvents 1.0 HTTP protocol binding, section 3.1.
//! Guarantees: H1 an event without its required attributes is refused for good, not tried again.
//! Not here:   what each type means.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::{Context, text};

/// An event to publish.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ce-id`: the same effect has the same id, however often it is published.
    pub id: String,
    /// `ce-type`.
    pub kind: &'static str,
    /// `ce-subject`: the object that it is about.
    pub subject: String,
    /// The data.
    pub data: Value,
}

/// An event that was delivered.
#[derive(Debug)]
pub struct Delivery {
    /// What the delivery brought to be passed along.
    pub context: Context,
    /// `ce-id`.
    pub id: String,
    /// `ce-type`.
    pub kind: String,
    /// `ce-subject`: the object that the work is about.
    pub subject: Option<String>,
    /// `Palisade-Queue`: the queue that it came from.
    pub queue: Option<String>,
    data: Value,
}

/// How a service answers a delivery.
#[derive(Debug)]
pub enum Outcome {
    /// Done: 204.
    Done,
    /// It can never succeed: 422.
    Never(String),
    /// Something else is in the way; try again later: 503.
    Later(String),
}

impl Delivery {
    /// Reads a delivery from a request's headers and body.
    ///
    /// # Errors
    /// [`Outcome::Never`] when a required attribute is missing or the data is no JSON.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Outcome> {
        let attribute = |name: &str| text(headers, name).ok_or_else(|| Outcome::Never(format!("the event has no {name} header")));
        let version = attribute("ce-specversion")?;
        if version != "1.0" {
            return Err(Outcome::Never(format!("CloudEvents {version} is not understood, only 1.0")));
        }
        Ok(Self {
            context: Context::from_headers(headers),
            id: attribute("ce-id")?,
            kind: attribute("ce-type")?,
            subject: text(headers, "ce-subject"),
            queue: text(headers, "palisade-queue"),
            data: serde_json::from_slice(body).map_err(|error| Outcome::Never(format!("the event's data is no JSON: {error}")))?,
        })
    }

    /// The data as a typed value.
    ///
    /// # Errors
    /// [`Outcome::Never`] when a field is missing or of another type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Outcome> {
        T::deserialize(&self.data).map_err(|error| Outcome::Never(format!("the data of {}: {error}", self.kind)))
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        match self {
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            Self::Never(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
            Self::Later(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        }
    }
}
