//! The tracer of a volume: opened where what it marked counts, else begun anew, and ended.

use crate::{
    fault,
    kept::Kept,
    member::{House, Member},
    mirror::Mirror,
    source::Source,
    trust::{self, Trust},
};
use uuid::Uuid;
use vss_linux::clock;
use vss_model::{Volume, VssCode, VssError};
use vss_provider::failure::failed;
use vss_trace::{Pins, Target, Tracer};

/// Judges what the mirror is worth, says that something is done with it, and opens or attaches its tracer.
pub(crate) fn begin(
    mirror: &mut Mirror,
    member: &Member,
    house: &House,
    source: &Source,
    kept: Option<&Kept>,
) -> Result<(Trust, Option<Tracer>), VssError> {
    let volume = &member.volume;
    let pins = house.pins(&member.key);
    let (mut trust, mut tracer) = trust::judge(mirror, kept, source, &pins);
    if member.options.full_compare {
        if !matches!(trust, Trust::New(_)) {
            trust = Trust::wished();
        }
        tracer = None;
    }
    match &trust {
        Trust::New(_) => (mirror.state.generation, mirror.state.unfinished) = (0, None),
        Trust::Compare(why) => mirror.state.unfinished = Some(why.clone()),
        Trust::Whole | Trust::Unfinished(_) => {}
    }
    if mirror.state.generation == 0 || mirror.state.volume_bytes != source.size {
        mirror.state.lineage = Uuid::new_v4();
        mirror.state.volume_bytes = source.size;
    }
    if tracer.is_none() {
        // What it marked is worth nothing any more.
        remove(&pins, volume)?;
        mirror.state.epoch = None;
    }
    // From here on until the end nobody may believe what the state says.
    mirror.state.is_clean = false;
    mirror.save(tracer.as_ref(), true)?;
    if tracer.is_none() && !member.options.full_compare {
        let target = Target::of(volume.device_number).map_err(|error| refused(volume, &error))?;
        if target.bytes() != source.size {
            return Err(VssError::new(
                VssCode::ProviderVeto,
                format!("The device of {} changed its size while it was opened", volume.mount_point.display()),
            )
            .with_hint("Make the set again"));
        }
        tracer = Some(attach(&pins, &target).map_err(|error| refused(volume, &error))?);
        fault::at("traced");
        mirror.state.epoch = Some(Uuid::new_v4());
        mirror.state.disk = trust::sequence_of(&target);
        mirror.state.mounting = trust::mounting_of(&target);
        mirror.state.boot_id = clock::boot_id().map_err(|error| failed("The boot has no id", &error))?;
        mirror.save(tracer.as_ref(), true)?;
    }
    if let Some(tracer) = &mut tracer {
        tracer.lock_in_memory().map_err(|error| refused(volume, &error))?;
    }
    Ok((trust, tracer))
}

/// Begins to trace; for tests, without a mark that is needed.
fn attach(pins: &Pins, target: &Target) -> Result<Tracer, vss_trace::TraceError> {
    #[cfg(feature = "fault-injection")]
    if fault::without_completions() {
        return Tracer::attach_with(pins, target, vss_trace::Marks { queue: true, issue: true, completion: false });
    }
    Tracer::attach(pins, target)
}

/// Ends the tracer at `pins`, if there is one.
pub(crate) fn remove(pins: &Pins, volume: &Volume) -> Result<(), VssError> {
    Tracer::remove(pins).map(|_| ()).map_err(|error| refused(volume, &error))
}

/// The refusal of a volume that cannot be traced.
pub(crate) fn refused(volume: &Volume, error: &vss_trace::TraceError) -> VssError {
    VssError::new(
        VssCode::ProviderVeto,
        format!("Writes to {} cannot be traced: {error}", volume.mount_point.display()),
    )
    .with_hint(
        "Without tracing the whole volume can be compared inside the hold, if it is small enough: --full-compare",
    )
}
