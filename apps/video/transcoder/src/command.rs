//! The command lines of FFmpeg.
//!
//! Spec:       ffmpeg(1), ffmpeg-formats(1), ffmpeg-filters(1), versions 5 to 7.
//! Guarantees: I10 the demuxer is named, never guessed; only files and pipes can be opened; only the listed decoders can
//!             run; nothing is read from the terminal; metadata of the original does not travel on.
//! Not here:   running it (`run`).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::ladder::Rung;

/// Decoders that may run, by every name that builds of FFmpeg give them.
const DECODERS: &str = "h264,hevc,av1,libdav1d,libaom-av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,\
    aac,aac_fixed,mp3,mp3float,opus,libopus,vorbis,libvorbis,flac,alac,ac3,ac3_fixed,eac3";

/// The demuxers that an original may be read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demuxer {
    /// MP4.
    Mov,
    /// WebM and Matroska.
    Matroska,
}

impl Demuxer {
    fn name(self) -> &'static str {
        match self {
            Self::Mov => "mov",
            Self::Matroska => "matroska",
        }
    }
}

/// Where a rung's file goes.
pub fn output(folder: &Path, rung: &Rung) -> PathBuf {
    folder.join(rung.file())
}

/// What every run begins with, up to the input file.
fn opening(demuxer: Demuxer, seek_s: Option<f64>, input: &Path) -> Vec<OsString> {
    let mut line: Vec<OsString> = ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"].map(OsString::from).into();
    line.extend(["-filter_threads", "1", "-filter_complex_threads", "1"].map(OsString::from));
    line.extend(["-protocol_whitelist", "file,pipe", "-codec_whitelist", DECODERS].map(OsString::from));
    if demuxer == Demuxer::Mov {
        // Twice refused: the validator lets no outside reference through, and here none would be followed.
        line.extend(["-enable_drefs", "0"].map(OsString::from));
    }
    line.extend(["-threads", "2", "-f", demuxer.name()].map(OsString::from));
    if let Some(seek_s) = seek_s {
        line.extend([OsString::from("-ss"), OsString::from(format!("{seek_s:.3}"))]);
    }
    line.extend([OsString::from("-i"), file(input)]);
    line
}

/// A path that FFmpeg cannot take for a protocol or an option.
fn file(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// Shrinks to a height, never grows; both sides even, so that 4:2:0 has whole samples.
fn scale(rung: &Rung) -> String {
    let height = rung.height;
    format!("scale=w='max(2,trunc(iw*oh/ih/2)*2)':h='max(2,min({height},trunc(ih/2)*2))':flags=bicubic,format=yuv420p")
}

/// One run that makes all renditions: the original is decoded once.
pub fn transcode(demuxer: Demuxer, input: &Path, folder: &Path, rungs: &[Rung]) -> Vec<OsString> {
    let labels: String = (0..rungs.len()).map(|index| format!("[s{index}]")).collect();
    let scales = rungs.iter().enumerate().map(|(index, rung)| format!(";[s{index}]{}[v{index}]", scale(rung)));
    let graph = format!("[0:v:0]split={}{labels}{}", rungs.len(), scales.collect::<String>());
    let mut line = opening(demuxer, None, input);
    line.extend(["-progress", "pipe:1", "-stats_period", "0.5", "-nostats"].map(OsString::from));
    line.extend([OsString::from("-filter_complex"), OsString::from(graph)]);
    for (index, rung) in rungs.iter().enumerate() {
        line.extend([OsString::from("-map"), OsString::from(format!("[v{index}]"))]);
        line.extend(["-map", "0:a:0?", "-map_metadata", "-1", "-map_chapters", "-1", "-sn", "-dn"].map(OsString::from));
        line.extend(["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-threads", "2"].map(OsString::from));
        line.extend(["-profile:v", "high", "-g", "96", "-c:a", "aac", "-b:a", "128k", "-ac", "2"].map(OsString::from));
        line.extend(["-movflags", "+faststart", "-f", "mp4"].map(OsString::from));
        line.push(file(&output(folder, rung)));
    }
    line
}

/// One run that takes a picture out of a finished rendition.
pub fn poster(rendition: &Path, at_s: f64, target: &Path) -> Vec<OsString> {
    let mut line = opening(Demuxer::Mov, Some(at_s), rendition);
    line.extend(["-map", "0:v:0", "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "3"].map(OsString::from));
    line.extend(["-pix_fmt", "yuvj420p", "-f", "image2", "-update", "1"].map(OsString::from));
    line.push(file(target));
    line
}

#[cfg(test)]
mod tests {
    //! Tests of the lines.
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn line(demuxer: Demuxer, rungs: &[u32]) -> Vec<String> {
        let rungs: Vec<Rung> = rungs.iter().map(|height| Rung { height: *height }).collect();
        let line = transcode(demuxer, Path::new("/t/in"), Path::new("/t"), &rungs);
        line.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn before_input<'a>(line: &'a [String], option: &str) -> &'a str {
        let input = line.iter().position(|word| word == "-i").unwrap();
        let at = line.iter().position(|word| word == option).unwrap();
        assert!(at < input, "{option} is an option of the input");
        &line[at + 1]
    }

    // I10
    #[test]
    fn the_demuxer_is_named_and_only_files_can_be_opened() {
        for (demuxer, name) in [(Demuxer::Mov, "mov"), (Demuxer::Matroska, "matroska")] {
            let line = line(demuxer, &[720, 360]);
            assert_eq!(before_input(&line, "-f"), name);
            assert_eq!(before_input(&line, "-protocol_whitelist"), "file,pipe");
            assert!(before_input(&line, "-codec_whitelist").split(',').all(|decoder| !decoder.is_empty()));
            assert!(line.contains(&String::from("-nostdin")));
            let files = line.iter().filter(|word| word.starts_with('/')).count();
            assert_eq!(files, 0, "every path says that it is a file");
        }
    }

    #[test]
    fn one_run_makes_all_renditions() {
        let line = line(Demuxer::Mov, &[720, 360]);
        assert_eq!(line.iter().filter(|word| *word == "-i").count(), 1);
        assert!(line.contains(&String::from("file:/t/720p.mp4")) && line.contains(&String::from("file:/t/360p.mp4")));
        let graph = &line[line.iter().position(|word| word == "-filter_complex").unwrap() + 1];
        assert!(graph.starts_with("[0:v:0]split=2[s0][s1];[s0]scale="), "{graph}");
        assert!(graph.contains("min(720,") && graph.contains("min(360,"), "{graph}");
    }
}
