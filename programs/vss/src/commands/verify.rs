//! `vss verify`: reads a backup in a directory again.

use super::Failure;
use crate::args::VerifyArguments;
use crate::exit::FAILED;
use crate::meter::FileMeter;
use crate::output::{self, counted, say};
use crate::signals::Signals;
use serde::Serialize;
use std::path::Path;
use uuid::Uuid;
use vss_backup::directory::BackupDirectory;
use vss_backup::verify::{self, Report, Wrong};
use vss_model::Bytes;

/// `vss verify --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    directory: &'a Path,
    id: Uuid,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let (directory, completion) = BackupDirectory::open(&arguments.directory)?;
    let signals = Signals::catch(FAILED)?;
    let mut progress = FileMeter::new("checking", signals, Some(completion.totals.bytes));
    let report = verify::verify(&directory, &completion, &mut progress)?;
    drop(progress);
    for problem in &report.problems {
        let wrong = match problem.wrong {
            Wrong::Damaged => "damaged",
            Wrong::Missing => "missing",
            Wrong::Extra => "does not belong here",
        };
        say(&format!("vss: {}: {wrong}: {}", output::printable(&problem.path.display().to_string()), problem.message));
    }
    if report.more_problems > 0 {
        say(&format!("vss: {} more", report.more_problems));
    }
    if arguments.json {
        output::json(&Document { directory: directory.path(), id: completion.beginning.id, report: &report })?;
    } else {
        let elsewhere = match report.elsewhere {
            0 => String::new(),
            files => format!("; {} held by earlier backups, see {}", counted(files, "file"), bases(&completion)),
        };
        let wrong = report.problems.len() as u64 + report.more_problems;
        let verdict = if wrong == 0 { "undamaged".to_owned() } else { counted(wrong, "problem") };
        let place = directory.path().display();
        let files = counted(report.files, "file");
        output::line(&format!("{place}: {files}, {}: {verdict}{elsewhere}", Bytes(report.bytes)))?;
    }
    if report.problems.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn bases(completion: &vss_backup::directory::Completion) -> String {
    completion.beginning.request.base.as_ref().map(|base| base.directory.display().to_string()).unwrap_or_default()
}
