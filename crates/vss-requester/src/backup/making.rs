//! The making of the set: from its beginning, for which another one may have to be waited, to its record.

use crate::{BackupRequest, Monitor, Requester, requester::interrupted};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vss_api::requester::{VolumeAdded, VolumeQuestion};
use vss_model::{ShadowCopySet, VssCode, VssError, WriterStatus};

/// Time between two tries to begin a set while another one is being created.
const RETRY: Duration = Duration::from_millis(100);

/// Begins the set, waiting for another one to be finished, as long as the request says.
pub(super) fn start_set(
    requester: &mut Requester,
    request: &BackupRequest,
    monitor: &mut dyn Monitor,
) -> Result<(), VssError> {
    let wait = request.wait;
    let deadline = Instant::now() + wait;
    let mut said = String::new();
    loop {
        let error = match requester.start_snapshot_set(&request.options) {
            Ok(_) => return Ok(()),
            Err(error) if error.code == VssCode::SnapshotSetInProgress => error,
            Err(error) => return Err(error),
        };
        if monitor.interruptions() > 0 {
            return Err(interrupted());
        }
        if Instant::now() >= deadline {
            return Err(VssError {
                message: format!("{}; waited {} s for it", error.message, wait.as_secs()),
                ..error
            });
        }
        // The message names who is at it.
        if error.message != said {
            monitor.waiting(&error.message);
            said = error.message;
        }
        std::thread::sleep(RETRY);
    }
}

pub(super) type Finished = (Vec<VolumeAdded>, Vec<WriterStatus>, ShadowCopySet);

/// From the begun set to the finished one.
pub(super) fn make_set(
    requester: &mut Requester,
    request: &BackupRequest,
    volumes: &[PathBuf],
    monitor: &mut dyn Monitor,
) -> Result<Finished, VssError> {
    let has_writers = request.context.has_writers();
    let mut members = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let question = VolumeQuestion { volume: volume.clone(), provider: request.provider.clone() };
        members.push(requester.add_to_snapshot_set(question)?);
    }
    if has_writers {
        requester.prepare_for_backup(monitor)?;
    }
    requester.do_snapshot_set(request.strict && has_writers, monitor)?;
    let statuses = if has_writers {
        requester.gather_writer_status(monitor)?;
        requester.writer_status()?
    } else {
        Vec::new()
    };
    Ok((members, statuses, requester.snapshot_set()?))
}
