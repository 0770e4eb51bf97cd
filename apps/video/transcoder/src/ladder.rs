//! Which renditions an original gets.
//!
//! The rule: one for each of the heights 720 and 360 that the original reaches; if it reaches none, one at its own
//! height. No rendition is larger than its original, and there is always at least one.

/// The heights that renditions should have, tallest first.
const HEIGHTS: [u32; 2] = [720, 360];

/// One rendition to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Its height in pixels, even.
    pub height: u32,
}

impl Rung {
    /// Its name: `720p`.
    pub fn name(&self) -> String {
        format!("{}p", self.height)
    }

    /// The name of its file, one of a few whatever the original is: who cleans up needs no list.
    pub fn file(&self) -> String {
        if HEIGHTS.contains(&self.height) { format!("{}.mp4", self.name()) } else { String::from("small.mp4") }
    }
}

/// The renditions of an original of this height.
pub fn ladder(height: u32) -> Vec<Rung> {
    let reached: Vec<Rung> = HEIGHTS.iter().filter(|wanted| **wanted <= height).map(|h| Rung { height: *h }).collect();
    if reached.is_empty() { vec![Rung { height: (height / 2 * 2).max(2) }] } else { reached }
}

#[cfg(test)]
mod tests {
    //! Tests of the rule.
    use super::{Rung, ladder};

    #[test]
    fn an_original_gets_what_it_reaches_and_always_something() {
        for (height, expected) in [
            (4320, vec![720, 360]),
            (1080, vec![720, 360]),
            (721, vec![720, 360]),
            (720, vec![720, 360]),
            (719, vec![360]),
            (360, vec![360]),
            (359, vec![358]),
            (272, vec![272]),
            (2, vec![2]),
            (1, vec![2]),
        ] {
            let heights: Vec<u32> = ladder(height).iter().map(|rung| rung.height).collect();
            assert_eq!(heights, expected, "of {height}");
        }
    }

    #[test]
    fn no_rendition_is_larger_than_its_original_or_odd() {
        for height in 2..5000 {
            assert!(ladder(height).iter().all(|rung| rung.height <= height && rung.height % 2 == 0));
        }
    }

    #[test]
    fn a_rendition_is_named_after_its_height() {
        assert_eq!(Rung { height: 720 }.name(), "720p");
    }

    // The api deletes what was made of a deleted video by these names.
    #[test]
    fn whatever_the_original_is_there_are_three_names_of_files() {
        let names: std::collections::BTreeSet<String> = (0..5000).flat_map(ladder).map(|rung| rung.file()).collect();
        assert_eq!(Vec::from_iter(names), ["360p.mp4", "720p.mp4", "small.mp4"]);
    }
}
