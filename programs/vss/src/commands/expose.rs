//! `vss expose`: mounts a shadow copy read-only at a directory.

use super::Failure;
use crate::args::ExposeArguments;
use crate::output;
use vss_requester::{Instance, Requester, volumes};

pub(super) fn expose(instance: &Instance, arguments: &ExposeArguments) -> Result<(), Failure> {
    let directory = volumes::resolve(&arguments.directory)?;
    let mut requester = Requester::connect(instance)?;
    let path = requester.expose_snapshot(arguments.shadow, Some(directory))?;
    output::line(&format!("Shadow copy {} is mounted at {}", arguments.shadow, path.display()))?;
    Ok(())
}
