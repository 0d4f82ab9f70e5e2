//! Is a path on a volume of the set? (`IsPathAffected`, spec R 2.3)

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::io;
use std::path::Path;
use vss_api::writer::EventVolume;

/// Where a path lies.
#[derive(Debug, Clone, Copy)]
struct Lie {
    mount: u64,
    device: (u32, u32),
}

impl Lie {
    fn of(path: &Path) -> io::Result<Self> {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
        Ok(Self { mount: found.stx_mnt_id, device: (found.stx_dev_major, found.stx_dev_minor) })
    }

    /// True on the same mount, where subvolumes nested in the volume are copied with it, and on the same volume that is
    /// mounted in another place, too.
    fn is_with(self, other: Self) -> bool {
        self.mount == other.mount || self.device == other.device
    }
}

/// True when `path` lies on one of the volumes, whatever is mounted between its mount point and the path.
///
/// # Errors
/// Those of statx(2) for `path`: it has to exist. A volume whose mount point cannot be looked at holds nothing.
pub(crate) fn is_affected(volumes: &[EventVolume], path: &Path) -> io::Result<bool> {
    let lie = Lie::of(path)?;
    Ok(volumes.iter().filter_map(|volume| Lie::of(&volume.volume).ok()).any(|volume| lie.is_with(volume)))
}

#[cfg(test)]
mod tests {
    use crate::{Call, conformance, fake::FakeWriter, fake_service};
    use std::path::Path;
    use std::time::Duration;
    use vss_api::writer::EventKind;
    use vss_model::VssCode;

    #[test]
    fn what_is_mounted_on_a_volume_is_not_on_it() {
        let event = fake_service::event(Path::new("/"), Duration::from_secs(5));
        let call = Call::new(EventKind::PrepareSnapshot, &event);
        assert!(call.is_path_affected(Path::new("/")).unwrap());
        // By its name it lies below the volume.
        assert!(!call.is_path_affected(Path::new("/proc/self")).unwrap());
        assert_eq!(call.must_have(Path::new("/proc")).unwrap_err().code, VssCode::WriterErrorInconsistentSnapshot);
        let missing = call.is_path_affected(Path::new("/no/such/path")).unwrap_err();
        assert!(missing.code == VssCode::WriterErrorRetryable && missing.message.contains("/no/such/path"));
    }

    #[test]
    fn the_suite_has_the_volumes_of_the_writers_files() {
        for directory in ["/", "/proc/self"] {
            let mut writer = FakeWriter::new("fake", directory);
            let event = conformance::event(&mut writer);
            let call = Call::new(EventKind::PrepareSnapshot, &event);
            call.must_have(Path::new(directory)).unwrap();
        }
    }
}
