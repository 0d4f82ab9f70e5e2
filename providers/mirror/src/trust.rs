//! May the marks of the tracer be trusted as all that the mirror lacks? If not, everything is compared, and says why.

use crate::{
    identity::Identity,
    kept::Kept,
    mirror::{Mirror, State},
    source::Source,
};
use vss_linux::{block_device, clock};
use vss_trace::{Pins, Target, Tracer};

/// What is known about a mirror and its tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// It was whole once.
    pub(crate) was_whole: bool,
    /// Its image is the file that it was.
    pub(crate) has_its_image: bool,
    /// Nobody else wrote to that.
    pub(crate) is_untouched: bool,
    pub(crate) is_clean: bool,
    /// The state is the one that this instance wrote last.
    pub(crate) is_ours: bool,
    /// It is the last that the tracer was told of.
    pub(crate) is_latest: bool,
    /// It was traced, and in this boot.
    pub(crate) was_traced: bool,
    pub(crate) is_this_boot: bool,
    pub(crate) has_its_size: bool,
    /// The tracer is one of the volume's device, which was there all the time.
    pub(crate) is_its_device: bool,
    /// It stayed mounted, where what lies below its device can be exchanged otherwise.
    pub(crate) stayed_mounted: bool,
    /// What is wrong with the tracer; none: nothing.
    pub(crate) tracer: Option<String>,
    /// Why everything was to be compared when that was broken off.
    pub(crate) unfinished: Option<String>,
}

/// What the mirror is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What is marked is all that it lacks.
    Whole,
    /// A comparison for this reason (half a sentence) was broken off, and what is marked is all that the mirror lacks. That
    /// alone is compared; what was written since the last copy is not known.
    Unfinished(String),
    /// Everything is copied: for the first time, or for this reason (half a sentence) once more.
    New(Option<String>),
    /// Everything is compared, for this reason (half a sentence).
    Compare(String),
}

impl Trust {
    /// Everything is compared because somebody wished so.
    pub(crate) fn wished() -> Self {
        Self::Compare("the requester wished so".to_owned())
    }

    /// True when what is marked is all that the mirror lacks.
    pub(crate) fn is_of_marks(&self) -> bool {
        matches!(self, Self::Whole | Self::Unfinished(_))
    }
}

impl Facts {
    pub(crate) fn judge(&self) -> Trust {
        let why = match self {
            Self { was_whole: false, .. } => return Trust::New(None),
            Self { has_its_image: false, .. } => {
                let why = "its image was removed, or another file was put in its place, since the last copy";
                return Trust::New(Some(why.to_owned()));
            }
            Self { has_its_size: false, .. } => "the volume has another size than at the last copy",
            Self { was_traced: false, .. } => "nothing was traced since the last copy",
            Self { is_this_boot: false, .. } => "the machine was started anew since the last copy",
            Self { is_ours: false, .. } => {
                "the mirror was used by another instance of the service, or was put back to an older state"
            }
            Self { is_clean: false, .. } => "the last use of the mirror was broken off",
            Self { is_latest: false, .. } => "the mirror was put back to an older state",
            Self { is_untouched: false, .. } => "its image was written to by somebody else since the last copy",
            Self { tracer: Some(why), .. } => why,
            Self { is_its_device: false, .. } => {
                "its device was taken away, or another was put in its place, since the last copy"
            }
            Self { stayed_mounted: false, .. } => {
                "it was unmounted since the last copy, and device-mapper may have other data below it now (a table loaded, a \
                 snapshot merged)"
            }
            Self { unfinished: Some(why), .. } => return Trust::Unfinished(why.clone()),
            _ => return Trust::Whole,
        };
        Trust::Compare(why.to_owned())
    }

    /// The facts of now, with the image that was found. Without `device`, the number of the volume's, that of the tracer is
    /// taken for it.
    pub(crate) fn of(
        state: &State,
        image: Option<&Identity>,
        kept: Option<&Kept>,
        device: Option<u64>,
        size: u64,
        pins: &Pins,
    ) -> (Self, Option<Tracer>) {
        let opened = Tracer::open(pins);
        let tracer = match &opened {
            Ok(Some(tracer)) if tracer.target().bytes() != size => {
                Some("the traced device has another size".to_owned())
            }
            Ok(Some(tracer)) => match tracer.balanced_at() {
                None => Some("the tracer was never at rest".to_owned()),
                Some(since) => tracer.counters().distrust(&since).map(|distrust| distrust.to_string()),
            },
            Ok(None) => Some("its tracer was removed".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let is_its_device = opened.as_ref().ok().and_then(Option::as_ref).is_some_and(|tracer| {
            let target = tracer.target();
            let is_it = device.is_none_or(|device| Target::of(device).is_ok_and(|of_volume| of_volume == target));
            is_it && state.disk.is_some() && state.disk == sequence_of(&target)
        });
        let stayed_mounted = opened.as_ref().ok().and_then(Option::as_ref).is_some_and(|tracer| {
            let mounting = mounting_of(&tracer.target());
            state.mounting == mounting && (mounting.is_some() || !is_mapped(&tracer.target()))
        });
        let facts = Self {
            is_its_device,
            stayed_mounted,
            was_whole: state.generation > 0,
            has_its_image: image.zip(state.image.as_ref()).is_some_and(|(found, left)| found.is_of_same(left)),
            is_untouched: image == state.image.as_ref(),
            is_clean: state.is_clean,
            // Of a tracer that is not there something else is said.
            is_latest: !matches!(&opened, Ok(Some(tracer)) if tracer.stamp() != state.stamp.as_u128()),
            is_ours: kept.is_some_and(|kept| kept.stamp == state.stamp),
            was_traced: state.epoch.is_some(),
            is_this_boot: clock::boot_id().is_ok_and(|boot_id| boot_id == state.boot_id),
            has_its_size: state.volume_bytes == size,
            tracer,
            unfinished: state.unfinished.clone(),
        };
        (facts, opened.ok().flatten())
    }
}

/// The number in this boot of the disk that is traced.
pub(crate) fn sequence_of(target: &Target) -> Option<u64> {
    block_device::disk_sequence(rustix::fs::makedev(target.disk.0, target.disk.1)).ok()
}

fn is_mapped(target: &Target) -> bool {
    block_device::is_mapped(rustix::fs::makedev(target.disk.0, target.disk.1)).unwrap_or(true)
}

/// The number in this boot of the mounting of a volume of device-mapper that is traced. As long as it is mounted nobody exchanges
/// what its file system has in memory; when it is not, the tables below may become others and the same again, and no write is
/// traced.
pub(crate) fn mounting_of(target: &Target) -> Option<u64> {
    let mounting = || block_device::mounting(rustix::fs::makedev(target.disk.0, target.disk.1)).ok();
    if is_mapped(target) { mounting() } else { None }
}

/// What a mirror is worth, and its tracer when that can be trusted.
pub(crate) fn judge(mirror: &Mirror, kept: Option<&Kept>, source: &Source, pins: &Pins) -> (Trust, Option<Tracer>) {
    let (facts, tracer) =
        Facts::of(&mirror.state, Some(&mirror.found), kept, Some(source.device_number), source.size, pins);
    let trust = facts.judge();
    let tracer = tracer.filter(|_| trust.is_of_marks());
    (trust, tracer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_is_a_reason() {
        let good = Facts {
            was_whole: true,
            has_its_image: true,
            is_untouched: true,
            is_clean: true,
            is_ours: true,
            is_latest: true,
            was_traced: true,
            is_this_boot: true,
            has_its_size: true,
            is_its_device: true,
            stayed_mounted: true,
            tracer: None,
            unfinished: None,
        };
        assert_eq!(good.judge(), Trust::Whole);
        let left = Facts { unfinished: Some("of a reboot".to_owned()), ..good.clone() };
        assert_eq!(left.judge(), Trust::Unfinished("of a reboot".to_owned()));
        assert_eq!(Facts { was_whole: false, is_clean: false, ..good.clone() }.judge(), Trust::New(None));
        let replaced = Facts { has_its_image: false, is_untouched: false, is_this_boot: false, ..good.clone() }.judge();
        assert!(matches!(&replaced, Trust::New(Some(why)) if why.contains("removed")), "{replaced:?}");
        let compared = [
            (Facts { is_clean: false, ..good.clone() }, "broken off"),
            (Facts { is_untouched: false, ..good.clone() }, "somebody else"),
            (Facts { is_ours: false, ..good.clone() }, "another instance"),
            (Facts { is_latest: false, ..good.clone() }, "older state"),
            (Facts { was_traced: false, ..good.clone() }, "nothing was traced"),
            (Facts { is_this_boot: false, tracer: Some("gone".to_owned()), ..good.clone() }, "started anew"),
            (Facts { is_its_device: false, ..good.clone() }, "taken away"),
            (Facts { stayed_mounted: false, ..good.clone() }, "unmounted"),
            (Facts { has_its_size: false, ..good.clone() }, "another size"),
            (Facts { tracer: Some("it missed 3 events".to_owned()), ..left }, "it missed 3 events"),
        ];
        for (facts, why) in compared {
            let Trust::Compare(reason) = facts.judge() else { panic!("{facts:?} is trusted") };
            assert!(reason.contains(why), "{reason}");
        }
    }
}
