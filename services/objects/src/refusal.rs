//! Answers that are no success, and how S3 clients and browsers hear of them.

use std::error::Error;

use contract::{Body, body};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use s3s::{S3Error, S3ErrorCode};
use trust::{DenyReason, Fault};

/// Why an act was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Not allowed.
    Denied(DenyReason),
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    /// `If-Match` or its like does not hold.
    Precondition,
    /// `If-None-Match` holds for a read.
    NotModified,
    /// Larger than allowed.
    TooLarge,
    /// The disk is full, but for what others than objects need; so many bytes are free.
    NoRoom {
        free: u64,
    },
    /// A part but the last is smaller than 5 MiB.
    TooSmall,
    /// No such range in an object of this size.
    Range(u64),
    /// Fewer bytes came than were announced.
    Incomplete,
    /// Other bytes came than were announced.
    BadDigest,
    /// The request makes no sense; why.
    Invalid(String),
    /// A part that was not uploaded, or with other bytes.
    InvalidPart(u32),
    /// An argument that is out of its range; how.
    Argument(String),
    /// It conflicts with what is there; how.
    Conflict(String),
    /// What is stored is not what was stored.
    Tampered,
    /// Our defect.
    Internal(Box<dyn Error + Send + Sync>),
}

impl From<DenyReason> for Refusal {
    fn from(reason: DenyReason) -> Self {
        Self::Denied(reason)
    }
}

impl From<state::StateError> for Refusal {
    fn from(error: state::StateError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<state::sqlx::Error> for Refusal {
    fn from(error: state::sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl Refusal {
    fn parts(&self) -> (u16, S3ErrorCode, String) {
        use S3ErrorCode as C;
        let said = |status: u16, code: S3ErrorCode, text: &str| (status, code, text.to_owned());
        match self {
            Self::Denied(reason) if reason.status() == 503 => said(503, C::ServiceUnavailable, reason.code()),
            Self::Denied(reason) => said(reason.status(), C::AccessDenied, reason.code()),
            Self::NoSuchBucket => said(404, C::NoSuchBucket, "there is no such bucket"),
            Self::NoSuchKey => said(404, C::NoSuchKey, "there is no such object"),
            Self::NoSuchUpload => said(404, C::NoSuchUpload, "there is no such upload"),
            Self::Precondition => said(412, C::PreconditionFailed, "a precondition does not hold"),
            Self::NotModified => said(304, C::NotModified, "not modified"),
            Self::TooLarge => said(413, C::EntityTooLarge, "the object is larger than allowed"),
            Self::NoRoom { .. } => (507, C::Custom("InsufficientStorage".into()), "the store's disk is full; try again later".to_owned()),
            Self::TooSmall => said(400, C::EntityTooSmall, "a part that is not the last has less than 5 MiB"),
            Self::Range(_) => said(416, C::InvalidRange, "the object has no such range"),
            Self::Incomplete => said(400, C::IncompleteBody, "fewer bytes came than were announced"),
            Self::BadDigest => said(400, C::BadDigest, "other bytes came than were announced"),
            Self::Invalid(why) => said(400, C::InvalidRequest, why),
            Self::InvalidPart(number) => said(400, C::InvalidPart, &format!("part {number} was not uploaded, or with other bytes")),
            Self::Argument(why) => said(400, C::InvalidArgument, why),
            Self::Conflict(why) => said(409, C::OperationAborted, why),
            Self::Tampered => said(500, C::InternalError, "the stored object is damaged"),
            Self::Internal(_) => said(500, C::InternalError, "internal error"),
        }
    }

    fn note(&self) {
        match self {
            Self::Internal(cause) => tracing::error!(%cause, "an act failed"),
            Self::NoRoom { free } => {
                tracing::error!(free, "an upload was refused: the store's disk is full; make room, and it goes on by itself")
            }
            _ => {}
        }
    }

    /// For S3 clients.
    pub(crate) fn into_s3(self) -> S3Error {
        self.note();
        let (status, code, text) = self.parts();
        let mut error = S3Error::with_message(code, text);
        if let Ok(status) = StatusCode::from_u16(status) {
            error.set_status_code(status);
        }
        if let Self::Range(size) = self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, value);
            error.set_headers(headers);
        }
        error
    }

    /// For everybody else.
    pub(crate) fn response(self) -> Response<Body> {
        self.note();
        if let Self::Denied(reason) = self {
            return body::denied(reason);
        }
        let (status, _, text) = self.parts();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_MODIFIED {
            return body::plain(status);
        }
        let mut response = body::json(status, &serde_json::json!({ "error": text }));
        if let Self::Range(size) = self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault.status() {
            400 => Self::Invalid(fault.public),
            413 => Self::TooLarge,
            502..=504 => Self::Denied(DenyReason::DependencyDown),
            _ => Self::Internal(fault.into()),
        }
    }
}
