//! `bad-media OUTDIR [GOOD.mp4]`: writes files that the validator must refuse, for end-to-end tests.
//! `bad-media --hostile OUTDIR FRAGMENTED.mp4 GOOD.webm DOOR`: writes the whole hostile corpus, with a list of names, declared types
//! and fates (`corpus.tsv`); its references lead to DOOR, an address like `http://127.0.0.1:4000`.
//!
//! Without GOOD.mp4 the truncated file is cut from a made one.

use std::{ffi::OsString, path::Path, process::ExitCode};

use video_validator::bad_media::{Recipe, all, hostile, mp4};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let written = match arguments.as_slice() {
        [mode, folder, fragmented, webm, door] if mode == "--hostile" => {
            corpus(Path::new(folder), Path::new(fragmented), Path::new(webm), &door.to_string_lossy())
        }
        [folder] => write(Path::new(folder), all(&mp4(&Recipe::default()))),
        [folder, good] => std::fs::read(good).and_then(|good| write(Path::new(folder), all(&good))),
        _ => {
            eprintln!("usage: bad-media OUTDIR [GOOD.mp4] | bad-media --hostile OUTDIR FRAGMENTED.mp4 GOOD.webm DOOR");
            return ExitCode::from(64);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bad-media: {error}");
            ExitCode::from(74)
        }
    }
}

fn write<N: AsRef<str>>(folder: &Path, files: impl IntoIterator<Item = (N, Vec<u8>)>) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    files.into_iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name.as_ref()), bytes))
}

fn corpus(folder: &Path, fragmented: &Path, webm: &Path, door: &str) -> std::io::Result<()> {
    let files = hostile::corpus(&std::fs::read(fragmented)?, &std::fs::read(webm)?, door);
    let list: String = files.iter().map(|file| format!("{}\t{}\t{:?}\n", file.name, file.declared, file.fate)).collect();
    write(folder, files.into_iter().map(|file| (file.name, file.bytes)))?;
    std::fs::write(folder.join("corpus.tsv"), list)
}
