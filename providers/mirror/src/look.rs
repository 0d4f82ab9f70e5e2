//! A short look at how much applications write to a volume, with a tracer of its own that nobody else finds.

use crate::{member::House, rounds};
use std::{
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;
use vss_model::{CreationOptions, Volume};
use vss_trace::{Target, Tracer};

/// How long it is looked on: what is written back together comes in bursts of some hundred milliseconds.
const LONG: Duration = Duration::from_secs(1);

/// A look that goes on.
#[derive(Debug)]
pub(crate) struct Look {
    tracer: Tracer,
    began: Instant,
}

impl Look {
    /// Begins to look; none when the volume cannot be traced, or when nothing would be traced in a copy.
    pub(crate) fn begin(house: &House, key: &str, volume: &Volume, options: &CreationOptions) -> Option<Self> {
        if options.full_compare {
            return None;
        }
        let target = Target::of(volume.device_number).ok()?;
        // Pins that a process leaves behind that is killed here are none of a kept tracer, and go when the storage is tended.
        let pins = house.pins(&format!("{key}-look-{}", Uuid::new_v4()));
        let tracer = Tracer::attach(&pins, &target);
        // It runs as long as it is open.
        let removed = Tracer::remove(&pins);
        removed.and(tracer).ok().map(|tracer| Self { tracer, began: Instant::now() })
    }

    /// Bytes a second of blocks that were written to.
    pub(crate) fn end(self) -> Option<u64> {
        thread::sleep(LONG.saturating_sub(self.began.elapsed()));
        let bytes = self.tracer.dirty() * self.tracer.chunk_bytes();
        if bytes == 0 { Some(0) } else { rounds::rate(bytes, self.began.elapsed()) }
    }
}
