//! `vss create`: makes a set that outlives the command.

use super::Failure;
use crate::args::SetArguments;
use crate::exit::FAILED;
use crate::json::SetDocument;
use crate::output;
use crate::progress::{Progress, summary};
use crate::request::request;
use crate::signals::Signals;
use vss_model::ShadowCopySet;
use vss_requester::{Backup, Instance, Lifetime, Requester, volumes};

pub(super) fn create(instance: &Instance, arguments: &SetArguments) -> Result<(), Failure> {
    let selected = volumes::select(&arguments.path, &volumes::mounts()?)?;
    let lifetime = if arguments.persistent { Lifetime::Persistent } else { Lifetime::UntilReboot };
    let request = request("vss create".to_owned(), lifetime, &selected, &arguments.backup)?;
    let requester = Requester::connect(instance)?;
    let signals = Signals::catch(FAILED)?;
    let mut progress = Progress::new(signals.clone(), instance);
    let mut backup = Backup::create(requester, &request, &mut progress)?;
    signals.ending(FAILED);
    progress.finished(&backup);
    if let Err(error) = backup.finish(true, &mut progress) {
        output::warn(&format!("The backup is not complete for all writers: {error}"));
    }
    if arguments.json {
        output::json(&SetDocument::from(backup.set()))?;
    } else {
        print(backup.set())?;
    }
    Ok(())
}

fn print(set: &ShadowCopySet) -> std::io::Result<()> {
    output::line(&summary(set))?;
    let rows: Vec<Vec<String>> = set
        .shadows
        .iter()
        .map(|shadow| {
            vec![
                shadow.id.to_string(),
                shadow.volume.display().to_string(),
                shadow.provider.clone(),
                shadow.consistency.to_string(),
            ]
        })
        .collect();
    output::table(&["ID", "VOLUME", "PROVIDER", "CONSISTENCY"], &rows)
}
