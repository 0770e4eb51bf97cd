//! Damage at random, the same for the same seed: bits, bytes, lengths, parts doubled, moved and cut off.
//!
//! Spec: Marsaglia's xorshift.

/// A sequence of numbers that looks random and is the same each time.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle(u64);

impl Shuffle {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit.max(1) as u64)).unwrap_or(0)
    }
}

/// A sound file with one to four faults; half of them in its beginning, where the index of small files is.
#[must_use]
pub fn mutant(sound: &[u8], seed: u64) -> Vec<u8> {
    let (mut shuffle, mut bytes) = (Shuffle::new(seed.wrapping_add(0x5eed)), sound.to_vec());
    for _ in 0..=shuffle.below(4) {
        let near = if shuffle.below(2) == 0 { bytes.len() } else { bytes.len().min(2500) };
        let at = shuffle.below(near);
        let len = shuffle.below(64).saturating_add(1).min(bytes.len().saturating_sub(at));
        match shuffle.below(6) {
            0 => bytes.truncate(at.max(64)),
            // A length, or what may be one.
            1 => {
                let lie = [0u32, 1, 7, 8, 0x7fff_ffff, u32::MAX].get(shuffle.below(6)).copied().unwrap_or(0).to_be_bytes();
                bytes.iter_mut().skip(at).zip(lie).for_each(|(place, new)| *place = new);
            }
            // A part twice, or moved.
            2 => {
                let piece = bytes.get(at..at.saturating_add(len)).unwrap_or_default().to_vec();
                let to = shuffle.below(near);
                bytes.splice(to..to, piece);
            }
            3 => {
                bytes.drain(at..at.saturating_add(len));
            }
            _ => {
                let bit = 1u8 << shuffle.below(8);
                bytes.iter_mut().skip(at).take(1).for_each(|place| *place ^= bit);
            }
        }
    }
    bytes
}
