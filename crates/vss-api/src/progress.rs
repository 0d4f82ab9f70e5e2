//! How far the copying of a volume is, on the wire and in words.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use vss_model::{Bytes, Progress, Work};

/// How far the copying of one volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Mount point of the volume.
    #[serde(with = "vss_model::path_text")]
    pub volume: PathBuf,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
}

/// As in `copying /srv: round 3, 412 MiB of 1.2 GiB, 310 MiB/s, 22 MiB/s being written, hold about 80 ms, 12 s left`; what is
/// not known is left out.
impl fmt::Display for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { work, round, bytes_done, bytes_total, copy_rate, dirty_rate, hold_ms, left_ms, .. } =
            self.progress;
        let deed = match work {
            Work::Copying | Work::Catching => "copying",
            Work::Comparing => "comparing",
            Work::Reverting => "reverting",
        };
        write!(f, "{deed} {}: round {round}, {} of {}", self.volume.display(), Bytes(bytes_done), Bytes(bytes_total))?;
        if let Some(rate) = copy_rate {
            write!(f, ", {}/s", Bytes(rate))?;
        }
        if let Some(rate) = dirty_rate {
            write!(f, ", {}/s being written", Bytes(rate))?;
        }
        if let Some(hold) = hold_ms {
            write!(f, ", hold about {}", Milliseconds(hold))?;
        }
        if let Some(left) = left_ms {
            // To the second: it is an estimate.
            write!(f, ", {} left", Milliseconds(left.div_ceil(1000) * 1000))?;
        }
        Ok(())
    }
}

/// The same in few words, for a narrow terminal: `/srv: 34 % of round 3, 310 MiB/s, 12 s left`.
#[derive(Debug)]
pub struct Short<'a>(&'a CopyProgress);

impl CopyProgress {
    /// In few words.
    #[must_use]
    pub fn short(&self) -> Short<'_> {
        Short(self)
    }
}

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { round, bytes_done, bytes_total, copy_rate, left_ms, .. } = self.0.progress;
        let percent = u128::from(bytes_done) * 100 / u128::from(bytes_total.max(1));
        write!(f, "{}: {percent} % of round {round}", self.0.volume.display())?;
        if let Some(rate) = copy_rate {
            write!(f, ", {}/s", Bytes(rate))?;
        }
        if let Some(left) = left_ms {
            write!(f, ", {} left", Milliseconds(left.div_ceil(1000) * 1000))?;
        }
        Ok(())
    }
}

/// A duration in milliseconds as people read it: `80 ms`, `1.5 s`, `12 s`, `3 min`, `2 h 5 min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milliseconds(pub u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (milliseconds, seconds) = (self.0, self.0 / 1000);
        match seconds {
            0 => write!(f, "{milliseconds} ms"),
            1..10 if milliseconds % 1000 >= 100 => write!(f, "{seconds}.{} s", milliseconds % 1000 / 100),
            1..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds / 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::ShadowId;

    fn progress() -> CopyProgress {
        let progress = Progress {
            shadow_id: ShadowId::random(),
            work: Work::Catching,
            round: 3,
            bytes_done: 412 << 20,
            bytes_total: 1_288_490_189,
            copy_rate: Some(310 << 20),
            dirty_rate: Some(22 << 20),
            hold_ms: Some(80),
            left_ms: Some(11_400),
        };
        CopyProgress { volume: "/srv".into(), progress }
    }

    #[test]
    fn all_that_is_known_is_said_in_one_line() {
        let mut copying = progress();
        assert_eq!(
            copying.to_string(),
            "copying /srv: round 3, 412 MiB of 1.2 GiB, 310 MiB/s, 22 MiB/s being written, hold about 80 ms, 12 s left"
        );
        assert_eq!(copying.short().to_string(), "/srv: 33 % of round 3, 310 MiB/s, 12 s left");
        copying.progress = Progress {
            work: Work::Comparing,
            round: 1,
            copy_rate: None,
            dirty_rate: None,
            hold_ms: None,
            left_ms: None,
            ..copying.progress
        };
        assert_eq!(copying.to_string(), "comparing /srv: round 1, 412 MiB of 1.2 GiB");
    }

    #[test]
    fn durations_have_the_unit_that_is_read_best() {
        let said = |milliseconds: u64| Milliseconds(milliseconds).to_string();
        assert_eq!([0, 999, 1000, 1500, 9999].map(said), ["0 ms", "999 ms", "1 s", "1.5 s", "9.9 s"]);
        assert_eq!([12_000, 119_999, 120_000, 7_500_000].map(said), ["12 s", "119 s", "2 min", "2 h 5 min"]);
    }

    #[test]
    fn it_reads_back() {
        let copying = progress();
        let value = serde_json::to_value(&copying).unwrap();
        assert_eq!((&value["volume"], &value["work"]), (&"/srv".into(), &"catching".into()));
        assert_eq!(serde_json::from_value::<CopyProgress>(value).unwrap(), copying);
    }
}
