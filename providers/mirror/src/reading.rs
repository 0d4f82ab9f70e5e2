//! Who reads the image of a copy: flock(2) on the open file itself.
//!
//! Whoever is given an image, as a descriptor or as a loop device, holds it with a shared lock until he lets go of it. The lock
//! belongs to the open file, which a loop device keeps: it is seen whatever mount namespace the device is mounted in, and
//! when the service that attached it is dead. A file that was a copy becomes the mirror again, and is written to, only when
//! nobody else holds it.

use crate::identity::Identity;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};
use vss_model::{ShadowId, VssError};
use vss_provider::{failure::failed, image_copy, store::Store};

/// So long a reader may take to let go that has ended: the mounts of a namespace end after its last process, and a process that
/// is being started has our descriptors until its exec.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens a finished copy for who is to read it.
///
/// # Errors
/// As [`image_copy::open_finished`], also when it is just being deleted.
pub(crate) fn open(store: &Store, shadow_id: ShadowId) -> Result<File, VssError> {
    let image = image_copy::open_finished(store, shadow_id)?;
    if !hold(&image)? {
        return Err(image_copy::gone(shadow_id));
    }
    // It may have become the mirror between the two.
    let named = image_copy::open_finished(store, shadow_id)?;
    let is_named = Identity::of(&image)?.is_of_same(&Identity::of(&named)?);
    if is_named { Ok(image) } else { Err(image_copy::gone(shadow_id)) }
}

/// Holds an open image for who reads it; false when somebody has it alone. Who has it alone shares it from now on.
pub(crate) fn hold(image: &File) -> Result<bool, VssError> {
    lock(image, FlockOperation::NonBlockingLockShared)
}

/// Has an open image alone; false when somebody else holds it and does not let go.
pub(crate) fn is_alone(image: &File) -> Result<bool, VssError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if lock(image, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets go of an image that is open here only. Closing alone would not do: see [`PATIENCE`].
pub(crate) fn let_go(image: &File) -> Result<(), VssError> {
    lock(image, FlockOperation::Unlock).map(|_| ())
}

fn lock(image: &File, operation: FlockOperation) -> Result<bool, VssError> {
    match flock(image, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(failed("The image of a shadow copy cannot be locked", &error.into())),
    }
}
