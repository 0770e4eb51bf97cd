//! The transcoder: turns a checked original into renditions that every browser plays, and a poster.
//!
//! Environment: `PORT`, `AWS_ENDPOINT_URL`, `QUEUE_URL`; optionally `TMPDIR`, `FFMPEG` (default `/usr/bin/ffmpeg`),
//! `TRANSCODE_WALL_S` (default 3300), `OTEL_EXPORTER_OTLP_ENDPOINT`.

mod command;
mod job;
mod ladder;
mod media;
mod progress;
mod run;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    video_wire::serve::run(service::NAME, service::assemble)
}
