//! The attacker: one program that plays every service of a throw-away copy of a system, and becomes hostile in one of them at a time.
//!
//! As long as it is not its turn a service works as its manifest says: it answers its routes and performs its declared flows, with
//! canaries for content, so that objects, messages and requests of several people come into being in legitimate ways only, whatever the
//! manifest is. When a request or delivery bears a mark with its name, it tries every technique of the table with what it has in hand.
//!
//! ```text
//! script (what the system is, what is worth a try) ─┐
//! request or delivery with a mark ── server ── play │── techniques ── one line of JSON for each try, on standard output
//! ```
//!
//! Guarantees: L7, L8 and L10: what is measured was tried, by a program that has nothing that a service would not have.
//! Not here:   starting the copy, what people do from outside, and what the tries amount to (`palisade`); unsafe calls (`sandbox`).
#![allow(clippy::disallowed_methods, reason = "a program of the outside world: it waits and looks at the clock as it likes")]

pub mod grpc;
pub mod hand;
pub mod heard;
pub mod http;
pub mod mark;
pub mod nearby;
pub mod needs;
pub mod note;
pub mod play;
pub mod raw;
pub mod script;
mod server;
pub mod techniques;

use std::collections::BTreeMap;
use std::path::Path;

pub use hand::Hand;
pub use mark::{Act, Mark};
pub use needs::NEEDS;
pub use note::{Notes, Tried};
pub use script::{Part, Script, Targets};

/// What the kernel answered to each system call that was tried, by its name: `done`, the name of an error, `killed by SIGSYS`.
pub type Fates = BTreeMap<String, String>;

/// Tries the system calls of these names, which only one crate may: given by the assembly. It is told who started this process.
pub type TryCalls = fn(&[&str], Option<i32>) -> Fates;

/// First argument of the process that calls a UNIX socket as another user of the machine.
pub const ANOTHER: &str = "breach-another";
/// First argument of the process that tries what needs no request in hand.
pub const ALONE: &str = "breach-alone";
/// First argument of the process that plays a service.
pub const SERVE: &str = "breach-service";

/// Plays the service `name` of the script at `path` until it is killed; returns an exit code.
#[must_use]
pub fn serve(path: &Path, name: &str) -> u8 {
    match Script::open(path) {
        Ok(script) => server::run(script, path, name),
        Err(error) => {
            eprintln!("the script {}: {error}", path.display());
            64
        }
    }
}

/// Calls the UNIX socket at `path`; what came of it as a line on standard output.
#[must_use]
pub fn another(path: &Path) -> String {
    let said = std::os::unix::net::UnixStream::connect(path).and_then(|stream| {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        http::exchange(stream, "localhost", &http::Request::new("GET", "/status"))
    });
    match said {
        Ok(answer) => format!("status {}", answer.status),
        Err(error) => match error.kind() {
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            std::io::ErrorKind::NotFound => "not there".to_owned(),
            _ => "cut off".to_owned(),
        },
    }
}

/// Tries one technique that needs no request in hand, in a process of its own with one thread, which that of `started_by` has started; a
/// line for each try on standard output. An exit code other than 0: it was not tried.
#[must_use]
pub fn alone(path: &Path, name: &str, [mark, technique, started_by]: [&str; 3], calls: TryCalls) -> u8 {
    let (Ok(script), Some(mark)) = (Script::open(path), Mark::find(mark)) else { return 64 };
    let started_by = started_by.parse().ok();
    let cell = techniques::Alone { script: &script, service: name, person: &mark.person, started_by, calls };
    let Some(technique) = techniques::ALL.iter().find(|row| row.id == technique && row.is_alone(mark.act)) else { return 64 };
    let (techniques::Run::Alone(run, _) | techniques::Run::Pressing(run)) = technique.run else { return 64 };
    let mut notes = Notes::new(technique.id, &mark);
    run(&cell, &mut notes);
    notes.tell();
    0
}
