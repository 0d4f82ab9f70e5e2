//! The selection rules: which components a backup or a restore takes, and which of their files (spec R 3.4 to 3.6 and 4).
//!
//! Everything is asked of the components of one writer, as its metadata lists them, but for the dependencies between
//! writers. With *sel* for "selectable for backup" and *anc* for "stands below a component that is":
//!
//! ```text
//! sel  anc  kind                      in a backup
//! no   no   mandatory                 explicit, with any other component of the writer
//! yes  no   optional                  explicit or not at all; brings in everything below
//! no   yes  part                      with a selectable ancestor, never alone
//! yes  yes  selectable part           with an ancestor, or explicit without it
//! ```

mod backup;
mod dependencies;
mod files;
mod restore;

pub use backup::{Inclusion, Kind, check_explicit, choose, included, kind, missing_mandatory};
pub use dependencies::{Chosen, Unmet, unmet};
pub use files::{Evaluation, TakenFile, Treatment, evaluate, is_excluded, needs_snapshot, taken_files};
pub use restore::{check_restore, check_restore_subcomponent, restored};
