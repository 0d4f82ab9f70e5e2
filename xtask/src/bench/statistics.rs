//! Percentiles of a series of durations.

use serde::Serialize;
use std::time::Duration;

/// What a series comes to, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Half of the values are at most this.
    pub(super) p50: f64,
    /// 99 of 100 values are at most this.
    pub(super) p99: f64,
    /// The smallest.
    pub(super) least: f64,
    /// The largest.
    pub(super) most: f64,
}

impl Summary {
    /// Of a series; zeros for an empty one.
    pub(super) fn of(series: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = series.iter().map(|value| value.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            // Nearest rank.
            let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), least: at(0), most: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_series() {
        let series: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Summary::of(&series), Summary { p50: 100.0, p99: 198.0, least: 1.0, most: 200.0 });
        assert_eq!(Summary::of(&[]).p99, 0.0);
    }
}
