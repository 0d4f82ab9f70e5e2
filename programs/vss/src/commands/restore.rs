//! `vss restore`: puts the files of a backup back below a directory.

use super::Failure;
use crate::args::RestoreArguments;
use crate::exit::FAILED;
use crate::meter::FileMeter;
use crate::output::{self, counted, say, warn};
use crate::signals::Signals;
use serde::Serialize;
use std::path::{Path, PathBuf};
use vss_backup::chain::Chain;
use vss_backup::directory::{Failure as Missing, Totals};
use vss_backup::restore;
use vss_model::Bytes;

/// `vss restore --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "vss_model::path_text::list::serialize")]
    directories: &'a [PathBuf],
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    to: &'a Path,
    totals: Totals,
    failures: &'a [Missing],
    more_failures: u64,
    #[serde(serialize_with = "vss_model::path_text::optional::serialize")]
    unfinished: Option<&'a Path>,
}

pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let chain = Chain::open(&arguments.from)?;
    let signals = Signals::catch(FAILED)?;
    let expected = chain.generations().iter().map(|one| one.completion.totals.bytes).sum();
    let mut progress = FileMeter::new("restoring", signals, Some(expected));
    let directories: Vec<PathBuf> = chain.generations().iter().map(|one| one.directory.path().to_owned()).collect();
    if directories.len() > 1 {
        let names: Vec<String> = directories.iter().map(|path| path.display().to_string()).collect();
        say(&format!("vss: restoring, in this order: {}", names.join(", ")));
    }
    let restored = restore::restore(&chain, &arguments.to, arguments.overwrite, &mut progress)?;
    drop(progress);
    for loss in &restored.losses {
        warn(&format!("{} does not keep {loss}", arguments.to.display()));
    }
    tell(&restored.failures, restored.more_failures);
    if arguments.json {
        let document = Document {
            directories: &directories,
            to: &arguments.to,
            totals: restored.totals,
            failures: &restored.failures,
            more_failures: restored.more_failures,
            unfinished: restored.mark.as_deref(),
        };
        output::json(&document)?;
    } else {
        let Totals { files, bytes, kept, .. } = restored.totals;
        let kept = if kept > 0 { format!("; {kept} were there already") } else { String::new() };
        let (files, size) = (counted(files, "file"), Bytes(bytes));
        output::line(&format!("{files}, {size} restored to {}{kept}", arguments.to.display()))?;
    }
    let Some(mark) = &restored.mark else { return Ok(()) };
    let missing = restored.failures.len() as u64 + restored.more_failures;
    say(&format!("vss: {} not restored: {} stays until they are", counted(missing, "path"), mark.display()));
    Err(Failure::No)
}

/// Names what is missing.
pub(super) fn tell(failures: &[Missing], more: u64) {
    for failure in failures {
        say(&format!("vss: {}: {}", output::printable(&failure.path.display().to_string()), failure.message));
    }
    if more > 0 {
        say(&format!("vss: {more} more"));
    }
}
