//! Listening on loopback until told to stop.
//!
//! Spec:       RFC 9112; health at `GET /healthz`.
//! Guarantees: a request whose caller went away is dropped, and its work with it; SIGTERM drains.
//! Not here:   TLS, names, limits on callers: in front of a service stands someone who does that.

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, routing::get, serve::ListenerExt};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The largest request body that a service takes: an event or a small JSON document.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long requests in flight may take after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs a service: `assemble` builds its routes, then it listens on `127.0.0.1:PORT` until SIGTERM or SIGINT.
///
/// Exit codes: 0 after a drain, 64 when `assemble` fails (bad settings), 71 when it cannot listen.
pub fn run<F, E>(service: &'static str, assemble: impl FnOnce() -> F) -> ExitCode
where
    F: Future<Output = Result<Router, E>>,
    E: std::fmt::Display,
{
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(service, 71, &error),
    };
    runtime.block_on(async {
        let port = match crate::setting::port() {
            Ok(port) => port,
            Err(error) => return fail(service, 64, &error),
        };
        let router = match assemble().await {
            Ok(router) => router,
            Err(error) => return fail(service, 64, &error),
        };
        match listen(port, router).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(service, 71, &error),
        }
    })
}

/// Writes one line to the log (standard error).
pub fn log(service: &str, line: &str) {
    eprintln!("{service}: {line}");
}

fn fail(service: &str, code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    log(service, &error.to_string());
    ExitCode::from(code)
}

async fn listen(port: u16, router: Router) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?.tap_io(|stream| {
        // Without it small answers wait for the peer's acknowledgement; a failure costs only time.
        let _slow = stream.set_nodelay(true);
    });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, mut stopping) = watch::channel(false);
    let mut overdue = told.subscribe();
    let stop = async move {
        let _closed = stopping.wait_for(|stop| *stop).await;
    };
    let router = router.route("/healthz", get(async || "ok")).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let server = axum::serve(listener, router).with_graceful_shutdown(stop);
    let signals = async {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        told.send_replace(true);
        std::future::pending::<()>().await;
    };
    let limit = async {
        let _closed = overdue.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = signals => Ok(()),
        () = limit => Ok(()),
    }
}
