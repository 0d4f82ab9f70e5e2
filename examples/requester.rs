//! A requester for VSS: copies a directory as it was at one instant, while applications keep writing to it.
//!
//! Usage: requester SOURCE TARGET [RUNTIME_DIRECTORY STATE_DIRECTORY]        for example: requester /srv/shop /backup/shop

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use vss_requester::model::{Consistency, VssCode, VssError};
use vss_requester::{Backup, BackupRequest, Instance, Lifetime, Monitor, Requester};

/// Says what goes on.
struct Steps;

impl Monitor for Steps {
    fn step(&mut self, step: &str) {
        eprintln!("{step}");
    }

    fn waiting(&mut self, why: &str) {
        eprintln!("waiting: {why}");
    }
}

fn back_up(instance: &Instance, source: PathBuf, target: &Path) -> Result<(), VssError> {
    let paths = [source];
    let request = BackupRequest {
        require: Some(Consistency::FileSystem), // one instant; Application: its writer held still, too
        ..BackupRequest::of_paths("requester.rs", Lifetime::Session, &paths)?
    };
    let mut backup = Backup::create(Requester::connect(instance)?, &request, &mut Steps)?;
    println!("consistency: {}", backup.set().consistency);
    // From here on writers go on writing; the copy stays as it is until the session ends.
    let copied = copy_tree(&backup.copy_of(&paths[0])?, target);
    // BackupComplete, or Abort: writers must not truncate their logs for a backup that failed.
    backup.finish(copied.is_ok(), &mut Steps)?;
    backup.delete()?;
    copied.map_err(|error| VssError::new(VssCode::Unexpected, format!("Cannot copy to {}: {error}", target.display())))
}

/// Regular files, directories and symbolic links; a backup tool would keep owners, modes and times too.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (kind, from) = entry.and_then(|entry| Ok((entry.file_type()?, entry.path())))?;
        let to = to.join(from.file_name().unwrap_or_default());
        if kind.is_dir() {
            copy_tree(&from, &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, to)?;
        } else if kind.is_file() {
            fs::copy(&from, to)?;
        }
    }
    Ok(())
}

fn main() {
    let arguments: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let done = match arguments.as_slice() {
        [source, target] => back_up(&Instance::default(), source.clone(), target),
        [source, target, runtime, state] => back_up(&Instance::new(runtime, state), source.clone(), target),
        _ => Err(VssError::new(VssCode::InvalidArgument, "usage: requester SOURCE TARGET [RUNTIME STATE]")),
    };
    if let Err(error) = done {
        eprintln!("{error}"); // what failed, its VSS_E_ name, what to do
        std::process::exit(1);
    }
}
