//! How long a cut will take: the kernel shares an image piece by piece, so the time grows with its pieces, not its bytes.

use std::time::Duration;
use vss_model::{VssCode, VssError, limits};

/// Time for one piece. `tests/measure.rs` saw medians of 34 to 54 µs on XFS and 20 to 31 µs on btrfs with 1,000 to 40,000
/// pieces, and 113 µs at most, on 2 busy cores.
const PER_EXTENT: Duration = Duration::from_micros(60);

/// The most that may be planned of a hold: half of it, so that a machine half as fast as foreseen still ends in time.
const MOST: Duration = Duration::from_millis(limits::HOLD.as_millis() as u64 / 2);

/// How long FICLONE of an image in so many pieces is expected to take.
#[must_use]
pub fn forecast(extents: u64) -> Duration {
    PER_EXTENT.saturating_mul(u32::try_from(extents).unwrap_or(u32::MAX))
}

/// Refuses images that lie in so many pieces, all together, that the cut would take too long.
pub(crate) fn check(extents: u64) -> Result<(), VssError> {
    let wanted = forecast(extents);
    if wanted <= MOST {
        return Ok(());
    }
    Err(VssError::new(
        VssCode::ProviderVeto,
        format!(
            "The images lie in {extents} pieces: cutting them would hold writes for about {:.1} s, and {:.1} s is the most \
             that is planned",
            wanted.as_secs_f64(),
            MOST.as_secs_f64()
        ),
    )
    .with_hint("Defragment the image (xfs_fsr, btrfs filesystem defragment), or make a set for each volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_half_a_hold_is_the_most() {
        assert_eq!(forecast(10_000), Duration::from_millis(600));
        assert!(check(0).is_ok() && check(83_000).is_ok());
        let error = check(100_000).unwrap_err();
        assert!(error.code == VssCode::ProviderVeto && error.message.contains("100000 pieces"), "{error}");
        assert!(error.message.contains("6.0 s") && error.message.contains("5.0 s"), "{error}");
        assert!(check(u64::MAX).is_err());
    }
}
