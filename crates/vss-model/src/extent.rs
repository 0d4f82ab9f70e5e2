//! Runs of bytes in the image of a volume, and lists of them as sets: what two have in common, what one has beyond the other.

use serde::{Deserialize, Serialize};

/// A run of bytes in the image of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// Where it begins, in bytes from the beginning of the volume.
    pub offset: u64,
    /// How many bytes it has; never 0.
    pub length: u64,
}

impl Extent {
    /// The first byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Puts extents in order and joins those that touch or overlap; empty ones are left out. The lists that the functions below
/// take and give are like that.
#[must_use]
pub fn normal(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|extent| extent.length > 0);
    extents.sort_unstable();
    let mut joined: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match joined.last_mut() {
            Some(last) if extent.offset <= last.end() => {
                last.length = last.end().max(extent.end()) - last.offset;
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// What is in one of the two at least.
#[must_use]
pub fn union(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    normal(one.iter().chain(other).copied().collect())
}

/// What is in both.
#[must_use]
pub fn intersection(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut common = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let (begin, end) = (a.offset.max(b.offset), a.end().min(b.end()));
        if begin < end {
            common.push(Extent { offset: begin, length: end - begin });
        }
        if a.end() <= b.end() {
            left.next()
        } else {
            right.next()
        };
    }
    common
}

/// What is in `one` and not in `other`.
#[must_use]
pub fn difference(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut rest = Vec::new();
    let mut taken = other.iter().peekable();
    for extent in one {
        let mut begin = extent.offset;
        while let Some(out) = taken.peek().filter(|out| out.offset < extent.end()) {
            if out.offset > begin {
                rest.push(Extent { offset: begin, length: out.offset - begin });
            }
            begin = begin.max(out.end());
            if out.end() > extent.end() {
                break;
            }
            taken.next();
        }
        if begin < extent.end() {
            rest.push(Extent { offset: begin, length: extent.end() - begin });
        }
    }
    rest
}

/// How many bytes they have together.
#[must_use]
pub fn total(extents: &[Extent]) -> u64 {
    extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit `n` of the number: byte `n` is in the list.
    fn list(bits: u16) -> Vec<Extent> {
        normal((0..16).filter(|bit| bits >> bit & 1 == 1).map(|bit| Extent { offset: bit, length: 1 }).collect())
    }

    #[test]
    fn lists_are_sets_of_bytes() {
        // A fixed walk through pairs of 16-bit sets; 40,503 is odd, so every value comes up.
        for step in 0..=u16::MAX {
            let (one, other) = (step, step.wrapping_mul(40_503).rotate_left(5));
            let (a, b) = (list(one), list(other));
            assert_eq!(union(&a, &b), list(one | other));
            assert_eq!(intersection(&a, &b), list(one & other));
            assert_eq!(difference(&a, &b), list(one & !other));
            assert_eq!(total(&a), u64::from(one.count_ones()));
        }
    }

    #[test]
    fn the_end_of_the_number_range_is_no_trap() {
        let last = Extent { offset: u64::MAX - 1, length: 7 };
        assert_eq!(last.end(), u64::MAX);
        assert_eq!(total(&[Extent { offset: 0, length: u64::MAX }, last]), u64::MAX);
        assert!(normal(vec![Extent { offset: 3, length: 0 }]).is_empty());
    }
}
