//! `vss backup`: makes a set, copies files out of it into a directory, and deletes it.

use super::{Failure, absolute, restore::tell, storage::tell_what_stays};
use crate::args::DirectoryBackupArguments;
use crate::exit::{FAILED, system_error};
use crate::meter::FileMeter;
use crate::output::{self, counted, warn};
use crate::progress::{Progress, summary};
use crate::request::request;
use crate::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vss_backup::Tree;
use vss_backup::base::BaseBackup;
use vss_backup::components::{self, ChosenWriter};
use vss_backup::directory::{BackupDirectory, Base, Beginning, Completion, ComponentOf, Request, Totals};
use vss_backup::documents;
use vss_backup::make::{self, Outcome};
use vss_backup::pattern::Pattern;
use vss_backup::selection::{FileSet, NotCopied, Place, Selection, Take};
use vss_model::{
    BackupComponents, BackupType, Bytes, ComponentName, Consistency, Instant, SessionComponent, SetId, VssCode,
    VssError,
};
use vss_requester::volumes::{self, Mount, Selected};
use vss_requester::{Backup, Instance, Lifetime, Requester, WriterComponents};

/// `vss backup --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    directory: &'a Path,
    id: Uuid,
    set_id: Option<SetId>,
    consistency: Option<Consistency>,
    totals: Totals,
    components: Vec<ReportedComponent<'a>>,
    failures: &'a [vss_backup::directory::Failure],
    more_failures: u64,
}

#[derive(Serialize)]
struct ReportedComponent<'a> {
    #[serde(flatten)]
    component: &'a ComponentOf,
    succeeded: bool,
}

pub(super) fn backup(instance: &Instance, arguments: &DirectoryBackupArguments) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(VssError::new(VssCode::AccessDenied, "vss backup needs root, to read every file as it is")
            .with_hint("Use `sudo vss backup ...`")
            .into());
    }
    let selected = directories(&arguments.volume)?;
    let base = Earlier::open(arguments)?;
    let mut request = request("vss backup".to_owned(), Lifetime::Session, &selected, &arguments.backup)?;
    request.components.clone_from(&arguments.component);
    request.state.partial_file_support = !arguments.component.is_empty();
    request.previous = base.as_ref().map(|base| documents::read(&base.directory)).transpose()?.flatten();

    let wanted = Request {
        backup_type: request.state.backup_type,
        paths: selected.iter().map(|one| one.path.clone()).collect(),
        components: Vec::new(),
        base: base.as_ref().map(Earlier::base),
    };
    let to = absolute(&arguments.to);
    // What is named is known before the set is made; of components the writers tell more.
    let began_at = Instant::now();
    let early =
        arguments.component.is_empty().then(|| BackupDirectory::begin(&to, wanted.clone(), began_at)).transpose()?;
    let requester = Requester::connect(instance)?;
    let signals = Signals::catch(FAILED)?;
    let mut progress = Progress::new(signals.clone(), instance);
    let mut backup = Backup::create(requester, &request, &mut progress)?;
    progress.finished(&backup);
    progress.note(&summary(backup.set()));
    for (mount, why) in backup.not_copied() {
        warn(&format!("{} is in no copy and not backed up: {why}", mount.display()));
    }
    let job = Job { selected, base, wanted, to, began_at, signals: signals.clone() };
    let done = job.copy(&mut backup, early);
    let is_whole = done.as_ref().is_ok_and(|(_, completion)| {
        completion.failures.is_empty() || !completion.beginning.request.components.is_empty()
    });
    signals.ending(FAILED);
    if let Err(error) = backup.finish(is_whole, &mut progress) {
        warn(&format!("The backup is not complete for all writers: {error}"));
    }
    if let Err(error) = backup.delete() {
        warn(&format!("The shadow copies are not deleted yet: {error}"));
    }
    let (directory, completion) = done?;
    tell_what_stays(instance, backup.set());
    tell(&completion.failures, completion.more_failures);
    print(arguments, &directory, &completion)?;
    let is_whole = completion.failures.is_empty() && completion.failed_components.is_empty();
    if is_whole { Ok(()) } else { Err(Failure::No) }
}

/// The trees that were asked for.
fn directories(paths: &[PathBuf]) -> Result<Vec<Selected>, VssError> {
    let selected = volumes::select(paths, &volumes::mounts()?)?;
    match selected.iter().find(|one| !one.path.is_dir()) {
        None => Ok(selected),
        Some(file) => Err(VssError::new(VssCode::InvalidArgument, format!("{} is no directory", file.path.display()))
            .with_hint("Name the directory that it is in")),
    }
}

/// The backup that this one builds on, locked while it is read.
struct Earlier {
    directory: BackupDirectory,
    completion: Completion,
}

impl Earlier {
    fn open(arguments: &DirectoryBackupArguments) -> Result<Option<Self>, VssError> {
        let backup_type = arguments.backup.backup_type.map_or(BackupType::Full, Into::into);
        let refuse = |message: &str, hint: &str| Err(VssError::new(VssCode::InvalidArgument, message).with_hint(hint));
        let builds = backup_type.builds_on_another();
        let Some(base) = &arguments.base else {
            return if builds {
                refuse("This kind of backup builds on another one", "Name it: --base DIR")
            } else {
                Ok(None)
            };
        };
        if !builds {
            return refuse(
                "A full backup or a copy builds on nothing",
                "Leave --base out, or name another --backup-type",
            );
        }
        if backup_type == BackupType::Log && !arguments.volume.is_empty() {
            return refuse("A log backup is one of components", "Name them: --component WRITER/COMPONENT");
        }
        let (directory, completion) = BackupDirectory::open(base)?;
        let of_base = completion.beginning.request.backup_type;
        let fits = match backup_type {
            BackupType::Differential => of_base == BackupType::Full,
            _ => matches!(of_base, BackupType::Full | BackupType::Incremental | BackupType::Log),
        };
        if !fits {
            return refuse(
                &format!("{} is no backup that this one may build on", base.display()),
                "A differential backup builds on a full one, an incremental one on a full or incremental one",
            );
        }
        if completion.beginning.request.components.is_empty() == arguments.volume.is_empty() {
            return refuse(
                &format!("{} is of another kind: of whole trees, or of components", base.display()),
                "Back up the same as before",
            );
        }
        Ok(Some(Self { directory, completion }))
    }

    fn base(&self) -> Base {
        Base { id: self.completion.beginning.id, directory: self.directory.path().to_owned() }
    }
}

/// What is done while the copies are there.
struct Job {
    selected: Vec<Selected>,
    base: Option<Earlier>,
    wanted: Request,
    to: PathBuf,
    /// Before the copies were made.
    began_at: Instant,
    signals: Signals,
}

impl Job {
    fn copy(
        self,
        backup: &mut Backup,
        early: Option<(BackupDirectory, Beginning)>,
    ) -> Result<(BackupDirectory, Completion), VssError> {
        let (directory, beginning) = match early {
            Some(begun) => begun,
            None => {
                let components = backup.components().iter().flat_map(|writer| {
                    let of = |name: &vss_model::ComponentName| ComponentOf {
                        writer: writer.metadata.name.clone(),
                        name: name.clone(),
                    };
                    writer.explicit.iter().map(of)
                });
                let wanted = Request { components: components.collect(), ..self.wanted.clone() };
                BackupDirectory::begin(&self.to, wanted, self.began_at)?
            }
        };
        let (selection, trees) = self.selection(backup, &directory)?;
        let base = self.base.as_ref().map(|base| BaseBackup::open(&base.directory, &base.completion)).transpose()?;
        let mut progress = FileMeter::new("copying", self.signals.clone(), self.expected(backup)?);
        let outcome = make::copy(&directory, &selection, &trees, base, &mut progress)?;
        drop(progress);
        // Copies that go while they are read look like files that are gone.
        if is_over(backup) {
            return Err(VssError::new(VssCode::Unexpected, "The service ended while the shadow copies were read")
                .with_hint("Run the same command again: what is there already is kept"));
        }
        for path in &outcome.absent {
            warn(&format!("{} is not there: nothing of it is in the backup", path.display()));
        }
        for loss in &outcome.losses {
            warn(&format!("{} does not keep {loss}; the manifest has it", directory.path().display()));
        }
        // The copies may go from now on, but not before the writers were told.
        drop(trees);
        Self::finish(backup, directory, beginning, outcome)
    }

    /// What is taken, and the copies that it is read from.
    fn selection(&self, backup: &mut Backup, directory: &BackupDirectory) -> Result<(Selection, Vec<Tree>), VssError> {
        let mut selection =
            Selection { left_out: BTreeSet::from([directory.path().to_owned()]), ..Selection::default() };
        let whole = if self.base.is_some() { Take::Changed } else { Take::Whole };
        for one in &self.selected {
            if directory.path().starts_with(&one.path) {
                warn(&format!("{} itself is left out of the backup", directory.path().display()));
            }
            selection.sets.push(FileSet {
                path: one.path.clone(),
                pattern: Pattern::new("*"),
                recursive: true,
                alternate: None,
                take: whole,
                component: None,
            });
        }
        // In the order in which the request names them, whatever the service lists first.
        let said = if backup.components().is_empty() {
            BackupComponents::default()
        } else {
            documents::parse(&backup.document()?)?
        };
        let of = |writer: &WriterComponents, name: &ComponentName| {
            let known = said.writers.iter().find(|one| one.instance_id == writer.metadata.instance_id);
            let known = known.and_then(|one| one.components.iter().find(|one| one.name == *name)).cloned();
            known.unwrap_or_else(|| SessionComponent { name: name.clone(), ..SessionComponent::default() })
        };
        let writers: Vec<ChosenWriter> = backup
            .components()
            .iter()
            .map(|writer| ChosenWriter {
                metadata: writer.metadata.clone(),
                components: writer.explicit.iter().map(|name| of(writer, name)).collect(),
            })
            .collect();
        let mounts = volumes::mounts()?;
        let mut trees = Vec::new();
        let members: Vec<_> = backup.members().iter().map(|member| (member.shadow_id, member.volume.clone())).collect();
        for (tree, (shadow_id, volume)) in members.into_iter().enumerate() {
            let shown = backup.expose(shadow_id)?;
            let opened = Tree::open(&shown);
            trees.push(opened.map_err(|error| system_error(format!("Cannot read {}", shown.display()), &error))?);
            selection.places.extend(self.places(tree, &volume, &mounts));
        }
        let not_copied = backup.not_copied().iter();
        selection.not_copied = not_copied.map(|(at, why)| NotCopied { at: at.clone(), why: why.clone() }).collect();
        components::select(&writers, self.wanted.backup_type, &mut selection, &trees)?;
        Ok((selection, trees))
    }

    /// Where a volume is mounted, as far as that is asked for: of whole trees the mounts that hold them, of components all.
    fn places(&self, tree: usize, volume: &Path, mounts: &[Mount]) -> Vec<Place> {
        let Some(volume) = Selected::among(mounts, volume.to_owned()).map(|one| one.volume) else { return Vec::new() };
        let place = |mount: &Mount| Place { at: mount.mount_point.clone(), tree, inner: mount.root.clone() };
        if self.selected.is_empty() {
            return mounts.iter().filter(|mount| mount.volume == volume).map(place).collect();
        }
        let of_volume = self.selected.iter().filter(|one| one.volume == volume);
        of_volume.map(|one| Place { at: one.path.clone(), tree, inner: one.inner.clone() }).collect()
    }

    /// How many bytes will be read: known of whole volumes alone.
    fn expected(&self, backup: &mut Backup) -> Result<Option<u64>, VssError> {
        if self.base.is_some()
            || self.selected.is_empty()
            || self.selected.iter().any(|one| !one.inner.as_os_str().is_empty())
        {
            return Ok(None);
        }
        let mut bytes = 0;
        for shadow_id in backup.members().iter().map(|member| member.shadow_id).collect::<Vec<_>>() {
            let shown = backup.expose(shadow_id)?;
            let Ok(used) = rustix::fs::statvfs(&shown) else { return Ok(None) };
            bytes += used.f_blocks.saturating_sub(used.f_bfree) * used.f_frsize;
        }
        Ok(Some(bytes))
    }

    /// Tells the writers which components are whole, and declares the backup so. Only then BackupComplete may follow: a
    /// writer truncates its logs.
    fn finish(
        backup: &mut Backup,
        directory: BackupDirectory,
        beginning: Beginning,
        mut outcome: Outcome,
    ) -> Result<(BackupDirectory, Completion), VssError> {
        let given_up = backup.given_up();
        outcome.failed_components.extend(given_up.into_iter().filter_map(|number| u32::try_from(number).ok()));
        let failed = outcome.failed_components.clone();
        backup.report(|number| u32::try_from(number).is_ok_and(|number| !failed.contains(&number)))?;
        if !backup.components().is_empty() {
            documents::write(&directory, &backup.documents()?)?;
        }
        let (set_id, consistency) = (backup.set().set_id, backup.set().consistency);
        let completion = outcome.complete(&directory, beginning, Some(set_id), Some(consistency))?;
        Ok((directory, completion))
    }
}

/// True when the service has ended the session.
fn is_over(backup: &Backup) -> bool {
    let mut session = [PollFd::new(backup, PollFlags::IN)];
    poll(&mut session, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn print(
    arguments: &DirectoryBackupArguments,
    directory: &BackupDirectory,
    completion: &Completion,
) -> Result<(), std::io::Error> {
    let request = &completion.beginning.request;
    let is_whole =
        |number: usize| u32::try_from(number).is_ok_and(|number| !completion.failed_components.contains(&number));
    if arguments.json {
        let components = request.components.iter().enumerate();
        return output::json(&Document {
            directory: directory.path(),
            id: completion.beginning.id,
            set_id: completion.set_id,
            consistency: completion.consistency,
            totals: completion.totals,
            components: components
                .map(|(number, component)| ReportedComponent { component, succeeded: is_whole(number) })
                .collect(),
            failures: &completion.failures,
            more_failures: completion.more_failures,
        });
    }
    for (_, component) in request.components.iter().enumerate().filter(|(number, _)| !is_whole(*number)) {
        warn(&format!("Component {} of writer {} has failed", component.name, component.writer));
    }
    let Totals { files, bytes, kept, unchanged, .. } = completion.totals;
    let kept = if kept > 0 { format!(", {kept} of an earlier run") } else { String::new() };
    let unchanged = if unchanged > 0 { format!(", {unchanged} unchanged") } else { String::new() };
    let files = counted(files, "file");
    output::line(&format!("{}: {files}{kept}{unchanged}, {}", directory.path().display(), Bytes(bytes)))
}
