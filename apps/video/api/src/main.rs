//! The API of the video platform: a catalogue of who has which videos, and how far they are.
//!
//! Environment: `PORT`, `STATE_DIR`, `AWS_ENDPOINT_URL`.

mod answer;
mod catalogue;
mod route;
mod status;
mod video;

use std::process::ExitCode;

fn main() -> ExitCode {
    video_wire::serve::run(route::NAME, route::assemble)
}
