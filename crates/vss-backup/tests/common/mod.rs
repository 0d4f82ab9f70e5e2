//! What the tests of whole backups share: making one of a tree, and comparing trees as an administrator does.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::Command;
use vss_backup::Tree;
use vss_backup::base::BaseBackup;
use vss_backup::chain::Chain;
use vss_backup::directory::{BackupDirectory, Base, Completion, Request};
use vss_backup::make;
use vss_backup::pattern::Pattern;
use vss_backup::progress::{Progress, Quiet};
use vss_backup::restore::{Restored, restore};
use vss_backup::selection::{FileSet, Place, Selection, Take};
use vss_backup::verify::{Report, verify};
use vss_model::{BackupType, Instant, VssError};

/// True when the test `name` cannot run here, because it makes devices and files of others; says so in one line.
pub(crate) fn skips(name: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if Command::new("rsync").arg("--version").output().is_err() {
        "needs rsync"
    } else {
        return false;
    };
    println!("SKIPPED: {name}: {why}");
    true
}

/// Everything below `tree`, which is known as `/tree`.
pub(crate) fn whole(take: Take) -> Selection {
    let set = FileSet {
        path: "/tree".into(),
        pattern: Pattern::new("*"),
        recursive: true,
        alternate: None,
        take,
        component: None,
    };
    let place = Place { at: "/tree".into(), tree: 0, inner: PathBuf::new() };
    Selection { sets: vec![set], places: vec![place], ..Selection::default() }
}

pub(crate) fn request(backup_type: BackupType, base: Option<Base>) -> Request {
    Request { backup_type, paths: vec!["/tree".into()], components: Vec::new(), base }
}

/// Makes, or goes on with, a full backup of `tree` in `directory`.
pub(crate) fn back_up(tree: &Path, directory: &Path, progress: &mut dyn Progress) -> Result<Completion, VssError> {
    let (directory, beginning) = BackupDirectory::begin(directory, request(BackupType::Full, None), Instant::now())?;
    let trees = [Tree::open(tree).unwrap()];
    let outcome = make::copy(&directory, &whole(Take::Whole), &trees, None, progress)?;
    outcome.complete(&directory, beginning, None, None)
}

/// Makes a backup of what has changed since `base`.
pub(crate) fn back_up_changes(tree: &Path, directory: &Path, base: &Path) -> Completion {
    let (base_directory, completion) = BackupDirectory::open(base).unwrap();
    let base = Base { id: completion.beginning.id, directory: base_directory.path().to_owned() };
    let (directory, beginning) =
        BackupDirectory::begin(directory, request(BackupType::Incremental, Some(base)), Instant::now()).unwrap();
    let trees = [Tree::open(tree).unwrap()];
    let base = BaseBackup::open(&base_directory, &completion).unwrap();
    let outcome = make::copy(&directory, &whole(Take::Changed), &trees, Some(base), &mut Quiet).unwrap();
    outcome.complete(&directory, beginning, None, None).unwrap()
}

pub(crate) fn check(directory: &Path) -> Report {
    let (directory, completion) = BackupDirectory::open(directory).unwrap();
    verify(&directory, &completion, &mut Quiet).unwrap()
}

pub(crate) fn put_back(from: &[PathBuf], to: &Path) -> Restored {
    restore(&Chain::open(from).unwrap(), to, false, &mut Quiet).unwrap()
}

/// What rsync would do to make `copy` equal to `tree`: nothing when they are.
pub(crate) fn differences(tree: &Path, copy: &Path) -> String {
    let output = Command::new("rsync")
        .args(["-aHAXSn", "--checksum", "--delete", "--itemize-changes", "--devices", "--specials"])
        .arg(format!("{}/", tree.display()))
        .arg(format!("{}/", copy.display()))
        .output()
        .expect("rsync");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
