//! The rig: one target at a time between a load generator and an app, all on loopback, the target's processes on a core of their own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::scenario::{Ports, Program};
use crate::demo::Scratch;
use crate::{Outcome, processes, tree};

/// The core of what is measured; load, app and what is not counted have the other.
const MEASURED: &str = "0";
const LOAD: &str = "1";
/// How long a target may take until it listens.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(3);

/// The folder, the ports and the programs of a run.
#[derive(Debug)]
pub struct Rig {
    /// The product behind the rig's ports, and the floor.
    pub program: PathBuf,
    /// Where the ports are.
    pub ports: Ports,
    /// Clock ticks of `/proc/PID/stat` in a second.
    ticks: f64,
    scratch: Scratch,
    app: Option<Started>,
}

impl Rig {
    /// Builds the product for release, makes certificates and tokens, and starts the app.
    ///
    /// # Errors
    /// When the build fails or the app does not start.
    pub fn open() -> Outcome<Self> {
        let program = built("palisade", "rig")?;
        let scratch = Scratch::new()?;
        let ticks = tree::output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?;
        let mut rig = Self { program, ports: Ports::free()?, ticks, scratch, app: None };
        for name in ["world", "files", "run"] {
            std::fs::create_dir(rig.folder(name))?;
        }
        tree::run(Command::new(&rig.program).args(["world", &rig.told("world", "world"), &rig.told("files", "files")]))?;
        let app = rig.app_config()?;
        rig.app = Some(rig.start(&[Program::aside(["nginx", "-c", &app])], &[rig.ports.app])?);
        Ok(rig)
    }

    /// A folder of this run: `world`, `files` (certificates and tokens) or `run`.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    /// `name=FOLDER`, as the rig's program is told.
    #[must_use]
    pub fn told(&self, name: &str, folder: &str) -> String {
        format!("{name}={}", self.folder(folder).display())
    }

    /// A file with certificates, keys or tokens.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.folder("files").join(name).display().to_string()
    }

    /// One of the rig's tokens.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn token(&self, name: &str) -> Outcome<String> {
        let tokens: Value = serde_json::from_slice(&std::fs::read(self.file("tokens.json"))?)?;
        Ok(tokens[name].as_str().ok_or_else(|| format!("no token {name}"))?.to_owned())
    }

    /// Writes a configuration and gives its path.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn config(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.folder("run").join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// 1 KB of JSON, from one worker.
    fn app_config(&self) -> Outcome<String> {
        let items: Vec<Value> = (0..21).map(|n| serde_json::json!({ "id": n, "name": format!("item-{n:04}"), "price": 9.99 })).collect();
        let body = format!("{:<1024}", Value::from(items));
        let body = body.get(..1024).unwrap_or(&body);
        let server = format!(
            "server {{ listen 127.0.0.1:{}; default_type application/json; location / {{ return 200 '{body}'; }} }}",
            self.ports.app
        );
        self.nginx_config("app", &server)
    }

    /// An nginx with one worker and kept connections, around `inner`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn nginx_config(&self, name: &str, inner: &str) -> Outcome<String> {
        let folder = self.folder("run").join(name);
        std::fs::create_dir_all(&folder)?;
        let at = folder.display();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).concat();
        let text = format!(
            "daemon off;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log error;\n\
             events {{ worker_connections 8192; }}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 600s;\n{temporary}{inner}\n}}\n"
        );
        self.config(&format!("{name}.conf"), &text)
    }

    /// Starts programs in their order and waits until `listening` can be connected to.
    ///
    /// # Errors
    /// When they do not listen in time; with what they said.
    pub fn start(&self, programs: &[Program], listening: &[u16]) -> Outcome<Started> {
        let said = self.folder("run").join("said.log");
        let mut started = Started { processes: Vec::new(), ticks: self.ticks };
        let log = std::fs::File::create(&said)?;
        for program in programs {
            let core = if program.counted { MEASURED } else { LOAD };
            let mut command = pinned(core);
            command.args(&program.line).envs(program.environment.iter().cloned()).stdin(Stdio::null());
            let child = command.stdout(log.try_clone()?).stderr(log.try_clone()?).spawn()?;
            started.processes.push((child, program.counted));
        }
        let begin = Instant::now();
        for port in listening {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                if begin.elapsed() > READY_MAX {
                    return Err(format!("nobody listens on port {port}: {}", tail(&said)).into());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(started)
    }
}

/// A command that runs on one core.
#[must_use]
pub fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    command
}

/// A command beside the load.
#[must_use]
pub fn beside_the_load() -> Command {
    pinned(LOAD)
}

fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}

/// Builds a bench's program for release and gives its path.
pub(super) fn built(package: &str, bench: &str) -> Outcome<PathBuf> {
    println!("building {package} for release (some minutes the first time)");
    let arguments = ["bench", "--quiet", "--package", package, "--bench", bench, "--no-run", "--message-format=json"];
    let said = tree::output(tree::cargo().args(arguments))?;
    let artefact = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|said| said["target"]["name"] == bench);
    let program = artefact.filter_map(|said| said["executable"].as_str().map(PathBuf::from)).next_back();
    program.ok_or_else(|| format!("cargo did not say where the program {bench} is").into())
}

impl Ports {
    /// Ports that are free now.
    ///
    /// # Errors
    /// When there are none.
    fn free() -> Outcome<Self> {
        let held: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = held.iter().map(|held| held.local_addr().map(|at: SocketAddr| at.port())).collect::<Result<_, _>>()?;
        let [entry, peer, app, evidence, onward] = ports[..] else { return Err("five ports".into()) };
        Ok(Self { entry, peer, app, evidence, onward })
    }
}

/// Programs that run; ended when dropped.
#[derive(Debug)]
pub struct Started {
    processes: Vec<(Child, bool)>,
    ticks: f64,
}

impl Started {
    fn counted(&self) -> Outcome<Vec<processes::Process>> {
        let mut all = Vec::new();
        for (child, _) in self.processes.iter().filter(|(_, counted)| *counted) {
            all.extend(processes::tree(child.id())?);
        }
        Ok(all)
    }

    /// Seconds of CPU that the measured processes have used, user and kernel.
    ///
    /// # Errors
    /// When one of them has ended.
    pub fn cpu_s(&self) -> Outcome<f64> {
        let mut ticks = 0.0;
        for process in self.counted()? {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            for field in fields.get(11..13).unwrap_or_default() {
                ticks += field.parse::<f64>()?;
            }
        }
        Ok(ticks / self.ticks)
    }

    /// The sum of their proportional set sizes; nothing when it is not told.
    ///
    /// # Errors
    /// Those of /proc.
    pub fn pss_bytes(&self) -> Outcome<Option<u64>> {
        Ok(processes::pss_bytes(&self.counted()?))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for (child, _) in &self.processes {
            // Already ended is as good.
            let _asked = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
        }
        let begin = Instant::now();
        for (child, _) in &mut self.processes {
            while begin.elapsed() < END_MAX && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
