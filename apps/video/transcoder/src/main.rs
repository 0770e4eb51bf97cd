//! The transcoder: turns a checked original into renditions that every browser plays, and a poster.
//!
//! Environment: `PORT`, `AWS_ENDPOINT_URL`, `QUEUE_URL`; optionally `TMPDIR`, `FFMPEG` (default `/usr/bin/ffmpeg`),
//! `TRANSCODE_WALL_S` (default 3300), `OTEL_EXPORTER_OTLP_ENDPOINT`.

use std::process::ExitCode;

use video_transcoder::service;

fn main() -> ExitCode {
    video_wire::serve::run(service::NAME, service::assemble)
}
