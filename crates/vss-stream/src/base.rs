//! What the base has at a place, in four bytes: the first of its BLAKE3.
//!
//! A CRC-32C would not do. Blocks of ext4 and XFS end with their own CRC-32C, or have it in the middle; and the CRC of bytes
//! with their own CRC in them is the same whatever the bytes are. It would not see that a superblock was written, which is
//! just what has to be seen.

use blake3::Hasher;

/// What the base has at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseSum(pub [u8; 4]);

impl BaseSum {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = BaseHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Of bytes that come one part after the other.
#[derive(Debug, Clone, Default)]
pub struct BaseHasher(Hasher);

impl BaseHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all of them.
    #[must_use]
    pub fn finish(self) -> BaseSum {
        BaseSum(crate::header::array(self.0.finalize().as_bytes(), 0))
    }
}
