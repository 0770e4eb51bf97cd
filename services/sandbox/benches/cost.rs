//! What a sandbox costs, as `cargo xtask bench --only sandbox` asks it: starts, and transcodes beside the bare program.
//!
//! Prints one JSON object: `starts` (what, and milliseconds of each start) and `transcodes` (seconds, bare and in a sandbox, in pairs).
//! Wants a quiet machine and a release build. `starts=500 pairs=16` are its arguments; nought of something leaves it out.
//!
//! Guarantees: none; I13, I14 and O11 are measured here.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: its time is the machine's, its output is read by a program"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{Ahead, Artefact, Backend, Calls, Launcher, Level, Limits, Profile, Simulate};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Starts before the first that counts.
const WARM: usize = 10;
/// Between two starts: the end of one is not the next one's start.
const PAUSE: Duration = Duration::from_millis(15);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "sandbox-init") {
        sandbox::init_main();
    }
    let told = |name: &str, usual: usize| -> Outcome<usize> {
        let word = arguments.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Ok(word.map_or(Ok(usual), str::parse)?)
    };
    let (starts, pairs) = (told("starts", 500)?, told("pairs", 16)?);
    let ground = Ground::new()?;
    let layers = sandbox::spawn(ground.profile("/usr/bin/true", &[])?)?.applied().to_string();
    println!("{}", json!({ "layers": layers, "starts": ground.starts(starts)?, "transcodes": ground.transcodes(pairs)? }));
    Ok(())
}

/// A folder of this run, which the sandbox's uid can pass through.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Outcome<Self> {
        let ground = Self(tempfile::tempdir()?);
        std::fs::set_permissions(ground.0.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir(ground.state())?;
        Ok(ground)
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn profile(&self, program: &str, arguments: &[&str]) -> Outcome<Profile> {
        Ok(Profile {
            name: "measured".to_owned(),
            required_level: Level::Full,
            backend: Backend::Own,
            program: Artefact::measure(program)?,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            environment: BTreeMap::from([("LANG".to_owned(), "C".to_owned())]),
            port: None,
            flows: Vec::new(),
            tools: Vec::new(),
            scripts: Vec::new(),
            read: Profile::system_read(),
            state: Some(self.state()),
            work_dir: None,
            calls: Calls::General,
            limits: Limits {
                memory_bytes: 2 << 30,
                processes: 128,
                open_files: 256,
                file_bytes: 64 << 20,
                cpu_seconds: None,
                cpu_cores: Some(2.0),
                wall_ms: None,
                tmp_bytes: 8 << 20,
                state_bytes: 1 << 30,
            },
            run_as_id: 65_534,
            start_patience_ms: 5_000,
            dangerous_simulate: Simulate::default(),
            dangerous_without: None,
        })
    }

    /// From the guard's wish to the program's exec: digest, all layers, control groups. What is started, and milliseconds of each. Each
    /// once as a guard starts what it starts often, with an init that waits already, and once with nothing that waits.
    fn starts(&self, count: usize) -> Outcome<Vec<Value>> {
        let small = self.profile("/usr/bin/true", &[])?;
        let listed = Profile { calls: Calls::parse("openat\nfstat\npread64\n")?, ..small.clone() };
        let mut confined = Profile { required_level: Level::Confined, ..small.clone() };
        confined.dangerous_simulate.no_user_namespaces = true;
        let mut bwrap = Vec::new();
        if Path::new("/usr/bin/bwrap").exists() {
            bwrap.push(("true, by bubblewrap", Profile { backend: Backend::Bwrap, ..small.clone() }));
        }
        let all = [
            ("true", small),
            ("true, a list of calls of its own", listed),
            ("true, without namespaces", confined),
            ("ffmpeg", self.profile("/usr/bin/ffmpeg", &["-version"])?),
            ("python3", self.profile("/usr/bin/python3", &["-c", "pass"])?),
        ];
        let mut figures = Vec::new();
        let ahead = Ahead::new(Launcher::this_binary());
        for (what, profile) in all.into_iter().chain(bwrap).filter(|_| count > 0) {
            let (mut ready, mut cold) = (Vec::new(), Vec::new());
            for turn in 0..WARM.saturating_add(count) {
                for waits in [true, false] {
                    if waits {
                        ahead.step()?;
                    }
                    std::thread::sleep(PAUSE);
                    let profile = profile.clone();
                    let begun = Instant::now();
                    let running = if waits { ahead.spawn(profile) } else { sandbox::spawn(profile) }?;
                    if turn >= WARM {
                        let of = if waits { &mut ready } else { &mut cold };
                        of.push(begun.elapsed().as_secs_f64() * 1000.0);
                    }
                    drop(running);
                }
            }
            let bytes = std::fs::metadata(&profile.program.path)?.len();
            figures.push(json!({ "what": what, "program_bytes": bytes, "milliseconds": ready, "nothing_waits_milliseconds": cold }));
        }
        Ok(figures)
    }

    /// The same FFmpeg on the same file in the same folder, bare and in a sandbox, in pairs, who is first in turns.
    fn transcodes(&self, pairs: usize) -> Outcome<Value> {
        const TRANSCODE: &str = "-v error -y -nostdin -filter_threads 1 -threads 2 -i in.mp4 -c:v libx264 -preset veryfast -crf 23 \
                                 -threads 2 -c:a aac out.mp4";
        const MAKE: &str = "-v error -f lavfi -i testsrc2=d=12:s=1280x720:r=30 -f lavfi -i sine=d=12 -c:v libx264 -preset ultrafast \
                            -c:a aac in.mp4";
        if pairs == 0 {
            return Ok(json!({ "bare_s": [], "boxed_s": [] }));
        }
        let ffmpeg = |line: &str| -> Outcome<f64> {
            let mut command = Command::new("/usr/bin/ffmpeg");
            command.args(line.split(' ')).current_dir(self.state()).env_clear().env("LANG", "C").stdin(Stdio::null());
            let begun = Instant::now();
            let status = command.status()?;
            if status.success() { Ok(begun.elapsed().as_secs_f64()) } else { Err(format!("ffmpeg {line}: {status}").into()) }
        };
        ffmpeg(MAKE)?;
        // The sandbox's own uid writes there, too.
        std::fs::set_permissions(self.state(), std::fs::Permissions::from_mode(0o777))?;
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../apps/video/profiles/transcoder.syscalls");
        let mut profile = self.profile("/usr/bin/ffmpeg", &TRANSCODE.split(' ').collect::<Vec<_>>())?;
        profile.calls = Calls::parse(&std::fs::read_to_string(list)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let once = |boxed: bool| -> Outcome<f64> {
            let _none = std::fs::remove_file(self.state().join("out.mp4"));
            if !boxed {
                return ffmpeg(TRANSCODE);
            }
            let profile = profile.clone();
            let begun = Instant::now();
            let exit = runtime.block_on(sandbox::spawn(profile)?.wait());
            if exit.success() { Ok(begun.elapsed().as_secs_f64()) } else { Err(format!("ffmpeg in a sandbox: {exit:?}").into()) }
        };
        for boxed in [false, true] {
            once(boxed)?;
        }
        let (mut bare, mut boxed) = (Vec::new(), Vec::new());
        for turn in 0..pairs {
            for is_boxed in [turn % 2 == 1, turn % 2 == 0] {
                let took = once(is_boxed)?;
                if is_boxed { boxed.push(took) } else { bare.push(took) }
            }
        }
        Ok(json!({ "bare_s": bare, "boxed_s": boxed }))
    }
}
