//! `vss run`: makes a set, runs a command that sees it in place of the live files, and deletes it.

use super::storage::tell_what_stays;
use crate::args::RunArguments;
use crate::caller::Caller;
use crate::exit::{NO_COPY, report, status_of_command, status_of_failed_start, system_error};
use crate::inside::{self, ALWAYS_LIVE, Failure, Job, Plan, Started};
use crate::output::warn;
use crate::progress::{Progress, summary};
use crate::request::request;
use crate::signals::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use vss_linux::process::{PidFd, Signal};
use vss_model::{ShadowId, VssCode, VssError};
use vss_requester::requester::interrupted;
use vss_requester::volumes::{self, Selected, one_each};
use vss_requester::{Backup, Instance, Lifetime, Requester};

/// Most mounts that are listed one by one because no copy shows them.
const LISTED: usize = 20;

/// The result is the exit status.
pub(super) fn run(instance: &Instance, arguments: RunArguments) -> u8 {
    prepare(instance, arguments).and_then(Run::execute).unwrap_or_else(|error| {
        report(&error);
        NO_COPY
    })
}

/// A finished set, and what is to be done with it.
struct Run {
    instance: Instance,
    backup: Backup,
    signals: Signals,
    progress: Progress,
    selected: Vec<Selected>,
    /// Those of `--live`, without symbolic links.
    live: Vec<PathBuf>,
    job: Job,
}

/// Checks everything that can be wrong on this side, and makes the set.
fn prepare(instance: &Instance, arguments: RunArguments) -> Result<Run, VssError> {
    if !rustix::process::geteuid().is_root() {
        return Err(VssError::new(
            VssCode::AccessDenied,
            "vss run needs root, to show the copies in place of the live files",
        )
        .with_hint("Use `sudo vss run ...`, with --as-caller to run the command as yourself"));
    }
    let caller = if arguments.as_caller { Some(Caller::from_sudo()?) } else { None };
    let selected = volumes::select(&arguments.volume, &volumes::mounts()?)?;
    let live = arguments.live.iter().map(|directory| volumes::resolve(directory)).collect::<Result<_, _>>()?;
    let directory = std::env::current_dir().map_err(|error| system_error("The working directory is gone", &error))?;
    let request = request(requester_name(&arguments.command), Lifetime::Session, &selected, &arguments.backup)?;

    let requester = Requester::connect(instance)?;
    let signals = Signals::catch(NO_COPY)?;
    let mut progress = Progress::new(signals.clone(), instance);
    let backup = Backup::create(requester, &request, &mut progress)?;
    progress.finished(&backup);
    progress.note(&summary(backup.set()));
    let environment = vec![
        ("VSS_SET_ID", backup.set().set_id.to_string().into()),
        ("VSS_CONSISTENCY", backup.set().consistency.name().into()),
    ];
    let job = Job { command: arguments.command, environment, caller, directory };
    Ok(Run { instance: instance.clone(), backup, signals, progress, selected, live, job })
}

/// The directories that stay live unasked: the system's, and the service's own.
pub(super) fn own_live_directories(instance: &Instance) -> impl Iterator<Item = PathBuf> {
    let own = ALWAYS_LIVE.into_iter().map(Path::new).chain([instance.runtime_dir()]);
    own.filter_map(|directory| directory.canonicalize().ok())
}

fn requester_name(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    format!("vss run: {}", words.join(" "))
}

impl Run {
    fn execute(mut self) -> Result<u8, VssError> {
        match self.start() {
            Ok(started) => Ok(self.follow(started)),
            Err(failure) => {
                self.signals.ending(NO_COPY);
                self.release(false);
                match failure {
                    Failure::View(error) => Err(error),
                    Failure::Start(error) => {
                        let command = self.job.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
                        let status = status_of_failed_start(&error);
                        report(&system_error(format!("Cannot run {command}"), &error));
                        Ok(status)
                    }
                }
            }
        }
    }

    /// Shows the copies to the command, and starts it.
    fn start(&mut self) -> Result<Started, Failure> {
        let plan = self.plan().map_err(Failure::View)?;
        for mount in plan.not_in_set.iter().take(LISTED) {
            warn(&format!("{} is in no copy: the command sees it live", mount.display()));
        }
        if let Some(more) = plan.not_in_set.len().checked_sub(LISTED + 1) {
            warn(&format!("{} more mounts are in no copy", more + 1));
        }
        if self.signals.wishes() > 0 {
            return Err(Failure::View(interrupted()));
        }
        inside::start(plan, &self.job)
    }

    fn plan(&mut self) -> Result<Plan, VssError> {
        let mut copies = BTreeMap::new();
        for (one, shadow_id) in one_each(&self.selected).into_iter().zip(self.shadow_ids()) {
            copies.insert(one.volume, self.backup.expose(shadow_id)?);
        }
        // Both may have changed while the set was made.
        let mounts = volumes::mounts()?;
        let live: Vec<PathBuf> = own_live_directories(&self.instance).chain(self.live.iter().cloned()).collect();
        Ok(inside::plan(&self.selected, &mounts, &copies, &live))
    }

    /// In the order of the volumes that were asked for.
    fn shadow_ids(&self) -> Vec<ShadowId> {
        self.backup.members().iter().map(|member| member.shadow_id).collect()
    }

    /// Waits for the command's end and tidies up; returns the exit status.
    fn follow(mut self, mut started: Started) -> u8 {
        for warning in &started.warnings {
            warn(warning);
        }
        let (status, lost) = match self.wait(&mut started.child) {
            Ok(end) => end,
            Err(error) => {
                report(&error);
                // Its copies are about to go: it must not go on without them.
                let _ = started.child.kill();
                (started.child.wait().unwrap_or_default(), false)
            }
        };
        let code = status_of_command(status);
        self.signals.ending(code);
        started.leave();
        if lost {
            self.sweep();
        } else {
            self.release(status.success());
            tell_what_stays(&self.instance, self.backup.set());
        }
        code
    }

    /// Waits until the command has ended. True: the service went away before, and the copies may have gone with it.
    fn wait(&mut self, child: &mut Child) -> Result<(ExitStatus, bool), VssError> {
        let failed = |error| system_error("Cannot wait for the command", &error);
        let command = PidFd::open(child.id()).map_err(failed)?;
        self.signals.forward_to(PidFd::open(child.id()).map_err(failed)?, child.id());
        let mut lost = false;
        loop {
            let mut fds = vec![PollFd::new(&command, PollFlags::IN)];
            if !lost {
                fds.push(PollFd::new(&self.backup, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            let session_ended = fds.get(1).is_some_and(|session| !session.revents().is_empty());
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok((status, lost));
            }
            if session_ended {
                lost = true;
                warn("The service ended, and the shadow copies may go with it: the command is told to stop");
                // It may have ended just now.
                let _ = command.signal(Signal::TERM);
            }
        }
    }

    /// Tells the writers how it went, and deletes the copies; returns when they are gone.
    fn release(&mut self, succeeded: bool) {
        if let Err(error) = self.backup.finish(succeeded, &mut self.progress) {
            warn(&format!("The backup is not complete for all writers: {error}"));
        }
        if let Err(error) = self.backup.delete() {
            warn(&format!("The shadow copies are not deleted yet: {error}"));
        }
    }

    /// After the service was lost: a new one deletes at its start what the lost one left.
    fn sweep(&mut self) {
        if let Err(error) = self.backup.delete() {
            warn(&format!("The shadow copies may be left until the service starts again: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requester_is_the_command() {
        assert_eq!(requester_name(&["restic".into(), "backup".into(), "/srv".into()]), "vss run: restic backup /srv");
    }

    #[test]
    fn live_directories_are_those_that_exist() {
        let live: Vec<PathBuf> = own_live_directories(&Instance::new("/no/such/directory", "/no/such/state")).collect();
        assert!(live.contains(&PathBuf::from("/proc")) && !live.contains(&PathBuf::from("/no/such/directory")));
    }
}
