//! The API of the video platform: a catalogue of who has which videos, and how far they are.
//!
//! Environment: `PORT`, `STATE_DIR`, `AWS_ENDPOINT_URL`.

use std::process::ExitCode;

use video_api::route;

fn main() -> ExitCode {
    video_wire::serve::run(route::NAME, route::assemble)
}
