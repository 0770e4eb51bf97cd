//! The reference system in a folder of its own: a copy whose manifest and files may be changed.

use std::path::Path;

use crate::artefacts::{self, Artefacts, PACKAGES};
use crate::running::Setting;
use crate::{Outcome, tree};

/// Another program in the transcoder's place makes other system calls than FFmpeg: it has the general list.
pub const UNLISTED: (&str, &str) = ("syscalls = \"profiles/transcoder.syscalls\"\n", "");

/// Copies programs, manifest, lists of system calls and page of `built` into `folder`, readable for any user, with `replace` done to the manifest.
///
/// # Errors
/// When a file cannot be copied, or a text that is to be replaced is not there exactly once.
pub fn reference(folder: &Path, built: &Artefacts, replace: &[(&str, &str)]) -> Outcome<Setting> {
    let (bin, apps) = (folder.join("bin"), folder.join("apps"));
    std::fs::create_dir_all(&bin)?;
    for program in PACKAGES {
        std::fs::copy(built.bin.join(program), bin.join(program))?;
    }
    let original = artefacts::manifest();
    for folder in ["web", "profiles"] {
        copy_folder(&original.with_file_name(folder), &apps.join(folder))?;
    }
    let mut manifest = std::fs::read_to_string(&original)?;
    for (from, to) in replace {
        if manifest.matches(from).count() != 1 {
            return Err(format!("{from:?} is not once in the manifest").into());
        }
        manifest = manifest.replace(from, to);
    }
    std::fs::write(apps.join("palisade.toml"), manifest)?;
    readable(&[folder.to_path_buf()], "755", false)?;
    readable(&[bin.clone(), apps.clone()], "u+rwX,go+rX,go-w", true)?;
    Ok(Setting {
        manifest: apps.join("palisade.toml"),
        dir: folder.join("system"),
        palisade: bin.join("palisade"),
        user: None,
        more: Vec::new(),
    })
}

fn readable(paths: &[std::path::PathBuf], mode: &str, deep: bool) -> Outcome {
    let mut chmod = std::process::Command::new("chmod");
    if deep {
        chmod.arg("-R");
    }
    tree::run(chmod.arg(mode).args(paths))
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?;
        if path.is_dir() && name != "__pycache__" {
            copy_folder(&path, &to.join(name))?;
        } else if path.is_file() {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
