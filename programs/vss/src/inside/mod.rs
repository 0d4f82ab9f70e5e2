//! The command's own view of the file systems: shadow copies in place of the live files (design 6).

mod enter;
mod plan;

pub(crate) use enter::{Failure, Job, Started, start};
pub(crate) use plan::{ALWAYS_LIVE, Plan, plan};
