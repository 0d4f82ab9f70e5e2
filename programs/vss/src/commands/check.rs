//! `vss check`: what a set would be, and what stands in the way; makes none.

use super::Failure;
use super::run::own_live_directories;
use crate::args::SetArguments;
use crate::forecast;
use crate::inside;
use crate::json::{CheckDocument, CheckedPathDocument};
use crate::output::{self, say};
use crate::request::options;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use vss_api::management::{Check, SetForecast};
use vss_model::{Consistency, VssCode, VssError};
use vss_requester::volumes::{self, Mount, Selected};
use vss_requester::{Instance, Lifetime, Management, unexpected_answer};

/// Who waits for longer is told for what.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn check(instance: &Instance, arguments: &SetArguments) -> Result<(), Failure> {
    let mounts = volumes::mounts()?;
    // As `create` does, but each by itself: one that cannot be found leaves the others to be judged.
    let selected: Vec<Result<Selected, VssError>> = arguments
        .path
        .iter()
        .map(|path| volumes::select(std::slice::from_ref(path), &mounts).map(|mut one| one.remove(0)))
        .collect();
    let paths: Vec<PathBuf> = selected.iter().flatten().map(|one| one.path.clone()).collect();
    let forecast = if paths.is_empty() {
        SetForecast::default()
    } else {
        let lifetime = if arguments.persistent { Lifetime::Persistent } else { Lifetime::Session };
        let question = Check {
            paths,
            provider: arguments.backup.provider.clone(),
            no_writers: arguments.backup.no_writers,
            writers: arguments.backup.writer.clone(),
            context: lifetime.context(!arguments.backup.no_writers),
            options: options(&arguments.backup.copying)?,
        };
        let mut management = Management::connect(instance)?;
        patiently(|| management.check(question))?
    };
    let document = document(instance, arguments, &selected, forecast, &mounts);
    if arguments.json {
        output::json(&document)?;
    } else {
        forecast::print(&document)?;
    }
    if document.possible { Ok(()) } else { Err(Failure::No) }
}

/// The answer to what was typed: the service's, and what is known on this side alone.
fn document(
    instance: &Instance,
    arguments: &SetArguments,
    selected: &[Result<Selected, VssError>],
    forecast: SetForecast,
    mounts: &[Mount],
) -> CheckDocument {
    let SetForecast { possible, consistency, atomic, paths, volumes, writers, mut obstacles, warnings } = forecast;
    let mut answers = paths.into_iter();
    let mut chosen = Vec::new();
    let typed = arguments.path.iter().zip(selected).map(|(path, selected)| {
        let (resolved, volume_id, failure) = match selected {
            Ok(one) => match answers.next() {
                Some(answer) => {
                    if answer.failure.is_none() {
                        chosen.push(one.clone());
                    }
                    (Some(one.path.clone()), answer.volume_id, answer.failure)
                }
                None => (Some(one.path.clone()), None, Some(unanswered(one))),
            },
            Err(error) => (None, None, Some(error.clone())),
        };
        CheckedPathDocument { path: path.clone(), resolved, volume_id, failure }
    });
    let paths: Vec<CheckedPathDocument> = typed.collect();
    obstacles.extend(arguments.backup.require.and_then(|level| too_low(consistency?, level.into())));
    CheckDocument {
        possible: possible && obstacles.is_empty() && paths.iter().all(|path| path.failure.is_none()),
        consistency,
        atomic,
        paths,
        volumes,
        writers,
        stays_live: stays_live(instance, &chosen, mounts),
        obstacles,
        warnings,
    }
}

/// The mounts below the chosen paths that `vss run` would show live: its own plan says it, of copies that are not there.
fn stays_live(instance: &Instance, chosen: &[Selected], mounts: &[Mount]) -> Vec<PathBuf> {
    let copies = chosen.iter().map(|one| (one.volume, PathBuf::from("/")));
    let live: Vec<PathBuf> = own_live_directories(instance).collect();
    inside::plan(chosen, mounts, &copies.collect(), &live).not_in_set
}

/// What `create` would say, had it made the set.
fn too_low(level: Consistency, required: Consistency) -> Option<VssError> {
    let message = format!("The set would be {level}-consistent, and {required} is required");
    let error = VssError::new(VssCode::WriterErrorInconsistentSnapshot, message);
    (level < required).then(|| error.with_hint("Require less, or let a writer that knows the data take part"))
}

fn unanswered(one: &Selected) -> VssError {
    unexpected_answer(format!("The service said nothing of {}", one.path.display()))
}

/// Asks, and says what is waited for when that takes long and a person is looking.
fn patiently<T>(ask: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return ask();
    }
    let (over, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                say("vss: asking volumes and writers; a writer has 30 s to say what it owns");
            }
        });
        let answer = ask();
        drop(over);
        answer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_the_least() {
        let refused = |level, required| too_low(level, required).map(|error| error.code);
        assert_eq!(refused(Consistency::Crash, Consistency::Crash), None);
        assert_eq!(refused(Consistency::Application, Consistency::FileSystem), None);
        let code = VssCode::WriterErrorInconsistentSnapshot;
        assert_eq!(refused(Consistency::FileSystem, Consistency::Application), Some(code));
    }

    #[test]
    fn who_waits_gets_the_answer() {
        assert_eq!(patiently(|| 7), 7);
    }
}
