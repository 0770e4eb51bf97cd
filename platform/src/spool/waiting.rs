//! Lines that wait to be shipped: one text, in which each stands behind the one before, as a batch wants them.
//!
//! Each request leaves a record and a span; a text for each of them would be made and dropped with every one.

use std::collections::VecDeque;

/// Room that is kept when nothing waits.
const IDLE_BYTES_MAX: usize = 1024 * 1024;

/// Lines, the oldest first, each with one byte behind it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    text: Vec<u8>,
    /// Where each line's byte behind it ends, counted from the first line that ever was.
    ends: VecDeque<usize>,
    /// How much of that is gone from `text`.
    gone: usize,
}

impl Waiting {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds the line that `write` writes, once `keep` has kept it, a line feed behind it. When either fails it is as if nothing was.
    pub(super) fn add<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        keep: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.text.len();
        let kept = write(&mut self.text).and_then(|()| {
            self.text.push(b'\n');
            keep(self.text.get(begin..).unwrap_or_default())
        });
        match kept {
            Ok(()) => self.ends.push_back(self.gone.saturating_add(self.text.len())),
            Err(_) => self.text.truncate(begin),
        }
        // In a batch it is a comma that stands between two.
        if let (Ok(()), Some(last)) = (&kept, self.text.last_mut()) {
            *last = b',';
        }
        kept
    }

    /// The first lines, at most so many, with commas between them; and how many they are.
    pub(super) fn first(&self, most: usize) -> (&[u8], usize) {
        let count = most.min(self.ends.len());
        let end = count.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| end.saturating_sub(self.gone));
        (self.text.get(..end.saturating_sub(1)).unwrap_or_default(), count)
    }

    /// Bytes of them all.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// All of them as they were kept, a line feed behind each.
    pub(super) fn kept(&self) -> Vec<u8> {
        let mut text = self.text.clone();
        for end in &self.ends {
            if let Some(last) = end.checked_sub(self.gone.saturating_add(1)).and_then(|at| text.get_mut(at)) {
                *last = b'\n';
            }
        }
        text
    }

    /// Forgets the first lines, so many or all.
    pub(super) fn forget(&mut self, count: usize) {
        let count = count.min(self.ends.len());
        let Some(end) = count.checked_sub(1).and_then(|last| self.ends.get(last)).copied() else { return };
        self.ends.drain(..count);
        self.text.drain(..end.saturating_sub(self.gone).min(self.text.len()));
        self.gone = end;
        if self.ends.is_empty() {
            self.gone = 0;
            self.text.shrink_to(IDLE_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(waiting: &mut Waiting, line: &str, keeps: bool) -> Result<(), ()> {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(line.as_bytes());
            Ok(())
        };
        waiting.add(write, |kept| {
            assert_eq!(kept, format!("{line}\n").as_bytes());
            if keeps { Ok(()) } else { Err(()) }
        })
    }

    #[test]
    fn lines_are_given_in_order_and_forgotten_from_the_front() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.first(9), (&b""[..], 0));
        for line in ["1", "22", "333", "4"] {
            assert!(add(&mut waiting, line, true).is_ok());
        }
        assert_eq!((waiting.first(0), waiting.first(2), waiting.first(9)), ((&b""[..], 0), (&b"1,22"[..], 2), (&b"1,22,333,4"[..], 4)));
        waiting.forget(2);
        assert!(add(&mut waiting, "55", true).is_ok());
        assert_eq!((waiting.len(), waiting.first(2)), (3, (&b"333,4"[..], 2)));
        assert_eq!((waiting.kept(), waiting.bytes()), (b"333\n4\n55\n".to_vec(), 9));
        waiting.forget(0);
        waiting.forget(9);
        assert!(waiting.kept().is_empty());
        assert_eq!((waiting.len(), waiting.first(9)), (0, (&b""[..], 0)));
        assert!(add(&mut waiting, "6", true).is_ok());
        assert_eq!(waiting.first(9), (&b"6"[..], 1));
    }

    // J7: what could not be kept is not shipped either.
    #[test]
    fn a_line_that_is_not_kept_leaves_nothing() {
        let mut waiting = Waiting::default();
        assert!(add(&mut waiting, "1", true).is_ok() && add(&mut waiting, "22", false).is_err() && add(&mut waiting, "3", true).is_ok());
        assert!(
            waiting
                .add(
                    |out| {
                        out.push(b'x');
                        Err(())
                    },
                    |_| Ok(())
                )
                .is_err()
        );
        assert_eq!(waiting.first(9), (&b"1,3"[..], 2));
    }
}
