//! Whole backups: interrupted and gone on with, damaged in every way, of hostile trees, one upon another.

mod common;

use common::{back_up, back_up_changes, check, differences, put_back, request, skips, whole};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use vss_backup::Tree;
use vss_backup::base::BaseBackup;
use vss_backup::chain::Chain;
use vss_backup::directory::{BackupDirectory, Totals};
use vss_backup::entry::{Parts, Range, Time};
use vss_backup::make;
use vss_backup::pattern::Pattern;
use vss_backup::progress::{Progress, Quiet};
use vss_backup::restore::restore;
use vss_backup::selection::{Carried, FileSet, PartialFile, Take};
use vss_backup::verify::Wrong;
use vss_model::{BackupType, Instant, VssCode};

/// Stops after so many questions whether to stop.
struct StopAfter(u32);

impl Progress for StopAfter {
    fn stop(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

/// The paths that were worked at.
#[derive(Default)]
struct Seen(Vec<PathBuf>);

impl Progress for Seen {
    fn at(&mut self, path: &Path, _done: &Totals) {
        self.0.push(path.to_owned());
    }
}

/// A directory with a tree in it: files in two levels, two names of one of them, a link, something large.
fn sample() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    for directory in ["a", "b", "b/c", "empty"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
        for file in 0..6 {
            fs::write(tree.join(directory).join(format!("f{file}")), format!("{directory} {file}").repeat(50)).unwrap();
        }
    }
    fs::remove_dir_all(tree.join("empty")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::hard_link(tree.join("a/f1"), tree.join("b/c/second")).unwrap();
    symlink("../a", tree.join("b/link")).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 253) as u8).collect();
    fs::write(tree.join("b/large"), large).unwrap();
    place
}

fn code(result: Result<impl Sized, vss_model::VssError>) -> VssCode {
    result.err().expect("a refusal").code
}

#[test]
fn stopped_anywhere_it_goes_on_and_ends_right() {
    if skips("stopped_anywhere_it_goes_on_and_ends_right") {
        return;
    }
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    let mut stops = 0;
    for after in 1.. {
        match back_up(&tree, &directory, &mut StopAfter(after * 3)) {
            Err(error) => assert_eq!(error.code, VssCode::Aborted),
            Ok(completion) => {
                assert!(completion.failures.is_empty());
                assert!(completion.totals.kept > 10, "{:?}", completion.totals);
                break;
            }
        }
        stops += 1;
        assert_eq!(code(BackupDirectory::open(&directory)), VssCode::BadState);
        // The tree goes on living meanwhile.
        match stops {
            2 => fs::write(tree.join("a/f0"), "changed").unwrap(),
            4 => fs::remove_file(tree.join("a/f2")).unwrap(),
            5 => {
                fs::remove_file(tree.join("a/f3")).unwrap();
                fs::create_dir(tree.join("a/f3")).unwrap();
                fs::write(tree.join("a/f3/now a directory"), "x").unwrap();
            }
            7 => {
                fs::remove_dir_all(tree.join("b/c")).unwrap();
                fs::write(tree.join("b/c"), "now a file").unwrap();
            }
            _ => {}
        }
    }
    assert!(stops > 8, "{stops}");
    assert_eq!(differences(&tree, &directory.join("data/tree")), "");
    assert_eq!(check(&directory).problems, []);
    assert_eq!(code(back_up(&tree, &directory, &mut Quiet)), VssCode::ObjectAlreadyExists);
    for name in ["unfinished", "journal", "journal.old"] {
        assert!(!directory.join(name).exists(), "{name}");
    }
}

#[test]
fn what_an_earlier_run_left_damaged_is_not_kept() {
    if skips("what_an_earlier_run_left_damaged_is_not_kept") {
        return;
    }
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    assert!(back_up(&tree, &directory, &mut StopAfter(20)).is_err());
    let copied = directory.join("data/tree/a/f0");
    let time = copied.metadata().unwrap().modified().unwrap();
    File::options().write(true).open(&copied).unwrap().write_all_at(b"X", 3).unwrap();
    File::options().write(true).open(&copied).unwrap().set_modified(time).unwrap();
    // A line that was not written whole.
    let journal = directory.join("journal");
    let torn = fs::read(&journal).unwrap();
    fs::write(&journal, &torn[..torn.len() - 10]).unwrap();
    back_up(&tree, &directory, &mut Quiet).unwrap();
    assert_eq!(differences(&tree, &directory.join("data/tree")), "");
}

#[test]
fn what_looks_the_same_in_one_tick_of_the_clock_is_compared_before_it_is_kept() {
    if skips("what_looks_the_same_in_one_tick_of_the_clock_is_compared_before_it_is_kept") {
        return;
    }
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    assert!(back_up(&tree, &directory, &mut StopAfter(20)).is_err());
    let (changed, journal) = (tree.join("a/f0"), directory.join("journal"));
    let times = || {
        let found = changed.metadata().unwrap();
        (found.modified().unwrap(), format!("[{},{}]", found.ctime(), found.ctime_nsec()))
    };
    let (modified, before) = times();
    fs::write(&changed, "A".repeat(usize::try_from(changed.metadata().unwrap().len()).unwrap())).unwrap();
    File::options().write(true).open(&changed).unwrap().set_modified(modified).unwrap();
    // As if the clock of the source had not gone on between the two.
    let after = times().1;
    let lines = fs::read_to_string(&journal).unwrap();
    let turned_back = |line: &str| match line.contains("/a/f0\"") {
        true => line.replace(&format!("\"changed\":{before}"), &format!("\"changed\":{after}")) + "\n",
        false => line.to_owned() + "\n",
    };
    let forged: String = lines.lines().map(turned_back).collect();
    assert_ne!(forged, lines);
    fs::write(&journal, forged).unwrap();
    let completion = back_up(&tree, &directory, &mut Quiet).unwrap();
    assert!(completion.totals.kept > 0, "{:?}", completion.totals);
    assert_eq!(differences(&tree, &directory.join("data/tree")), "");
}

#[test]
fn a_directory_that_is_not_its_own_is_refused() {
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    let orphan = back_up(&tree, &place.path().join("no/such"), &mut Quiet).unwrap_err();
    assert_eq!(orphan.code, VssCode::ObjectNotFound);
    assert!(orphan.hint.contains("Make the directory above it"), "{orphan:?}");
    assert_eq!(code(BackupDirectory::open(&place.path().join("none"))), VssCode::ObjectNotFound);
    assert_eq!(code(back_up(&tree, &tree, &mut Quiet)), VssCode::ObjectAlreadyExists);
    assert!(back_up(&tree, &directory, &mut StopAfter(5)).is_err());
    let other = BackupDirectory::begin(&directory, request(BackupType::Copy, None), Instant::now()).err().unwrap();
    assert_eq!(other.code, VssCode::ObjectAlreadyExists);
    assert!(other.to_string().contains("half-made backup of something else"), "{other}");
    let held = BackupDirectory::begin(&directory, request(BackupType::Full, None), Instant::now()).unwrap();
    assert_eq!(code(back_up(&tree, &directory, &mut Quiet)), VssCode::BadState);
    assert_eq!(code(BackupDirectory::open(&directory)), VssCode::BadState);
    drop(held);
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let reader = BackupDirectory::open(&directory).unwrap();
    assert!(BackupDirectory::open(&directory).is_ok(), "several may read");
    drop(reader);
    assert_eq!(code(BackupDirectory::open(&tree)), VssCode::ObjectNotFound);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn every_damage_is_found_and_named() {
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let data = directory.join("data/tree");
    File::options().write(true).open(data.join("a/f0")).unwrap().write_all_at(b"X", 3).unwrap();
    File::options().write(true).open(data.join("b/large")).unwrap().write_all_at(b"X", 2_999_999).unwrap();
    File::options().write(true).open(data.join("a/f2")).unwrap().set_len(10).unwrap();
    fs::remove_file(data.join("a/f3")).unwrap();
    fs::remove_dir(data.join("empty")).unwrap();
    fs::write(data.join("a/f9"), "new").unwrap();
    fs::create_dir(data.join("z")).unwrap();
    fs::remove_file(data.join("b/link")).unwrap();
    symlink("/etc", data.join("b/link")).unwrap();
    fs::remove_file(data.join("b/c/second")).unwrap();
    fs::copy(data.join("a/f1"), data.join("b/c/second")).unwrap();
    fs::remove_file(data.join("b/f1")).unwrap();
    fs::create_dir(data.join("b/f1")).unwrap();
    fs::write(directory.join("stranger"), "").unwrap();
    let report = check(&directory);
    let found: Vec<(&str, Wrong)> = report.problems.iter().map(|one| (one.path.to_str().unwrap(), one.wrong)).collect();
    use Wrong::{Damaged, Extra, Missing};
    let expected = [
        ("stranger", Extra),
        ("/tree/a/f0", Damaged),
        ("/tree/a/f2", Damaged),
        ("/tree/a/f3", Missing),
        ("/tree/a/f9", Extra),
        ("/tree/b/c/second", Damaged),
        ("/tree/b/f1", Damaged),
        ("/tree/b/large", Damaged),
        ("/tree/b/link", Damaged),
        ("/tree/empty", Missing),
        ("/tree/z", Extra),
    ];
    for one in expected {
        assert!(found.contains(&one), "{one:?} is not in {found:?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
    // Nothing damaged is put back, and all the rest is.
    let restored = put_back(&[directory], &place.path().join("other"));
    let failed: Vec<&str> = restored.failures.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(failed, ["/tree/a/f0", "/tree/a/f2", "/tree/a/f3", "/tree/b/f1", "/tree/b/large"]);
    assert!(!place.path().join("other/tree/a/f0").exists());
    assert_eq!(fs::read_link(place.path().join("other/tree/b/link")).unwrap(), Path::new("../a"));
}

#[test]
fn a_damaged_record_or_manifest_is_no_backup() {
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let manifest = directory.join("manifest");
    let good = fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    fs::write(&manifest, &bad).unwrap();
    assert!(
        check(&directory).problems.iter().any(|one| one.path == Path::new("manifest") && one.wrong == Wrong::Damaged)
    );
    assert_eq!(code(Chain::open(std::slice::from_ref(&directory))), VssCode::CorruptXmlDocument);
    fs::write(&manifest, &good).unwrap();
    assert!(Chain::open(std::slice::from_ref(&directory)).is_ok());
    let complete = directory.join("complete");
    let mut record = fs::read(&complete).unwrap();
    record[20] ^= 1;
    fs::write(&complete, record).unwrap();
    assert_eq!(code(BackupDirectory::open(&directory)), VssCode::CorruptXmlDocument);
}

#[test]
fn no_backup_is_told_with_the_way_out() {
    let error = Chain::open(&[]).unwrap_err();
    assert!(error.code == VssCode::InvalidArgument && error.hint.contains("--from"), "{error}");
}

#[test]
fn an_interrupted_restoration_goes_on_and_nothing_of_others_is_lost() {
    if skips("an_interrupted_restoration_goes_on_and_nothing_of_others_is_lost") {
        return;
    }
    let place = sample();
    let (tree, directory, other) = (place.path().join("tree"), place.path().join("backup"), place.path().join("other"));
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let chain = Chain::open(std::slice::from_ref(&directory)).unwrap();
    fs::create_dir_all(other.join("tree/a")).unwrap();
    fs::write(other.join("tree/a/f4"), "mine").unwrap();
    fs::write(other.join("tree/a/.vss-restore-0"), "left by a killed run").unwrap();
    for after in 1..20 {
        let stopped = restore(&chain, &other, false, &mut StopAfter(after));
        assert_eq!(code(stopped), VssCode::Aborted);
    }
    let restored = restore(&chain, &other, false, &mut Quiet).unwrap();
    assert_eq!(restored.failures.len(), 1, "{:?}", restored.failures);
    assert_eq!(restored.failures[0].path, Path::new("/tree/a/f4"));
    assert_eq!(fs::read_to_string(other.join("tree/a/f4")).unwrap(), "mine");
    assert!(!other.join("tree/a/.vss-restore-0").exists());
    let restored = restore(&chain, &other, true, &mut Quiet).unwrap();
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    assert_eq!(differences(&tree, &other.join("tree")), "");
}

#[test]
fn a_directory_in_a_backup_is_not_restored_to_by_whatever_way_it_is_named() {
    let place = sample();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let chain = Chain::open(std::slice::from_ref(&directory)).unwrap();
    symlink(&directory, place.path().join("link")).unwrap();
    for name in ["backup", "backup/data/here", "new/../backup/data/here", "new/er/../../backup/here", "link/here"] {
        let refused = restore(&chain, &place.path().join(name), true, &mut Quiet);
        assert_eq!(code(refused), VssCode::InvalidArgument, "{name}");
    }
    assert!(!place.path().join("new").exists(), "something was made on the way");
    assert_eq!(check(&directory).problems, []);
    // And what is beside it is not in it.
    let beside = restore(&chain, &place.path().join("new/../backup/../other"), false, &mut Quiet).unwrap();
    assert!(beside.failures.is_empty(), "{:?}", beside.failures);
    assert!(place.path().join("other/tree/b/large").exists());
}

#[test]
fn changes_build_on_the_backup_before_and_what_was_removed_does_not_come_back() {
    if skips("changes_build_on_the_backup_before_and_what_was_removed_does_not_come_back") {
        return;
    }
    let place = sample();
    let at = |name: &str| place.path().join(name);
    let tree = at("tree");
    back_up(&tree, &at("full"), &mut Quiet).unwrap();
    fs::write(tree.join("a/f0"), "changed").unwrap();
    fs::remove_file(tree.join("a/f2")).unwrap();
    fs::write(tree.join("new"), "new").unwrap();
    let first = back_up_changes(&tree, &at("first"), &at("full"));
    // Two files have their contents here: the third that was changed is the directory.
    assert_eq!(first.totals.bytes, 10);
    assert!(first.totals.unchanged > 15, "{:?}", first.totals);
    fs::write(tree.join("b/f0"), "changed too").unwrap();
    fs::rename(tree.join("new"), tree.join("newer")).unwrap();
    back_up_changes(&tree, &at("second"), &at("first"));
    assert!(!at("second/data/tree/a/f0").exists(), "it is in the first");
    for backup in ["full", "first", "second"] {
        assert_eq!(check(&at(backup)).problems, [], "{backup}");
    }
    // By the names in the records, and by the names that are given, in any order.
    for (from, to) in [(vec![at("second")], "one"), (vec![at("second"), at("full"), at("first")], "two")] {
        let restored = put_back(&from, &at(to));
        assert!(restored.failures.is_empty(), "{:?}", restored.failures);
        assert_eq!(differences(&tree, &at(to).join("tree")), "");
    }
    fs::create_dir(at("moved")).unwrap();
    fs::rename(at("full"), at("moved/full")).unwrap();
    assert_eq!(code(Chain::open(&[at("second")])), VssCode::ObjectNotFound);
    let restored = put_back(&[at("moved/full"), at("second")], &at("three"));
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    assert_eq!(differences(&tree, &at("three/tree")), "");
    back_up(&tree, &at("unrelated"), &mut Quiet).unwrap();
    let unrelated = Chain::open(&[at("moved/full"), at("second"), at("unrelated")]);
    assert_eq!(code(unrelated), VssCode::InvalidArgument);
}

fn component(pattern: &str, take: Take, component: u32) -> FileSet {
    FileSet {
        pattern: Pattern::new(pattern),
        recursive: false,
        take,
        component: Some(component),
        ..whole(take).sets[0].clone()
    }
}

#[test]
fn parts_and_changed_files_of_components_are_put_over_the_full_backup() {
    if skips("parts_and_changed_files_of_components_are_put_over_the_full_backup") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/db"), "0123456789".repeat(1000)).unwrap();
    fs::write(at("tree/old"), "old").unwrap();
    File::open(at("tree/old")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(at("tree/log"), "one").unwrap();
    fs::write(at("tree/removed"), "removed").unwrap();
    fs::create_dir_all(at("tree/only full/inner")).unwrap();
    fs::write(at("tree/only full/inner/file"), "as it was").unwrap();
    let named = |backup_type, base| {
        let component = |name: &str| vss_backup::directory::ComponentOf {
            writer: "test".to_owned(),
            name: vss_model::ComponentName { logical_path: String::new(), name: name.to_owned() },
        };
        vss_backup::directory::Request {
            paths: Vec::new(),
            components: vec![component("data"), component("gone")],
            ..request(backup_type, base)
        }
    };
    let trees = [Tree::open(&at("tree")).unwrap()];
    let mut selection = whole(Take::Whole);
    let only_full = FileSet { path: "/tree/only full".into(), recursive: true, ..component("*", Take::Whole, 1) };
    selection.sets = vec![component("*", Take::Whole, 0), component("gone", Take::Whole, 1), only_full];
    let (directory, beginning) =
        BackupDirectory::begin(&at("full"), named(BackupType::Full, None), Instant::now()).unwrap();
    let base = vss_backup::directory::Base { id: beginning.id, directory: directory.path().to_owned() };
    let outcome = make::copy(&directory, &selection, &trees, None, &mut Quiet).unwrap();
    // One component lacks its file; the other is whole.
    assert_eq!(outcome.failed_components, [1].into());
    assert_eq!(outcome.failures[0].path, Path::new("/tree/gone"));
    let completion = outcome.complete(&directory, beginning, None, None).unwrap();
    let full = BaseBackup::open(&directory, &completion).unwrap();
    drop(directory);

    fs::remove_file(at("tree/removed")).unwrap();
    // Renamed, and so as old as it was.
    fs::write(at("tree/renamed"), "renamed").unwrap();
    File::open(at("tree/renamed")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::rename(at("tree/only full"), at("elsewhere")).unwrap();
    File::options().write(true).open(at("tree/db")).unwrap().write_all_at(b"ABCD", 5_000).unwrap();
    File::options().write(true).open(at("tree/db")).unwrap().write_all_at(b"end", 10_000).unwrap();
    fs::write(at("tree/log"), "one, two").unwrap();
    let ranges = vec![Range { offset: 10_000, length: 3 }, Range { offset: 5_000, length: 4 }];
    let parts = Parts { ranges, metadata: "lsn 7".to_owned() };
    selection.sets = vec![component("*", Take::ModifiedAfter(Time(1000, 0)), 0)];
    let files = vss_model::FileSet { path: "/tree/only full".into(), pattern: "*".to_owned(), recursive: true };
    selection.carried = vec![Carried { files, only_what_is_there: false, component: 1 }];
    selection.partial_files = vec![PartialFile { path: "/tree/db".into(), parts, component: Some(0) }];
    let (directory, beginning) =
        BackupDirectory::begin(&at("more"), named(BackupType::Incremental, Some(base)), Instant::now()).unwrap();
    let outcome = make::copy(&directory, &selection, &trees, Some(full), &mut Quiet).unwrap();
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    assert_eq!(outcome.totals.unchanged, 2, "the old file, and that of which nothing is said");
    let completion = outcome.complete(&directory, beginning, None, None).unwrap();
    let base = vss_backup::directory::Base { id: completion.beginning.id, directory: directory.path().to_owned() };
    let more = BaseBackup::open(&directory, &completion).unwrap();
    drop(directory);
    assert_eq!(check(&at("more")).problems, []);
    let modified = fs::metadata(at("tree")).unwrap().modified().unwrap();
    fs::rename(at("elsewhere"), at("tree/only full")).unwrap();
    File::open(at("tree")).unwrap().set_modified(modified).unwrap();
    assert_eq!(fs::read_to_string(at("more/data/tree/db")).unwrap(), "endABCD");
    for _ in 0..2 {
        let restored = put_back(&[at("full"), at("more")], &at("other"));
        assert!(restored.failures.is_empty(), "{:?}", restored.failures);
        assert_eq!(differences(&at("tree"), &at("other/tree")), "");
    }

    // Nothing has changed but a name: the next one holds that file alone, and what it is restored from lies in three.
    fs::rename(at("tree/log"), at("tree/log 2")).unwrap();
    selection.partial_files = Vec::new();
    selection.sets = vec![component("*", Take::Changed, 0)];
    let (directory, beginning) =
        BackupDirectory::begin(&at("last"), named(BackupType::Incremental, Some(base)), Instant::now()).unwrap();
    let outcome = make::copy(&directory, &selection, &trees, Some(more), &mut Quiet).unwrap();
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    outcome.complete(&directory, beginning, None, None).unwrap();
    drop(directory);
    assert_eq!(check(&at("last")).problems, []);
    let restored = put_back(&[at("last")], &at("third"));
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    assert_eq!(differences(&at("tree"), &at("third/tree")), "");
}

#[test]
fn a_hostile_tree_leads_nowhere() {
    if skips("a_hostile_tree_leads_nowhere") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (tree, directory) = (place.path().join("tree"), place.path().join("backup"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(place.path().join("secret")).unwrap();
    fs::write(place.path().join("secret/key"), "secret").unwrap();
    symlink("../secret", tree.join("link")).unwrap();
    symlink("/proc/self/root", tree.join("root")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    for name in [&[b'x'; 255][..], b"\xff\xfe\n\x1b[31m", b"-rf", b" ", b"{\"path\"", b"...", b".vss-restore-0"] {
        fs::write(tree.join(OsString::from_vec(name.to_vec())), name).unwrap();
    }
    File::create(tree.join("huge")).unwrap().set_len(8 << 40).unwrap();
    let mut seen = Seen::default();
    back_up(&tree, &directory, &mut seen).unwrap();
    assert!(seen.0.iter().all(|path| !path.ends_with("key")), "{:?}", seen.0);
    assert_eq!(check(&directory).problems, []);
    let restored = put_back(std::slice::from_ref(&directory), &place.path().join("other"));
    assert!(restored.failures.is_empty(), "{:?}", restored.failures);
    assert_eq!(fs::read(place.path().join("other/tree/.vss-restore-0")).unwrap(), b".vss-restore-0");
    assert_eq!(fs::metadata(place.path().join("other/tree/huge")).unwrap().blocks(), 0);
    // Who swaps a directory of the target for a link gets nothing written elsewhere.
    let trap = place.path().join("trap");
    fs::create_dir(&trap).unwrap();
    symlink(place.path().join("secret"), trap.join("tree")).unwrap();
    let trapped = put_back(&[directory], &trap);
    assert!(trapped.failures.len() > 8, "{:?}", trapped.failures);
    assert_eq!(fs::read_dir(place.path().join("secret")).unwrap().count(), 1);
}

#[test]
fn a_path_longer_than_any_program_can_name_survives() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let open = |path: &Path| rustix::fs::open(path, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let name = "d".repeat(200);
    let mut at = open(&tree);
    for _ in 0..60 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
    let file = File::from(rustix::fs::openat(&at, "deep", flags, rustix::fs::Mode::RUSR).unwrap());
    file.write_all_at(b"deep down", 0).unwrap();
    let completion = back_up(&tree, &place.path().join("backup"), &mut Quiet).unwrap();
    assert!(completion.failures.is_empty());
    assert_eq!(check(&place.path().join("backup")).problems, []);
    assert!(put_back(&[place.path().join("backup")], &place.path().join("other")).failures.is_empty());
    let mut at = open(&place.path().join("other/tree"));
    for _ in 0..60 {
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let file =
        File::from(rustix::fs::openat(&at, "deep", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap());
    assert_eq!(std::io::read_to_string(file).unwrap(), "deep down");
}

#[test]
fn flags_that_lock_a_file_come_back_last() {
    if skips("flags_that_lock_a_file_come_back_last") {
        return;
    }
    let place = sample();
    let (tree, directory, other) = (place.path().join("tree"), place.path().join("backup"), place.path().join("other"));
    let chattr = |flag: &str, path: &Path| {
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    if !chattr("+i", &tree.join("a/f1")) {
        println!("SKIPPED: flags_that_lock_a_file_come_back_last: needs flags of files at {}", place.path().display());
        return;
    }
    assert!(chattr("+a", &tree.join("a/f2")) && chattr("+i", &tree.join("empty")) && chattr("+d", &tree.join("a/f3")));
    back_up(&tree, &directory, &mut Quiet).unwrap();
    let twice =
        [put_back(std::slice::from_ref(&directory), &other), put_back(std::slice::from_ref(&directory), &other)];
    let listed = |root: &Path| {
        let list = std::process::Command::new("lsattr").arg("-R").current_dir(root).output().unwrap();
        String::from_utf8(list.stdout).unwrap()
    };
    let (before, after) = (listed(&tree), listed(&other.join("tree")));
    for root in [&tree, &other.join("tree")] {
        for file in ["a/f1", "a/f2", "empty"] {
            assert!(chattr("-ia", &root.join(file)));
        }
    }
    assert_eq!(before, after);
    assert!(twice.iter().all(|one| one.failures.is_empty()), "{twice:?}");
}
