//! Attestation of real processes: copies of this very test program that connect to a socket and wait.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use contract::LocalPeer;
use nix::sys::socket::{getsockopt, sockopt};
use trust::Digest;

use crate::attest::{AttestError, Programs, program_if};

fn program_of(peer: &LocalPeer) -> Result<Digest, AttestError> {
    Programs::default().of(peer, 0)
}

const SOCKET: &str = "IDENTITY_TEST_SOCKET";

/// A process that connected, and what the kernel says of it.
pub(super) struct Joining {
    child: Child,
    pub(super) peer: LocalPeer,
    pub(super) program: Digest,
    _stream: UnixStream,
}

impl Joining {
    /// Runs a copy of this program with `tail` appended (which changes its digest, not what it does).
    pub(super) fn start(folder: &Path, name: &str, tail: &[u8]) -> Self {
        let program: PathBuf = folder.join(name);
        let bytes = [fs::read(std::env::current_exe().unwrap()).unwrap().as_slice(), tail].concat();
        fs::write(&program, &bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let socket = folder.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(&program);
        command.args(["--ignored", "--exact", "tests::process::connects_and_waits"]).env(SOCKET, &socket);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let credentials = getsockopt(&stream, sockopt::PeerCredentials).unwrap();
        let pidfd = getsockopt(&stream, sockopt::PeerPidfd).expect("this test needs Linux 6.5");
        let peer = LocalPeer { uid: credentials.uid(), pid: credentials.pid(), pidfd: Some(Arc::new(pidfd)) };
        Self { child, peer, program: Digest::of(&bytes), _stream: stream }
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn without_handle(&self) -> LocalPeer {
        LocalPeer { pidfd: None, ..self.peer.clone() }
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the body of the processes that the attestation tests start"]
fn connects_and_waits() {
    let mut stream = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

// C5: the program of that very process, with a handle and without.
#[test]
fn program_of_a_process_is_the_file_that_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let joining = Joining::start(folder.path(), "program", b"x");
    assert_ne!(joining.program, Digest::of(&fs::read(std::env::current_exe().unwrap()).unwrap()));
    assert_eq!(program_of(&joining.peer).unwrap(), joining.program);
    assert_eq!(program_of(&joining.without_handle()).unwrap(), joining.program);
    fs::remove_file(folder.path().join("program")).unwrap();
    fs::write(folder.path().join("program"), b"another file under the same name").unwrap();
    assert_eq!(program_of(&joining.peer).unwrap(), joining.program, "the file that runs, not the one of that name");
}

// C5: the race. The process ends after its program was opened; its number may then be anyone's.
#[test]
fn process_that_ends_while_it_is_looked_at_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, with_handle) in [("a", true), ("b", false)] {
        let mut joining = Joining::start(folder.path(), name, b"");
        let peer = if with_handle { joining.peer.clone() } else { joining.without_handle() };
        let outcome = program_if(&peer, || joining.end(), Digest::of_reader);
        assert!(matches!(outcome, Err(AttestError::Gone(pid)) if pid == peer.pid), "{with_handle}: {outcome:?}");
        assert!(matches!(program_of(&peer), Err(AttestError::Gone(_))), "and it stays so");
    }
}

// C5: a number that was given to another process: the handle tells.
#[test]
fn reused_process_number_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut ended = Joining::start(folder.path(), "ended", b"");
    let living = Joining::start(folder.path(), "living", b"");
    ended.end();
    let mixed = LocalPeer { pid: living.peer.pid, ..ended.peer.clone() };
    assert!(matches!(program_of(&mixed), Err(AttestError::Gone(_))));
    let swapped = LocalPeer { pid: living.peer.pid, ..Joining::start(folder.path(), "third", b"").peer.clone() };
    assert!(matches!(program_of(&swapped), Err(AttestError::Gone(_))), "a handle on another living process");
}
