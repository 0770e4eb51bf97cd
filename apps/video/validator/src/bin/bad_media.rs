//! `bad-media OUTDIR [GOOD.mp4]`: writes files that the validator must refuse, for end-to-end tests.
//!
//! Without GOOD.mp4 the truncated file is cut from a made one.

use std::{path::Path, process::ExitCode};

use video_validator::bad_media::{Recipe, all, mp4};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: bad-media OUTDIR [GOOD.mp4]");
        return ExitCode::from(64);
    };
    let good = arguments.next().map_or_else(|| Ok(mp4(&Recipe::default())), std::fs::read);
    let written = good.and_then(|good| {
        std::fs::create_dir_all(&folder)?;
        all(&good).into_iter().try_for_each(|(name, bytes)| std::fs::write(Path::new(&folder).join(name), bytes))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bad-media: {}: {error}", Path::new(&folder).display());
            ExitCode::from(74)
        }
    }
}
