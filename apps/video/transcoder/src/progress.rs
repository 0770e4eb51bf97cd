//! FFmpeg's reports about its progress.
//!
//! Spec:       ffmpeg(1), option `-progress`: lines of `key=value`, each report ending with `progress=`.
//! Guarantees: percentages never fall, and reach 100 only by the end of the work, which is said elsewhere.

/// Reads the lines of a report.
pub struct Progress {
    duration_us: f64,
    out_us: u64,
    percent: u8,
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How much of the film is done: 0 to 99.
    pub percent: u8,
    /// How much of the film is done, in microseconds; it tells one report from another.
    pub out_us: u64,
}

impl Progress {
    /// Progress through a film of this many seconds.
    pub fn new(duration_s: f64) -> Self {
        Self { duration_us: (duration_s * 1e6).max(1.0), out_us: 0, percent: 0 }
    }

    /// Takes one line; a whole report gives something to tell.
    pub fn line(&mut self, line: &str) -> Option<Report> {
        let (key, value) = line.trim().split_once('=')?;
        match key {
            // Before the first picture FFmpeg writes N/A, or a negative number.
            "out_time_us" => {
                if let Ok(out_us) = value.trim().parse::<u64>() {
                    self.out_us = self.out_us.max(out_us);
                }
                None
            }
            "progress" => {
                let percent = (self.out_us as f64 / self.duration_us * 100.0).clamp(0.0, 99.0);
                // In range by the clamp.
                self.percent = self.percent.max(percent as u8);
                Some(Report { percent: self.percent, out_us: self.out_us })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Tests of the reader, with lines that FFmpeg wrote.
    use super::*;

    #[test]
    fn a_report_gives_its_percentage_once_it_is_whole() {
        let mut progress = Progress::new(10.0);
        for line in ["frame=12", "fps=0.00", "out_time_us=2500000", "out_time_ms=2500000", "speed=5x"] {
            assert_eq!(progress.line(line), None, "{line}");
        }
        assert_eq!(progress.line("progress=continue"), Some(Report { percent: 25, out_us: 2_500_000 }));
    }

    #[test]
    fn what_is_not_known_yet_is_nothing() {
        let mut progress = Progress::new(10.0);
        for line in ["out_time_us=N/A", "out_time_us=-9223372036854775807", "", "junk", "="] {
            assert_eq!(progress.line(line), None, "{line}");
        }
        assert_eq!(progress.line("progress=continue").map(|report| report.percent), Some(0));
    }

    #[test]
    fn progress_neither_falls_nor_ends_before_the_work() {
        let mut progress = Progress::new(2.0);
        for (out_us, percent) in [(1_000_000, 50), (500_000, 50), (2_500_000, 99)] {
            assert_eq!(progress.line(&format!("out_time_us={out_us}")), None);
            assert_eq!(progress.line("progress=continue").map(|report| report.percent), Some(percent));
        }
    }
}
