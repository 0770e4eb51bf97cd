//! The socket of a decision point: HTTP/2 for gRPC, HTTP/1.1 or 2 for AuthZEN, over a UNIX socket of one user.
//!
//! The kernel says which user is at the other end. Whoever is not the enforcement point's user, as the manifest names it, gets no
//! connection, root included.
//!
//! Guarantees: E21: nobody else is answered; A13: connections, streams, questions under way, their sizes and their time are limited.
//! Not here:   the socket's place and mode (the assembly's).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use contract::{Body, body};
use http::{Method, Request, Response, StatusCode};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use trust::DenyReason;

use super::message::{self, Code};
use super::{DecisionPoint, POINT, authzen, check, discovery};
use crate::serve::begun::Begun;
use crate::serve::{accepting, connection, refuse, refused_messages};
use crate::{grpc, limits};

impl DecisionPoint {
    /// Serves its socket until it is stopped, and what is under way then.
    ///
    /// # Errors
    /// When the listener cannot be used at all.
    pub async fn serve(self: Arc<Self>, listener: std::os::unix::net::UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (places, stop) = (Arc::new(Semaphore::new(limits::PEP_CONNECTIONS_MAX)), self.stop.clone());
        let point = Arc::clone(&self);
        let each = move |stream: UnixStream| {
            let (point, places) = (Arc::clone(&point), Arc::clone(&places));
            async move {
                let Ok(Some(uid)) = stream.peer_cred().map(|peer| Some(peer.uid())) else { return };
                if !point.admits(uid) {
                    return refuse(&point.recorder, POINT, format!("uid {uid}"), DenyReason::CallerNotAdmitted);
                }
                let Ok(_place) = places.try_acquire_owned() else {
                    return refuse(&point.recorder, POINT, format!("uid {uid}"), DenyReason::ConcurrencyExceeded);
                };
                point.connection(uid, stream).await;
            }
        };
        tokio::select! {
            () = accepting::run(listener, each, &stop) => {}
            () = self.look_after() => {}
        }
        Ok(())
    }

    async fn connection(self: Arc<Self>, uid: u32, stream: UnixStream) {
        let first = tokio::time::timeout(Duration::from_millis(limits::HEAD_READ_MS), Begun::look(stream));
        let begun = tokio::select! {
            begun = first => begun,
            () = self.stop.cancelled() => return,
        };
        let Ok(Ok((stream, is_http2))) = begun else { return };
        let (stop, refused) = (self.stop.clone(), refused_messages(&self.recorder, POINT, format!("uid {uid}")));
        let handler = move |request| Arc::clone(&self).answer(uid, request);
        if is_http2 {
            connection::http2(stream, handler, &stop).await;
        } else {
            connection::http1(stream, handler, &stop, refused).await;
        }
    }

    /// Answers one request of the user `uid`.
    pub(crate) async fn answer(self: Arc<Self>, uid: u32, request: Request<Body>) -> Response<Body> {
        // A view that came since may name another user.
        if !self.admits(uid) {
            refuse(&self.recorder, POINT, format!("uid {uid}"), DenyReason::CallerNotAdmitted);
            return body::denied(DenyReason::CallerNotAdmitted);
        }
        let is_grpc = grpc::is_grpc(request.headers());
        match (request.method(), request.uri().path(), is_grpc) {
            (&Method::POST, check::PATH, true) => check::answer(&self, request).await,
            (&Method::POST, discovery::SECRETS, true) => discovery::stream(discovery::Kind::Secrets, self, request),
            (&Method::POST, discovery::ENDPOINTS, true) => discovery::stream(discovery::Kind::Endpoints, self, request),
            (&Method::POST, discovery::FETCH, true) => discovery::fetch(&self, request).await,
            (&Method::POST, authzen::EVALUATION | authzen::EVALUATIONS, false) | (&Method::GET, authzen::METADATA, false) => {
                authzen::answer(&self, request).await
            }
            (_, _, true) => message::failed(Code::Unimplemented, "not served here"),
            (_, authzen::EVALUATION | authzen::EVALUATIONS | authzen::METADATA, false) => body::plain(StatusCode::METHOD_NOT_ALLOWED),
            _ => body::plain(StatusCode::NOT_FOUND),
        }
    }
}
