//! MP4 and WebM: any file is checked without a panic, and to an end.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for kind in ["video/mp4", "video/webm"] {
        // Clean or not is no matter here: it must come to a verdict.
        let _verdict = futures::executor::block_on(video_validator::check(Bytes::copy_from_slice(bytes), kind));
    }
});
