//! Where a tracer is kept: its directory in the BPF file system. The pins there keep programs, maps and links alive when the
//! process that made them is gone; a reboot ends them all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::error::TraceError;

/// Where systemd mounts the BPF file system, and where we do when nobody has.
const BPFFS: &str = "/sys/fs/bpf";
/// BPF_FS_MAGIC of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Ours in it.
const OURS: &str = "vss";

/// The place of one tracer's pins. Making one touches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The place of the tracer of `volume` in the service `instance`, both any text that tells them apart:
    /// `/sys/fs/bpf/vss/INSTANCE/VOLUME`. Bytes other than letters, digits, `-` and `_` become `%XX`, because the BPF file
    /// system refuses names with a dot.
    #[must_use]
    pub fn new(instance: &str, volume: &str) -> Self {
        Self { directory: Path::new(BPFFS).join(OURS).join(safe(instance)).join(safe(volume)) }
    }

    /// The directory of the pins.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The place of one pin.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// True when something is there, whole or not.
    pub(crate) fn exist(&self) -> bool {
        self.directory.exists()
    }

    /// Makes the directory and all above it, for root alone, and mounts the BPF file system when it is not.
    ///
    /// # Errors
    /// [`TraceError::Exists`]; no permission.
    pub(crate) fn make(&self) -> Result<(), TraceError> {
        mount_bpffs()?;
        let what = || format!("making {}", self.directory.display());
        for is_last in [false, false, true] {
            if let Some(above) = self.directory.parent() {
                DirBuilder::new().mode(0o700).recursive(true).create(above).map_err(TraceError::io(what()))?;
            }
            match DirBuilder::new().mode(0o700).create(&self.directory) {
                Ok(()) => break,
                // Who removes the last pins of an instance removes the directory above them.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_last => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(TraceError::Exists(self.directory.clone()));
                }
                Err(error) => return Err(TraceError::io(what())(error)),
            }
        }
        Ok(())
    }

    /// Unlinks every pin, `first` before all others, and the directory; the instance's directory too when it is empty then.
    /// False when there was nothing.
    ///
    /// # Errors
    /// No permission.
    pub(crate) fn unlink(&self, first: &str) -> Result<bool, TraceError> {
        let failed = |error| TraceError::io(format!("removing {}", self.directory.display()))(error);
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        gone(fs::remove_file(self.pin(first))).map_err(failed)?;
        for entry in entries {
            gone(fs::remove_file(entry.map_err(failed)?.path())).map_err(failed)?;
        }
        gone(fs::remove_dir(&self.directory)).map_err(failed)?;
        if let Some(instance) = self.directory.parent() {
            // Refused while another volume of the instance has a tracer.
            let _ = fs::remove_dir(instance);
        }
        Ok(true)
    }
}

/// Why the BPF file system is not there, if so.
pub(crate) fn missing_bpffs() -> Option<String> {
    match fs::metadata(BPFFS) {
        Ok(_) => None,
        Err(error) => Some(format!("there is no {BPFFS} to mount the BPF file system on ({error})")),
    }
}

fn is_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|status| u64::try_from(status.f_type) == Ok(BPF_FS_MAGIC))
}

fn mount_bpffs() -> Result<(), TraceError> {
    if is_bpffs() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = mount("bpf", BPFFS, "bpf", flags, Some(c"mode=0700"));
    // Somebody else may have been faster.
    if is_bpffs() {
        Ok(())
    } else {
        mounted.map_err(TraceError::io(format!("mounting the BPF file system on {BPFFS}")))
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn safe(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    // The empty name would be the directory above.
    if safe.is_empty() { "%".to_owned() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_differ() {
        let pins = Pins::new("/run/vss", "dm-0.x");
        assert_eq!(pins.directory(), Path::new("/sys/fs/bpf/vss/%2Frun%2Fvss/dm-0%2Ex"));
        assert_eq!(Pins::new("", "..").directory(), Path::new("/sys/fs/bpf/vss/%/%2E%2E"));
        assert_ne!(Pins::new("a", "b%2E"), Pins::new("a", "b."));
    }
}
