//! A set of chunks, one bit each: what was written, what is still to be copied.
//!
//! Plain memory and no I/O. The bits that the kernel keeps are in [`Tracer`](crate::Tracer), which takes them into one of these.

use std::ops::Range;

/// Bits of one word.
const WORD: u64 = u64::BITS as u64;

/// A set of chunks, numbered from 0 up to a fixed count. Nothing but [`Bitmap::new`] and [`Bitmap::from_words`] allocates.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    chunks: u64,
    /// Bit `n % 64` of word `n / 64` is chunk `n`; the bits behind the last chunk are 0.
    words: Vec<u64>,
}

impl Bitmap {
    /// The empty set of a device of `chunks` chunks; one byte of memory for 8 of them.
    #[must_use]
    pub fn new(chunks: u64) -> Self {
        Self { chunks, words: vec![0; words_of(chunks)] }
    }

    /// The set that [`Bitmap::words`] gave; none when these are not the words of a set of so many chunks.
    #[must_use]
    pub fn from_words(chunks: u64, words: Vec<u64>) -> Option<Self> {
        let is_whole = words.len() == words_of(chunks);
        let has_tail = !chunks.is_multiple_of(WORD) && words.last().is_some_and(|last| last >> (chunks % WORD) != 0);
        (is_whole && !has_tail).then_some(Self { chunks, words })
    }

    /// Its words, for saving: bit `n % 64` of word `n / 64` is chunk `n`.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many chunks there are, in the set and out of it.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// How many chunks are in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// True when no chunk is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// True when `chunk` is in the set; a chunk behind the last one never is.
    #[must_use]
    pub fn get(&self, chunk: u64) -> bool {
        chunk < self.chunks && self.words[(chunk / WORD) as usize] >> (chunk % WORD) & 1 == 1
    }

    /// Puts chunks into the set; what is behind the last one is left out.
    pub fn set(&mut self, chunks: Range<u64>) {
        self.each_word(chunks, |word, mask| *word |= mask);
    }

    /// Takes chunks out of the set.
    pub fn clear(&mut self, chunks: Range<u64>) {
        self.each_word(chunks, |word, mask| *word &= !mask);
    }

    /// Takes all chunks out.
    pub fn clear_all(&mut self) {
        self.words.fill(0);
    }

    /// Puts all chunks of `other` in.
    ///
    /// # Panics
    /// The sets are of different sizes.
    pub fn union(&mut self, other: &Self) {
        self.with(other, |mine, theirs| *mine |= theirs);
    }

    /// Takes all chunks of `other` out.
    ///
    /// # Panics
    /// The sets are of different sizes.
    pub fn subtract(&mut self, other: &Self) {
        self.with(other, |mine, theirs| *mine &= !theirs);
    }

    /// Keeps only the chunks that `other` has too.
    ///
    /// # Panics
    /// The sets are of different sizes.
    pub fn intersect(&mut self, other: &Self) {
        self.with(other, |mine, theirs| *mine &= theirs);
    }

    /// The set as ranges of neighbouring chunks, in order, none of them empty, no two of them touching.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        Runs { bitmap: self, next: 0 }
    }

    /// Puts the chunks of the bits of `bits` into word `index`; returns how many bits there were. Bits of no chunk are left out.
    pub(crate) fn put_word(&mut self, index: usize, bits: u64) -> u64 {
        let Some(word) = self.words.get_mut(index) else { return 0 };
        let left = self.chunks - index as u64 * WORD;
        let bits = if left < WORD { bits & ((1 << left) - 1) } else { bits };
        *word |= bits;
        u64::from(bits.count_ones())
    }

    fn with(&mut self, other: &Self, mut change: impl FnMut(&mut u64, u64)) {
        assert_eq!(self.chunks, other.chunks, "sets of different devices");
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            change(mine, *theirs);
        }
    }

    fn each_word(&mut self, chunks: Range<u64>, change: impl Fn(&mut u64, u64)) {
        let end = chunks.end.min(self.chunks);
        let mut at = chunks.start;
        while at < end {
            let (index, bit) = (at / WORD, at % WORD);
            let bits = (WORD - bit).min(end - at);
            let mask = if bits == WORD { u64::MAX } else { ((1 << bits) - 1) << bit };
            change(&mut self.words[index as usize], mask);
            at += bits;
        }
    }

    /// The first chunk from `from` on that is (`true`) or is not (`false`) in the set; the count of all when there is none.
    fn find(&self, from: u64, wanted: bool) -> u64 {
        let flip = if wanted { 0 } else { u64::MAX };
        let mut at = from;
        while at < self.chunks {
            let word = (self.words[(at / WORD) as usize] ^ flip) >> (at % WORD);
            if word != 0 {
                return (at + u64::from(word.trailing_zeros())).min(self.chunks);
            }
            at = (at / WORD + 1) * WORD;
        }
        self.chunks
    }
}

impl std::fmt::Debug for Bitmap {
    /// The count only: the words of a volume are millions.
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Bitmap({} of {})", self.count(), self.chunks)
    }
}

fn words_of(chunks: u64) -> usize {
    chunks.div_ceil(WORD) as usize
}

/// See [`Bitmap::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    bitmap: &'a Bitmap,
    next: u64,
}

impl Iterator for Runs<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.bitmap.find(self.next, true);
        if start == self.bitmap.chunks {
            return None;
        }
        self.next = self.bitmap.find(start, false);
        Some(start..self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn listed(bitmap: &Bitmap) -> BTreeSet<u64> {
        bitmap.runs().flatten().collect()
    }

    #[test]
    fn ranges_go_in_and_out() {
        for chunks in [1, 63, 64, 65, 128, 200] {
            for start in [0, 1, 62, 63, 64, 65, 127, 128, 199, 250] {
                for length in [0, 1, 2, 63, 64, 65, 130, 500] {
                    let mut bitmap = Bitmap::new(chunks);
                    let range = start..start + length;
                    bitmap.set(range.clone());
                    let wanted: BTreeSet<u64> = range.clone().filter(|chunk| *chunk < chunks).collect();
                    assert_eq!(listed(&bitmap), wanted, "{chunks} {range:?}");
                    assert_eq!(bitmap.count(), wanted.len() as u64);
                    assert!((0..300).all(|chunk| bitmap.get(chunk) == wanted.contains(&chunk)));
                    let saved = Bitmap::from_words(chunks, bitmap.words().to_vec());
                    assert_eq!(saved.as_ref(), Some(&bitmap));
                    bitmap.clear(range);
                    assert!(bitmap.is_empty());
                }
            }
        }
    }

    #[test]
    fn runs_do_not_touch() {
        let mut bitmap = Bitmap::new(300);
        for range in [0..2, 2..3, 60..70, 127..129, 192..256, 299..300] {
            bitmap.set(range);
        }
        let runs: Vec<_> = bitmap.runs().collect();
        assert_eq!(runs, [0..3, 60..70, 127..129, 192..256, 299..300]);
    }

    #[test]
    fn sets_are_added_and_taken_away() {
        let (mut one, mut other) = (Bitmap::new(100), Bitmap::new(100));
        one.set(10..80);
        other.set(70..90);
        let mut both = one.clone();
        both.union(&other);
        assert_eq!(listed(&both), (10..90).collect());
        both.subtract(&other);
        assert_eq!(listed(&both), (10..70).collect());
        one.intersect(&other);
        assert_eq!(listed(&one), (70..80).collect());
        one.clear_all();
        assert!(one.is_empty());
    }

    #[test]
    fn words_of_another_size_are_no_set() {
        assert!(Bitmap::from_words(65, vec![0]).is_none());
        assert!(Bitmap::from_words(65, vec![0, 2]).is_none());
        assert!(Bitmap::from_words(65, vec![0, 1]).is_some());
        assert!(Bitmap::from_words(64, vec![u64::MAX]).is_some());
    }

    #[test]
    fn a_word_from_outside_adds_no_chunk_behind_the_last() {
        let mut bitmap = Bitmap::new(66);
        assert_eq!(bitmap.put_word(1, u64::MAX), 2);
        assert_eq!(bitmap.put_word(2, u64::MAX), 0);
        assert_eq!(listed(&bitmap), BTreeSet::from([64, 65]));
    }
}
