//! What a caller hears of work that takes time, and how it asks to stop.

use vss_api::progress::CopyProgress;
use vss_model::SessionId;

/// Told about progress while an operation runs; every method may do nothing.
pub trait Monitor {
    /// The session is open; the service's events name it ([`crate::Management::follow`]).
    fn opened(&mut self, session_id: SessionId) {
        let _ = session_id;
    }

    /// The operation began a step, for example `freezing: postgresql`.
    fn step(&mut self, step: &str) {
        let _ = step;
    }

    /// A volume is being copied and has got further: several times a second, for hours where a volume is large. It is told in
    /// place of steps; its `Display` is a line for a person.
    fn copying(&mut self, copying: &CopyProgress) {
        let _ = copying;
    }

    /// Another set is being created on this machine and we wait for it; `why` names its requester. Called again only when
    /// that changes.
    fn waiting(&mut self, why: &str) {
        let _ = why;
    }

    /// How often the user asked to stop so far. From the first time on the running operation is cancelled and its end
    /// awaited; from the second on it is left alone, and the end of the connection ends the session.
    fn interruptions(&mut self) -> u32 {
        0
    }
}

/// Hears nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Monitor for Quiet {}
