//! Backups of components: what fails one of them, and not the others.

mod common;

use common::{request, skips, whole};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use vss_backup::Tree;
use vss_backup::directory::{BackupDirectory, ComponentOf, Request};
use vss_backup::make::{self, Outcome};
use vss_backup::pattern::Pattern;
use vss_backup::progress::Quiet;
use vss_backup::selection::{FileSet, NotCopied, Selection, Take};
use vss_model::{BackupType, ComponentName, Instant};

/// All files below this directory, of this component.
fn below(directory: &str, component: u32) -> FileSet {
    FileSet { path: directory.into(), component: Some(component), ..whole(Take::Whole).sets[0].clone() }
}

/// Backs up these sets of the components of one writer; `tree` is known as `/tree`.
fn back_up(tree: &Path, to: &Path, sets: Vec<FileSet>) -> Outcome {
    back_up_of(tree, to, Selection { sets, ..whole(Take::Whole) })
}

fn back_up_of(tree: &Path, to: &Path, selection: Selection) -> Outcome {
    let component = |name: &str| ComponentOf { writer: "test".to_owned(), name: ComponentName::new("", name) };
    let components = vec![component("first"), component("second")];
    let request = Request { paths: Vec::new(), components, ..request(BackupType::Full, None) };
    let (directory, _) = BackupDirectory::begin(to, request, Instant::now()).unwrap();
    make::copy(&directory, &selection, &[Tree::open(tree).unwrap()], None, &mut Quiet).unwrap()
}

#[test]
fn a_component_over_a_symbolic_link_fails_and_another_does_not() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("real/db")).unwrap();
    fs::write(tree.join("real/db/app.db"), "a row").unwrap();
    symlink("real", tree.join("app")).unwrap();
    for named in ["/tree/app", "/tree/app/db"] {
        let to = place.path().join(named.replace('/', " "));
        let outcome = back_up(&tree, &to, vec![below(named, 0), below("/tree/real", 1)]);
        assert_eq!(outcome.failed_components, [0].into(), "{named}");
        assert_eq!(outcome.failures[0].path, Path::new("/tree/app"));
        assert!(outcome.failures[0].message.contains("symbolic link"), "{:?}", outcome.failures);
        assert!(to.join("data/tree/real/db/app.db").exists() && !to.join("data/tree/app").exists());
    }
}

#[test]
fn a_component_whose_directory_cannot_be_entered_fails_with_all_that_is_below() {
    if skips("a_component_whose_directory_cannot_be_entered_fails_with_all_that_is_below") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("db/log")).unwrap();
    fs::write(tree.join("db/log/1"), "begin").unwrap();
    let opened = Tree::open(&tree).unwrap();
    // A mount that came after the tree was opened is not entered, whatever other error the disk may have.
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(tree.join("db")).status();
    assert!(mount.unwrap().success());
    let (directory, _) =
        BackupDirectory::begin(&place.path().join("backup"), request(BackupType::Full, None), Instant::now()).unwrap();
    let one = FileSet { pattern: Pattern::new("1"), recursive: false, ..below("/tree/db/log", 1) };
    let selection = Selection { sets: vec![below("/tree/db", 0), one], ..whole(Take::Whole) };
    let outcome = make::copy(&directory, &selection, &[opened], None, &mut Quiet);
    rustix::mount::unmount(tree.join("db"), rustix::mount::UnmountFlags::DETACH).unwrap();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.failed_components, [0, 1].into());
    assert_eq!(outcome.failures.len(), 1, "told once: {:?}", outcome.failures);
    assert_eq!(outcome.failures[0].components, [0, 1]);
}

#[test]
fn a_mount_that_is_in_no_copy_fails_the_components_that_hold_it() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("db/hot")).unwrap();
    fs::create_dir(tree.join("other")).unwrap();
    let hot = NotCopied { at: "/tree/db/hot".into(), why: "it is tmpfs".to_owned() };
    let sets = vec![below("/tree/db", 0), below("/tree/other", 1)];
    let selection = Selection { sets, not_copied: vec![hot], ..whole(Take::Whole) };
    let outcome = back_up_of(&tree, &place.path().join("backup"), selection);
    assert_eq!(outcome.failed_components, [0].into());
    assert_eq!(outcome.failures[0].path, Path::new("/tree/db/hot"));
    assert!(outcome.failures[0].message.contains("it is tmpfs"), "{:?}", outcome.failures);
}

#[test]
fn a_directory_that_is_not_there_is_told_and_fails_no_component() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("tree")).unwrap();
    let outcome = back_up(&place.path().join("tree"), &place.path().join("backup"), vec![below("/tree/not/yet", 0)]);
    assert!(outcome.failed_components.is_empty() && outcome.failures.is_empty(), "{outcome:?}");
    assert_eq!(outcome.absent, [Path::new("/tree/not")]);
}
