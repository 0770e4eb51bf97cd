//! Another user of the machine: calls what lies in the copy's folder, as far as the kernel lets anybody become somebody else (root).

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use breach::attacker::ANOTHER;

/// Who is nobody on every Linux.
const NOBODY: u32 = 65_534;

/// Calls `socket` as `nobody`; with `modes_aside` everybody may meanwhile pass through the folders below `scratch`, and use the socket.
pub(super) fn call(scratch: &Path, socket: &str, modes_aside: bool) -> io::Result<String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let aside = if modes_aside { Some(Aside::of(scratch, Path::new(socket))?) } else { None };
    let mut command = Command::new("/proc/self/exe");
    command.arg(ANOTHER).arg(socket).stdin(Stdio::null()).stderr(Stdio::null());
    // Root's groups are given up with its user.
    command.uid(NOBODY).gid(NOBODY);
    let said = command.output()?;
    drop(aside);
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Modes of files that are set aside until this is dropped.
struct Aside(Vec<(PathBuf, u32)>);

impl Aside {
    fn of(scratch: &Path, socket: &Path) -> io::Result<Self> {
        let mut aside = Self(Vec::new());
        for path in socket.ancestors().take_while(|path| *path != scratch) {
            let mode = path.symlink_metadata()?.permissions().mode();
            aside.0.push((path.to_path_buf(), mode));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | if path.is_dir() { 0o011 } else { 0o666 }))?;
        }
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for (path, mode) in &self.0 {
            if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)) {
                crate::cli::complain(format_args!("{} keeps a mode that it should not have: {error}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn modes_are_set_aside_and_put_back() {
        let scratch = super::super::copy::Scratch::make().unwrap();
        let (folder, file) = (scratch.0.join("system/run"), scratch.0.join("system/run/control.sock"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        set(&file, 0o600);
        set(&folder, 0o700);
        set(&scratch.0.join("system"), 0o700);
        let aside = Aside::of(&scratch.0, &file).unwrap();
        assert_eq!((mode(&file), mode(&folder), mode(&scratch.0.join("system"))), (0o666, 0o711, 0o711));
        assert_eq!(mode(&scratch.0), 0o755, "what is above is left as it is");
        drop(aside);
        assert_eq!((mode(&file), mode(&folder), mode(&scratch.0.join("system"))), (0o600, 0o700, 0o700));
    }
}
