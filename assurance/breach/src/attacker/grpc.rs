//! gRPC, as much as the attacker needs: HTTP/2 by prior knowledge, one message each way, trailers.
//!
//! The message is JSON, as everywhere between attackers; a guard does not look into it. In a sandbox whose list of system calls has no
//! `epoll` nothing of this runs, as no gRPC library does.
//!
//! Spec:       gRPC over HTTP/2 (PROTOCOL-HTTP2.md): length-prefixed messages, `grpc-status`; RFC 9113, section 3.3.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::heard;
use super::http::{Answer, Request};

/// Media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/grpc";
/// Longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Requests at the same time, each with a thread.
const THREADS_MAX: usize = 32;
/// Flag and length before a message.
const PREFIX: usize = 5;

/// Where an answer is given to.
pub(super) type Reply = Box<dyn FnOnce(Answer) + Send>;

/// A message as it is sent.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// A request as a call, for whoever speaks HTTP/2 already.
#[must_use]
pub fn called(request: Request, message: &[u8]) -> Request {
    request.body(MEDIA_TYPE, framed(message)).with("te", "trailers")
}

/// The message of a body, or the body where there is none in it.
#[must_use]
pub fn message(body: &[u8]) -> &[u8] {
    let whole = body.split_first_chunk::<PREFIX>().filter(|([flag, length @ ..], rest)| {
        *flag == 0 && usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length == rest.len())
    });
    whole.map_or(body, |(_, rest)| rest)
}

/// Answers until it is killed: `answer` is called in a thread of its own, and may go on after it has replied.
///
/// # Errors
/// There is no way to wait for sockets in this sandbox.
pub(super) fn serve(listener: TcpListener, answer: Arc<dyn Fn(Request, Reply) + Send + Sync>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(THREADS_MAX).build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let answer = Arc::clone(&answer);
            let service = hyper::service::service_fn(move |request| answered(request, Arc::clone(&answer)));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    })
}

async fn answered(
    request: hyper::Request<hyper::body::Incoming>,
    answer: Arc<dyn Fn(Request, Reply) + Send + Sync>,
) -> io::Result<hyper::Response<impl Body<Data = Bytes, Error = Infallible>>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MESSAGE_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let asked = Request { method: parts.method.as_str().to_owned(), target, headers: texts(&parts.headers), body: message(&body).to_vec() };
    let (send, receive) = tokio::sync::oneshot::channel();
    // Who asked may have gone meanwhile.
    tokio::task::spawn_blocking(move || answer(asked, Box::new(move |answer| drop(send.send(answer)))));
    let answer = receive.await.map_err(io::Error::other)?;
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed(&answer.body))).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = hyper::Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

/// Sends a request, and waits for the answer: its message, with trailers among its headers.
///
/// # Errors
/// There is none, or no way to wait for one in this sandbox.
pub fn ask(at: SocketAddr, request: &Request) -> io::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_MAX, asked(at, request)).await.map_err(io::Error::from).flatten() });
    heard::hear(answer.as_ref().ok());
    answer
}

async fn asked(at: SocketAddr, request: &Request) -> io::Result<Answer> {
    let stream = tokio::net::TcpStream::connect(at).await?;
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut built = hyper::Request::builder().method(request.method.as_str()).uri(format!("http://{at}{}", request.target));
    let own = ["content-type", "content-length", "te", "host"];
    for (name, value) in request.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        built = built.header(name, value);
    }
    let built = built.header(CONTENT_TYPE, MEDIA_TYPE).header(TE, "trailers");
    let built = built.body(Full::new(Bytes::from(framed(&request.body)))).map_err(io::Error::other)?;
    let (parts, body) = sender.send_request(built).await.map_err(io::Error::other)?.into_parts();
    let whole = Limited::new(body, MESSAGE_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    let mut headers = texts(&parts.headers);
    headers.extend(whole.trailers().map(texts).unwrap_or_default());
    Ok(Answer { status: parts.status.as_u16(), headers, body: message(&whole.to_bytes()).to_vec() })
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // D8: a message each way, and what a refusal of a guard looks like.
    #[test]
    fn a_message_is_answered_with_a_message_and_trailers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let answer = |request: Request, reply: Reply| {
                let said =
                    format!("{} {} {}", request.target, request.header("txn-token").unwrap(), String::from_utf8_lossy(&request.body));
                reply(Answer { status: 200, headers: Vec::new(), body: said.into_bytes() });
            };
            serve(listener, Arc::new(answer))
        });
        let request = Request::new("POST", "/a.B/C").with("txn-token", "t").body("application/json", "{}");
        let answer = ask(at, &request).unwrap();
        assert_eq!((answer.text().as_str(), answer.header("grpc-status"), answer.is_success()), ("/a.B/C t {}", Some("0"), true));
        let refused = Answer { status: 200, headers: vec![("grpc-status".to_owned(), "7".to_owned())], body: Vec::new() };
        assert!(!refused.is_success(), "PERMISSION_DENIED");
    }

    #[test]
    fn a_body_without_a_frame_is_itself() {
        assert_eq!(message(&framed(b"hello")), b"hello");
        for body in [&b""[..], b"{}", b"\0\0\0\0\x09short", b"\x01\0\0\0\x02{}"] {
            assert_eq!(message(body), body);
        }
    }
}
