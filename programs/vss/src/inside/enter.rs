//! Making the view and starting the command in it.
//!
//! A mount namespace belongs to a thread, not to a process: a thread of its own takes the new namespace, makes the mounts
//! and starts the command, which inherits them. The rest of `vss` stays outside. The thread lives as long as the command
//! may run, because the command is tied to it (`vss_linux::child::bind_to_parent`): a command whose copies are gone must
//! not go on and call half a backup a whole one.

use super::plan::{Action, Plan};
use crate::caller::Caller;
use crate::exit::system_error;
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;
use vss_linux::mount::{self, Change, Propagation};
use vss_linux::process::Signal;
use vss_model::{VssCode, VssError};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The program and its arguments; not empty.
    pub(crate) command: Vec<OsString>,
    /// Added to the environment.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// Who runs it; none: root, as we do.
    pub(crate) caller: Option<Caller>,
    /// The working directory of `vss`.
    pub(crate) directory: PathBuf,
}

/// Why there is no command running.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The view could not be made.
    View(VssError),
    /// The command could not be started in it.
    Start(io::Error),
}

/// A running command, and the thread that holds its view.
#[derive(Debug)]
pub(crate) struct Started {
    /// The command.
    pub(crate) child: Child,
    /// Places that could not be kept live, and why.
    pub(crate) warnings: Vec<String>,
    stay: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Started {
    /// Lets the view go, with every mount of it that no process is left in. For when the command has ended.
    pub(crate) fn leave(self) {
        drop(self.stay);
        // A panic of the thread has been printed; there is nothing to undo.
        let _ = self.thread.join();
    }
}

/// Makes the view of `plan` and starts `job` in it.
pub(crate) fn start(plan: Plan, job: &Job) -> Result<Started, Failure> {
    let job = job.clone();
    let (stay, until) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("view".to_owned())
        .spawn(move || {
            let outcome = make_view(&plan, &job.directory).map_err(Failure::View).and_then(|warnings| {
                let child = command_of(&job).spawn().map_err(Failure::Start)?;
                Ok((child, warnings))
            });
            if tell.send(outcome).is_ok() {
                // An error is the wanted answer: the sender was dropped.
                let _ = until.recv();
            }
        })
        .map_err(|error| Failure::View(system_error("Cannot start a thread", &error)))?;
    match told.recv() {
        Ok(Ok((child, warnings))) => Ok(Started { child, warnings, stay, thread }),
        Ok(Err(failure)) => {
            drop(stay);
            let _ = thread.join();
            Err(failure)
        }
        Err(_) => Err(Failure::View(VssError::new(VssCode::Unexpected, "The thread of the view ended"))),
    }
}

fn command_of(job: &Job) -> Command {
    let mut words = job.command.iter();
    let mut command = Command::new(words.next().map_or_else(|| "".as_ref(), OsString::as_os_str));
    command.args(words).envs(job.environment.iter().map(|(name, value)| (name, value)));
    if let Some(caller) = &job.caller {
        command.envs([("HOME", &caller.home), ("USER", &caller.name), ("LOGNAME", &caller.name)]);
        vss_linux::child::become_user(&mut command, caller.uid, caller.gid, caller.groups.clone());
    }
    // After the change of user, which makes the kernel forget it.
    vss_linux::child::bind_to_parent(&mut command, Signal::TERM);
    command
}

/// Gives this thread its own mounts; returns what could not be kept live.
fn make_view(plan: &Plan, directory: &Path) -> Result<Vec<String>, VssError> {
    mount::unshare_namespace().map_err(|error| system_error("Cannot make a mount namespace", &error))?;
    let mut warnings = Vec::new();
    // Every tree is taken before the first one is covered.
    let mut trees = Vec::with_capacity(plan.actions.len());
    for action in &plan.actions {
        match take(action) {
            Ok(Some(tree)) => trees.push((action, tree)),
            Ok(None) => {}
            Err(error) => concede(action, &error, &mut warnings)?,
        }
    }
    let mut root = open_root()?;
    for (action, tree) in trees {
        match put(action, &tree, &mut root) {
            Ok(()) => {}
            Err(error) => concede(action, &error, &mut warnings)?,
        }
    }
    // The directory that we stand in may be covered now.
    rustix::process::chdir(directory).map_err(|errno| {
        system_error(format!("The working directory {} is not in the copy", directory.display()), &errno.into())
            .with_hint("Start the command from another directory")
    })?;
    Ok(warnings)
}

/// A detached tree of mounts for the action; none when there is nothing at a place that would stay live.
fn take(action: &Action) -> io::Result<Option<OwnedFd>> {
    match action {
        Action::Copy { from, .. } => {
            let tree = mount::clone_tree(from, true)?;
            // Private too: what the service unmounts in the end must not vanish here before the command has ended.
            mount::change(&tree, Change { propagation: Some(Propagation::Private), ..Change::SHADOW }, true)?;
            Ok(Some(tree))
        }
        Action::Live(path) => match mount::clone_tree(path, true) {
            Ok(tree) => Ok(Some(tree)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        },
    }
}

/// Mounts the tree at its place. Over `/`, where a lookup would not find it, it becomes the root of this thread.
fn put(action: &Action, tree: &OwnedFd, root: &mut OwnedFd) -> io::Result<()> {
    let (Action::Copy { to, .. } | Action::Live(to)) = action;
    let inside = to.strip_prefix("/").unwrap_or(to);
    // A link at or above the place in the copy must not lead the mount elsewhere.
    let place = mount::open_beneath(&*root, inside, OFlags::PATH)?;
    mount::attach(tree, place)?;
    if inside.as_os_str().is_empty() {
        rustix::process::fchdir(tree)?;
        rustix::process::chroot(".")?;
        *root = open_root_here()?;
    }
    Ok(())
}

/// A copy that cannot be shown fails the run; a place that cannot be kept live is told.
fn concede(action: &Action, error: &io::Error, warnings: &mut Vec<String>) -> Result<(), VssError> {
    match action {
        Action::Copy { from, to } => {
            Err(system_error(format!("Cannot show the copy {} at {}", from.display(), to.display()), error))
        }
        Action::Live(path) => {
            warnings.push(format!("{} cannot be kept live ({error}): the command does not see it", path.display()));
            Ok(())
        }
    }
}

fn open_root() -> Result<OwnedFd, VssError> {
    open_root_here().map_err(|error| system_error("Cannot open /", &error))
}

fn open_root_here() -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn job(script: &str, directory: &Path) -> Job {
        Job {
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            environment: vec![("VSS_TEST", "seen".into())],
            caller: None,
            directory: directory.to_owned(),
        }
    }

    /// Runs `script` in the view and returns its exit code.
    fn run(actions: Vec<Action>, script: &str, directory: &Path) -> i32 {
        let mut started = start(Plan { actions, not_in_set: Vec::new() }, &job(script, directory)).unwrap();
        assert!(started.warnings.is_empty(), "{:?}", started.warnings);
        let code = started.child.wait().unwrap().code().unwrap();
        started.leave();
        code
    }

    fn root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("SKIPPED: a test of the command's view: needs root");
        }
        root
    }

    #[test]
    fn a_copy_covers_its_place_inside_only_and_cannot_be_written() {
        if !root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (copy, volume) = (place.path().join("copy"), place.path().join("volume"));
        fs::create_dir_all(copy.join("keep")).unwrap();
        fs::create_dir_all(volume.join("keep")).unwrap();
        fs::write(copy.join("file"), "old").unwrap();
        fs::write(volume.join("file"), "new").unwrap();
        fs::write(volume.join("keep/live"), "live").unwrap();
        let actions = vec![Action::Copy { from: copy, to: volume.clone() }, Action::Live(volume.join("keep"))];
        // The working directory is below the covered place: it must be the copy's.
        let script = "test \"$(cat file)\" = old && ! touch file 2>/dev/null && cat keep/live && echo x > keep/written \
            && test \"$VSS_TEST\" = seen && touch ../beside";
        assert_eq!(run(actions, script, &volume), 0);
        assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "new");
        assert!(volume.join("keep/written").exists() && place.path().join("beside").exists());
    }

    #[test]
    fn a_copy_over_the_root_becomes_the_commands_root() {
        if !root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let marker = place.path().join("marker");
        // The live root stands for a copy of it: read-only is the difference that shows.
        let copy = Action::Copy { from: "/".into(), to: "/".into() };
        let actions =
            vec![copy, Action::Live("/dev".into()), Action::Live("/proc".into()), Action::Live("/tmp".into())];
        let script = format!(
            "! touch /etc/vss-test 2>/dev/null && echo x > /dev/null && test -e /proc/self/status && touch {}",
            marker.display()
        );
        assert_eq!(run(actions, &script, Path::new("/")), 0);
        assert!(marker.starts_with("/tmp") == marker.exists());
    }

    #[test]
    fn a_link_in_the_copy_leads_no_mount_elsewhere() {
        if !root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (copy, volume) = (place.path().join("copy"), place.path().join("volume"));
        fs::create_dir_all(&copy).unwrap();
        fs::create_dir_all(volume.join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc", copy.join("sub")).unwrap();
        let actions = vec![Action::Copy { from: copy, to: volume.clone() }, Action::Live(volume.join("sub"))];
        let mut started =
            start(Plan { actions, not_in_set: Vec::new() }, &job("test -e /etc/passwd", &volume)).unwrap();
        assert_eq!(started.warnings.len(), 1, "{:?}", started.warnings);
        assert!(started.child.wait().unwrap().success());
        started.leave();
    }

    #[test]
    fn what_does_not_exist_is_told_apart() {
        if !root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let missing = Action::Copy { from: place.path().join("missing"), to: place.path().to_owned() };
        let plan = |actions| Plan { actions, not_in_set: Vec::new() };
        let failure = start(plan(vec![missing]), &job("true", place.path())).unwrap_err();
        assert!(matches!(&failure, Failure::View(error) if error.code == VssCode::ObjectNotFound), "{failure:?}");
        let none = Job { command: vec!["/no/such/program".into()], ..job("", place.path()) };
        let failure = start(plan(Vec::new()), &none).unwrap_err();
        assert!(matches!(&failure, Failure::Start(error) if error.kind() == io::ErrorKind::NotFound), "{failure:?}");
    }
}
