//! What the service does around Commit of a provider that needs a hold: the volumes are flushed and frozen, and thawed
//! whatever happens.

use std::{fs::File, io, sync::mpsc, thread, time::Duration};
use vss_linux::freeze;
use vss_model::Volume;

/// Whatever hangs, so long after the freeze everything is thawed.
const LONGEST: Duration = Duration::from_secs(10);

/// Calls `act` while the volumes are frozen.
pub(super) fn while_held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> io::Result<T> {
    let directories: Vec<File> =
        volumes.iter().map(|volume| File::open(&volume.mount_point)).collect::<io::Result<_>>()?;
    for directory in &directories {
        freeze::sync(directory)?;
    }
    let (over, is_over) = mpsc::channel::<()>();
    let late: Vec<File> = directories.iter().map(File::try_clone).collect::<io::Result<_>>()?;
    let timer = thread::spawn(move || {
        if is_over.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            for directory in &late {
                let _ = freeze::thaw(directory);
            }
        }
    });
    let mut frozen = Ok(());
    let mut held = Vec::new();
    for directory in &directories {
        frozen = freeze::freeze(directory).map_err(|error| io::Error::other(error.to_string()));
        if frozen.is_err() {
            break;
        }
        held.push(directory);
    }
    let result = frozen.map(|()| act());
    for directory in held.into_iter().rev() {
        freeze::thaw(directory)?;
    }
    drop(over);
    let _ = timer.join();
    result
}
