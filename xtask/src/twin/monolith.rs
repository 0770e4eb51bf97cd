//! The twin, running: `apps/video/monolith` in a folder of its own, with a certificate made for it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::artefacts::{self, Artefacts};
use crate::curl::Curl;
use crate::functional::{FIRST, Site};
use crate::person::Person;
use crate::{Outcome, tree};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The program.
    pub program: PathBuf,
    /// Its folder; a second run in the same folder is a restart.
    pub dir: PathBuf,
    /// What it takes for FFmpeg.
    pub ffmpeg: PathBuf,
    /// User and group to run as; absent: ours.
    pub user: Option<u32>,
}

/// The twin, up; it ends when dropped.
#[derive(Debug)]
pub struct Monolith {
    process: Child,
    setting: Setting,
    first_link: Option<String>,
    /// `https://localhost:PORT`.
    pub address: String,
}

impl Setting {
    /// The program that was built with us, in `dir`.
    ///
    /// # Errors
    /// When it is not built.
    pub fn reference(dir: &Path) -> Outcome<Self> {
        let program = Artefacts::beside_us()?.monolith();
        if !program.is_file() {
            return Err("the twin is not built; run `cargo build --workspace --bins` first".into());
        }
        Ok(Self { program, dir: dir.to_path_buf(), ffmpeg: "/usr/bin/ffmpeg".into(), user: None })
    }

    /// Its certificate's file.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.dir.join("tls/chain.pem")
    }

    /// Its private key's file.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join("tls/key.pem")
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// With what it said when it did not.
    pub fn start(self) -> Outcome<Monolith> {
        if !self.key().exists() {
            certificate(&self)?;
        }
        let pages = artefacts::manifest().with_file_name("web/static");
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(&self.dir).args(["serve", "--listen", "127.0.0.1:0", "--chain"]).arg(self.chain());
        command.arg("--key").arg(self.key()).arg("--pages").arg(pages).arg("--ffmpeg").arg(&self.ffmpeg);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(self.dir.join("log"))?);
        if let Some(user) = self.user {
            tree::run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(&self.dir))?;
            command.uid(user).gid(user);
        }
        let mut process = command.spawn().map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let Ok(up) = serde_json::from_str::<Value>(&line) else {
            process.wait()?;
            return Err(format!("the twin did not come up: {}", std::fs::read_to_string(self.dir.join("log"))?).into());
        };
        let text = |name: &str| up[name].as_str().map(str::to_owned);
        Ok(Monolith { process, address: text("address").ok_or("no address")?, first_link: text("first_link"), setting: self })
    }
}

/// A certificate for `localhost`, by openssl.
fn certificate(setting: &Setting) -> Outcome {
    std::fs::create_dir_all(setting.dir.join("tls"))?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]).stderr(Stdio::null());
    tree::run(openssl.arg("-keyout").arg(setting.key()).arg("-out").arg(setting.chain()))
}

impl Monolith {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.setting.dir
    }

    /// The certificate to trust.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.setting.chain()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setting.dir.join("log")).unwrap_or_default()
    }
}

impl Site for Monolith {
    fn visitor(&self, name: &str, scratch: &Path) -> Person {
        Person::new(Curl::new(&self.address, &self.certificate(), scratch, &format!("twin-{name}")), name)
    }

    fn invitation(&self, name: &str) -> Outcome<String> {
        if let Some(link) = self.first_link.as_ref().filter(|_| name == FIRST) {
            return Ok(link.clone());
        }
        let mut command = Command::new(&self.setting.program);
        if let Some(user) = self.setting.user {
            command.uid(user).gid(user);
        }
        let answer: Value = serde_json::from_str(&tree::output(command.arg("--dir").arg(&self.setting.dir).arg("invite"))?)?;
        Ok(format!("{}{}", self.address, answer["path"].as_str().ok_or("no path")?))
    }
}

impl Drop for Monolith {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
