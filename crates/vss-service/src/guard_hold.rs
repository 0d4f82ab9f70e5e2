//! The real hold: one guard process a set (design 2.1), behind the conductor's [`Hold`] and [`HoldMaker`].

use crate::environment::HoldMaker;
use crate::freeze_window::Hold;
use crate::guard::{Guard, GuardError, GuardMember, GuardOptions};
use crate::hold_trace::HoldTrace;
use crate::mount_graph::{MountGraph, Place};
use crate::providers::Target;
use rustix::fs::{Mode, OFlags};
use std::{os::fd::OwnedFd, path::PathBuf, time::Duration};
use vss_model::{SetId, Volume, VssCode, VssError};

/// How long the end of a guard is waited for; its supervisor goes on in the background.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes guards.
pub struct GuardMaker {
    /// The program `vss-guard`.
    pub program: PathBuf,
    /// Where its ledgers lie; without symbolic links.
    pub runtime_directory: PathBuf,
}

impl GuardMaker {
    /// The nesting levels of the held volumes, or what must not be.
    fn levels(&self, held: &[Volume], others: &[Volume], targets: &[Target]) -> Result<Vec<u8>, VssError> {
        let ledgers = Place {
            path: &self.runtime_directory,
            what: "The service's runtime directory",
            hint: "Use a runtime directory on another file system, usually /run (--runtime-dir)",
        };
        let what = |target: &Target| format!("What the cut of {} writes to,", target.member.display());
        let what: Vec<String> = targets.iter().map(what).collect();
        let hint = "Make two sets, one for each of the two volumes";
        let written = targets.iter().zip(&what).map(|(target, what)| Place { path: &target.path, what, hint });
        let places: Vec<Place<'_>> = std::iter::once(ledgers).chain(written).collect();
        MountGraph::read()?.levels(held, others, &places)
    }
}

impl HoldMaker for GuardMaker {
    fn judge(&self, held: &[Volume], others: &[Volume], targets: &[Target]) -> Result<(), VssError> {
        self.levels(held, others, targets).map(drop)
    }

    fn prepare(
        &self,
        set_id: SetId,
        held: &[Volume],
        others: &[Volume],
        targets: &[Target],
    ) -> Result<Box<dyn Hold>, VssError> {
        let levels = self.levels(held, others, targets)?;
        let mut members = Vec::with_capacity(held.len() + others.len());
        // Those that must not be held are flushed with the others, and never frozen.
        let levels = levels.into_iter().map(Some).chain(others.iter().map(|_| None));
        for (volume, level) in held.iter().chain(others).zip(levels) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&volume.mount_point, flags, Mode::empty()).map_err(|error| {
                VssError::new(VssCode::ObjectNotFound, format!("Cannot open {}: {error}", volume.mount_point.display()))
            })?;
            check_is(volume, &directory)?;
            members.push(GuardMember { volume: volume.mount_point.display().to_string(), directory, level });
        }
        let name = set_id.to_string();
        let guard = Guard::spawn(&self.program, &self.runtime_directory, &name, members, GuardOptions::default());
        Ok(Box::new(GuardHold(Some(guard.map_err(|error| told(&error))?))))
    }
}

/// A living guard; none once it is ended.
struct GuardHold(Option<Guard>);

impl GuardHold {
    fn guard(&mut self) -> Result<&mut Guard, VssError> {
        self.0.as_mut().ok_or_else(|| VssError::new(VssCode::Unexpected, "The guard has ended"))
    }
}

impl Hold for GuardHold {
    fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(Guard::pid)
    }

    fn flush(&mut self, limit: Duration) -> Result<(), VssError> {
        self.guard()?.sync(limit).map_err(|error| told(&error))
    }

    fn hold(&mut self) -> Result<(), VssError> {
        self.guard()?.hold().map(drop).map_err(|error| told(&error))
    }

    fn release(&mut self) -> Result<(), VssError> {
        self.guard()?.release().map(drop).map_err(|error| told(&error))
    }

    fn trace(&self) -> HoldTrace {
        self.0.as_ref().map(|guard| guard.trace().clone()).unwrap_or_default()
    }
}

impl Drop for GuardHold {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take()
            && !guard.finish(FAREWELL)
        {
            tracing::warn!("a guard has not ended yet; it is seen to in the background");
        }
    }
}

/// Is the volume still what is seen at its mount point? Nothing else is ever frozen.
fn check_is(volume: &Volume, directory: &OwnedFd) -> Result<(), VssError> {
    let there = rustix::fs::fstat(directory).map(|stat| stat.st_dev);
    if there == Ok(volume.device_number) {
        return Ok(());
    }
    Err(VssError::new(
        VssCode::ObjectNotFound,
        format!("{} was mounted at {} and is not any more", volume.id, volume.mount_point.display()),
    )
    .with_hint("Make the set again when the volume is mounted"))
}

fn told(error: &GuardError) -> VssError {
    let hint = error.hint();
    let mut hint: String = hint.to_owned();
    if let Some(first) = hint.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    VssError::new(error.kind().code(), format!("Holding writes failed: {error}")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_volume_at_the_same_place_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let volume = crate::volumes::resolve(directory.path()).unwrap().volume;
        let open = || rustix::fs::open("/proc", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(check_is(&volume, &open()).unwrap_err().code, VssCode::ObjectNotFound);
        check_is(&volume, &std::fs::File::open(&volume.mount_point).unwrap().into()).unwrap();
    }
}
