//! The two sides: the reference system and its twin, started in the same way and asked for the same things.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::artefacts::Artefacts;
use crate::functional::Site;
use crate::running::Running;
use crate::twin::monolith::{self, Monolith};
use crate::{Outcome, copied, tree};

/// Whose column it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Taken apart, under Palisade.
    Palisade,
    /// One process.
    Twin,
}

/// What to start, for both sides alike.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The programs.
    pub built: &'a Artefacts,
    /// A folder for everything.
    pub scratch: &'a Path,
    /// What a program in FFmpeg's place is to try; absent: FFmpeg itself is there.
    pub stand_in: Option<&'a Value>,
}

/// A side that is up.
pub enum Side {
    /// The reference system.
    Palisade(Running),
    /// Its twin.
    Twin(Monolith),
}

/// Limits that no load of ours reaches: what is measured is the way of a request, not when it is refused.
const OPEN: &str =
    "hosts = [\"localhost\", \"127.0.0.1\"]\n\n[edge.limits]\naddress = \"100000/s burst 100000\"\nperson = \"100000/s burst 100000\"\n";

impl Wanted<'_> {
    /// Starts one side.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self, which: Which) -> Outcome<Side> {
        match which {
            Which::Palisade => self.palisade().map(Side::Palisade),
            Which::Twin => self.twin().map(Side::Twin),
        }
    }

    fn palisade(&self) -> Outcome<Running> {
        let folder = self.scratch.join("palisade");
        let hosts = ("hosts = [\"localhost\", \"127.0.0.1\"]\n", OPEN);
        let Some(targets) = self.stand_in else {
            return copied::reference(&folder, self.built, &[hosts])?.start();
        };
        let transcoder = folder.join("bin/video-transcoder").display().to_string();
        let beside = folder.join("apps/stand-in");
        let stand_in = beside.join("ffmpeg").display().to_string();
        let run = format!("run = [\"/usr/bin/env\", \"FFMPEG={stand_in}\", \"{transcoder}\"]\nfiles = [\"stand-in\"]");
        let tools = format!("tools = [\"{transcoder}\", \"{stand_in}\", \"/usr/bin/python3\"]");
        let replace = [
            hosts,
            ("run = [\"./video-transcoder\"]", run.as_str()),
            ("tools = [\"/usr/bin/ffmpeg\", \"/usr/bin/ffprobe\"]", tools.as_str()),
            copied::UNLISTED,
        ];
        let setting = copied::reference(&folder, self.built, &replace)?;
        put(&beside, targets)?;
        setting.start()
    }

    fn twin(&self) -> Outcome<Monolith> {
        // A user of its own, as it would have in service; under root that is `nobody`.
        let as_root = tree::output(Command::new("id").arg("-u"))?.trim() == "0";
        let folder = self.scratch.join("twin");
        std::fs::create_dir_all(&folder)?;
        // Where any user may run it.
        let program = folder.join("video-monolith");
        std::fs::copy(self.built.monolith(), &program)?;
        tree::run(Command::new("chmod").arg("755").args([self.scratch, &folder, &program]))?;
        let ffmpeg = match self.stand_in {
            Some(targets) => put(&folder.join("stand-in"), targets)?,
            None => PathBuf::from("/usr/bin/ffmpeg"),
        };
        monolith::Setting { program, dir: folder.join("data"), ffmpeg, user: as_root.then_some(65_534) }.start()
    }

    /// What is worth having, and where it is: the same things by the same names on both sides.
    #[must_use]
    pub fn assets(&self, which: Which) -> Vec<(&'static str, PathBuf)> {
        let (palisade, twin) = (self.scratch.join("palisade"), self.scratch.join("twin"));
        let places: [(&str, &str, &str); 6] = [
            ("everybody's videos", "system/data/objects", "data/objects"),
            ("password hashes", "system/data/login", "data/people.db"),
            ("session store", "system/data/edge", "data/people.db"),
            ("who has which video", "system/data/guard-api", "data/catalogue.db"),
            ("private keys", "system/keys", "data/tls/key.pem"),
            ("the program itself", "bin/palisade", "video-monolith"),
        ];
        let place = |(name, in_palisade, in_twin)| match which {
            Which::Palisade => (name, palisade.join(in_palisade)),
            Which::Twin => (name, twin.join(in_twin)),
        };
        places.map(place).to_vec()
    }
}

/// Puts the program that stands in for FFmpeg into a folder of its own, with what it is to try, where any user may run it.
fn put(beside: &Path, targets: &Value) -> Outcome<PathBuf> {
    std::fs::create_dir_all(beside)?;
    let (program, told) = (beside.join("ffmpeg"), beside.join("targets.json"));
    std::fs::write(&program, include_str!("probe.py"))?;
    std::fs::write(&told, targets.to_string())?;
    tree::run(Command::new("chmod").arg("755").args([beside, &program, &told]))?;
    Ok(program)
}

impl Side {
    /// What a person sees of it.
    #[must_use]
    pub fn site(&self) -> &dyn Site {
        match self {
            Self::Palisade(running) => running,
            Self::Twin(twin) => twin,
        }
    }

    /// The first of its processes.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Palisade(running) => running.pid(),
            Self::Twin(twin) => twin.pid(),
        }
    }
}
