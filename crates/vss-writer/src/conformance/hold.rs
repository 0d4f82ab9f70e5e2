//! Is the application really still from Freeze to Thaw, and only then?

use super::interruptions::{CUTS, cut_short};
use super::{
    Abort, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw, WHOLE, event, identity, sequence,
};
use crate::AnyWriter;

/// Checks that the application is held still exactly when it has to be. `is_held` looks at the application itself: tries to
/// write, reads its status, looks for its lock. It is not for writers that have nothing to hold in Freeze.
///
/// # Panics
/// It is not held after Freeze, or is held before PrepareSnapshot or after Thaw or Abort.
pub fn check_hold(writer: &mut dyn AnyWriter, is_held: &mut dyn FnMut() -> bool) {
    let mut hold = Hold { writer, is_held };
    hold.must_be(false, "before any backup");
    hold.lasts_from_freeze_to_thaw();
    hold.ends_with_abort();
    hold.survives_what_other_sessions_do();
    hold.ends_with_abort_also_after_a_freeze_that_was_cut_short();
}

struct Hold<'a> {
    writer: &'a mut dyn AnyWriter,
    is_held: &'a mut dyn FnMut() -> bool,
}

impl Hold<'_> {
    fn must_be(&mut self, held: bool, when: &str) {
        let (is, should) = if held { ("goes on", "be still") } else { ("is held", "go on") };
        assert!((self.is_held)() == held, "the application {is} {when}; it should {should}");
    }

    fn lasts_from_freeze_to_thaw(&mut self) {
        let event = event(self.writer);
        for kind in WHOLE {
            sequence(self.writer, &event, &[kind]);
            match kind {
                // A writer may begin early.
                PrepareSnapshot => {}
                Freeze => self.must_be(true, "after Freeze"),
                _ => self.must_be(false, &format!("after {}", kind.name())),
            }
        }
    }

    fn ends_with_abort(&mut self) {
        for length in [2, 3] {
            let event = event(self.writer);
            sequence(self.writer, &event, &WHOLE[..length]);
            sequence(self.writer, &event, &[Abort]);
            self.must_be(false, &format!("after Abort that followed {}", WHOLE[length - 1].name()));
            sequence(self.writer, &event, &[Abort, BackupShutdown]);
            self.must_be(false, "after a second Abort");
        }
    }

    fn survives_what_other_sessions_do(&mut self) {
        let (ours, other) = (event(self.writer), event(self.writer));
        sequence(self.writer, &ours, &[PrepareBackup, PrepareSnapshot, Freeze]);
        identity(self.writer);
        self.must_be(true, "after Identify in the middle of a Freeze");
        for kind in [PrepareBackup, Abort, BackupShutdown] {
            sequence(self.writer, &other, &[kind]);
            self.must_be(true, &format!("after {} of another session", kind.name()));
        }
        sequence(self.writer, &ours, &[Thaw, PostSnapshot, BackupShutdown]);
        self.must_be(false, "after Thaw");
    }

    fn ends_with_abort_also_after_a_freeze_that_was_cut_short(&mut self) {
        for cut in CUTS {
            let event = event(self.writer);
            sequence(self.writer, &event, &[PrepareBackup, PrepareSnapshot]);
            cut_short(self.writer, &event, Freeze, cut);
            sequence(self.writer, &event, &[Abort]);
            self.must_be(false, "after Abort that followed a Freeze that was cut short");
            sequence(self.writer, &event, &[BackupShutdown]);
        }
    }
}
