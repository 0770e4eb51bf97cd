//! What a sandbox costs. Run on a quiet machine, in a release build (docs/performance.md):
//! `cargo test --release -p sandbox measured -- --ignored --nocapture --test-threads 1`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() * hundredths / 100).min(sorted.len() - 1)]
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let [p50, p90, p99] = [50, 90, 99].map(|hundredths| percentile(&times, hundredths));
    println!("{what}: p50 {p50:?}, p90 {p90:?}, p99 {p99:?}, worst {:?}, of {}", times[times.len() - 1], times.len());
}

#[test]
#[ignore = "measures; wants a quiet machine and a release build"]
fn measured_start() {
    // I13, O11: from the guard's wish to the program's exec, digest and all layers.
    let ground = Ground::new();
    let list = Calls::parse("openat\nfstat\npread64\n").unwrap();
    let mut small = ground.profile(&[]);
    small.program = Artefact::measure("/usr/bin/true").unwrap();
    let mut ffmpeg = ground.profile(&["-version"]);
    ffmpeg.program = Artefact::measure("/usr/bin/ffmpeg").unwrap();
    let mut python = ground.profile(&["-c", "pass"]);
    python.program = Artefact::measure("/usr/bin/python3").unwrap();
    let mut listed = small.clone();
    listed.calls = list;
    let mut confined = small.clone();
    confined.required_level = Level::Confined;
    confined.dangerous_simulate.no_user_namespaces = true;
    let all = [
        ("true, 26 KB", small),
        ("the same with a short list of calls", listed),
        ("the same, confined", confined),
        ("ffmpeg, 0.3 MB", ffmpeg),
        ("python3, 7 MB", python),
    ];
    for (what, profile) in all {
        let mut times = Vec::new();
        for turn in 0..510 {
            let profile = profile.clone();
            let begun = Instant::now();
            let running = spawn(profile).unwrap();
            if turn >= 10 {
                times.push(begun.elapsed());
            }
            if turn == 0 {
                println!("{}", running.applied());
            }
            drop(running);
            // Its end is not the next one's start.
            std::thread::sleep(Duration::from_millis(15));
        }
        print(what, times);
    }
}

const TRANSCODE: &str =
    "-v error -y -nostdin -filter_threads 1 -threads 2 -i in.mp4 -c:v libx264 -preset veryfast -crf 23 -threads 2 -c:a aac out.mp4";

#[test]
#[ignore = "measures; wants a quiet machine and a release build"]
fn measured_transcode() {
    // I14, O11: the same FFmpeg on the same file in the same folder, bare and in a sandbox, in pairs, who is first in turns.
    let ground = Ground::new();
    let make = "-v error -f lavfi -i testsrc2=d=12:s=1280x720:r=30 -f lavfi -i sine=d=12 -c:v libx264 -preset ultrafast -c:a aac in.mp4";
    let at = |command: &mut Command| command.current_dir(ground.state()).env_clear().env("LANG", "C").status().unwrap().success();
    assert!(at(Command::new("/usr/bin/ffmpeg").args(make.split(' ')).stdin(Stdio::null())));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../apps/video/profiles/transcoder.syscalls");
    let mut profile = ground.profile(&[]);
    profile.program = Artefact::measure("/usr/bin/ffmpeg").unwrap();
    profile.arguments = TRANSCODE.split(' ').map(str::to_owned).collect();
    profile.calls = Calls::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    profile.limits = Limits { memory_bytes: 2 << 30, cpu_cores: Some(2.0), processes: 128, wall_ms: None, ..profile.limits };
    let boxed = || {
        std::fs::set_permissions(ground.state(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let _none = std::fs::remove_file(ground.state().join("out.mp4"));
        let begun = Instant::now();
        assert_eq!(output(profile.clone()), "");
        begun.elapsed()
    };
    let bare = || {
        let _none = std::fs::remove_file(ground.state().join("out.mp4"));
        let begun = Instant::now();
        assert!(at(Command::new("/usr/bin/ffmpeg").args(TRANSCODE.split(' ')).stdin(Stdio::null())));
        begun.elapsed()
    };
    let (mut ratios, mut bares, mut boxeds) = (Vec::new(), Vec::new(), Vec::new());
    bare();
    boxed();
    for turn in 0..16 {
        let (one, other) = if turn % 2 == 0 {
            (bare(), boxed())
        } else {
            let first = boxed();
            (bare(), first)
        };
        bares.push(one);
        boxeds.push(other);
        ratios.push(other.as_secs_f64() / one.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    print("bare", bares);
    print("in a sandbox", boxeds);
    println!("sandbox / bare in pairs: median {:.4}, quartiles {:.4} to {:.4}", ratios[8], ratios[4], ratios[12]);
}
