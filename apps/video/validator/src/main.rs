//! The validator: says of each uploaded file whether it is a sound video, before anything decodes it.
//!
//! Environment: `PORT`, `AWS_ENDPOINT_URL`, `QUEUE_URL`, optionally `OTEL_EXPORTER_OTLP_ENDPOINT`.

use std::process::ExitCode;

fn main() -> ExitCode {
    video_wire::serve::run(video_validator::service::NAME, || async { video_validator::service::assemble() })
}
