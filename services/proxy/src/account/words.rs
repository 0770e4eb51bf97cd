//! The words of an account: one text for all of them, since each is said with every request and none outlives it.

/// Most accounts' words fit.
const BYTES: usize = 512;

/// Words, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Words(String);

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// A word of ours.
    Fixed(&'static str),
    /// From here to there.
    Said { begin: usize, end: usize },
}

impl Default for Word {
    fn default() -> Self {
        Self::Fixed("")
    }
}

impl Words {
    /// Says a word, in pieces.
    pub(super) fn say(&mut self, pieces: &[&str]) -> Word {
        if self.0.capacity() == 0 {
            self.0.reserve(BYTES);
        }
        let begin = self.0.len();
        for piece in pieces {
            self.0.push_str(piece);
        }
        Word::Said { begin, end: self.0.len() }
    }

    /// The same, cut off after so many bytes, or before the character that would not fit.
    pub(super) fn say_at_most(&mut self, bytes_max: usize, pieces: &[&str]) -> Word {
        let begin = self.0.len();
        let word = self.say(pieces);
        if self.0.len().saturating_sub(begin) <= bytes_max {
            return word;
        }
        let most = begin.saturating_add(bytes_max);
        let end = (begin..=most).rev().find(|end| self.0.is_char_boundary(*end)).unwrap_or(begin);
        self.0.truncate(end);
        Word::Said { begin, end }
    }

    /// What was said.
    pub(super) fn said(&self, word: Word) -> &str {
        match word {
            Word::Fixed(text) => text,
            Word::Said { begin, end } => self.0.get(begin..end).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_what_was_said() {
        let mut words = Words::default();
        let first = words.say(&["one", " ", "two"]);
        let second = words.say(&[]);
        let third = words.say(&["three"]);
        assert_eq!((words.said(first), words.said(second), words.said(third)), ("one two", "", "three"));
        assert_eq!((words.said(Word::Fixed("fixed")), words.said(Word::default())), ("fixed", ""));
    }

    // J4: a record holds a resource, not a novel; and what it holds is text.
    #[test]
    fn a_long_word_is_cut_off_where_a_character_ends() {
        let mut words = Words::default();
        let before = words.say(&["before"]);
        let fits = words.say_at_most(4, &["ab", "cd"]);
        let cut = words.say_at_most(4, &["abc", "de"]);
        let between = words.say_at_most(4, &["abc", "ü"]);
        let after = words.say(&["after"]);
        let said = [before, fits, cut, between, after].map(|word| words.said(word));
        assert_eq!(said, ["before", "abcd", "abcd", "abc", "after"]);
    }
}
