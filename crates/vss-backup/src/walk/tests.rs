//! Walks through small trees, told line by line.

use super::*;
use crate::pattern::Pattern;
use crate::selection::{PartialFile, Place, Take};
use std::fs;

/// What a walk told, one line each.
#[derive(Default)]
struct Told(Vec<String>);

impl Visitor for Told {
    fn file(&mut self, found: &Found<'_>) -> Result<(), VssError> {
        self.0.push(format!("{} {:?}", found.path.display(), found.sets));
        Ok(())
    }

    fn enter(&mut self, _path: &Path) -> Result<(), VssError> {
        Ok(())
    }

    fn leave(&mut self, left: &Left<'_>) -> Result<(), VssError> {
        self.0.push(format!("{}/ {:?}", left.path.display().to_string().trim_end_matches('/'), left.sets));
        Ok(())
    }

    fn trouble(&mut self, path: &Path, sets: &[usize], partial: &[usize], error: io::Error) -> Result<(), VssError> {
        let partial = if partial.is_empty() { String::new() } else { format!("{partial:?} ") };
        self.0.push(format!("! {} {sets:?} {partial}{}", path.display(), error.kind()));
        Ok(())
    }

    fn absent(&mut self, path: &Path) {
        self.0.push(format!("? {}", path.display()));
    }
}

fn set(path: &str, pattern: &str, recursive: bool) -> FileSet {
    let pattern = Pattern::new(pattern);
    FileSet { path: path.into(), pattern, recursive, alternate: None, take: Take::Whole, component: None }
}

fn told(trees: &[Tree], selection: &Selection) -> Vec<String> {
    let mut told = Told::default();
    Walk::new(selection, trees).run(&mut told).unwrap();
    told.0.retain(|line| !line.starts_with("/ ["));
    told.0
}

fn tree(files: &[&str]) -> (tempfile::TempDir, Tree) {
    let place = tempfile::tempdir().unwrap();
    for file in files {
        let path = place.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with('/') { fs::create_dir_all(path).unwrap() } else { fs::write(path, file).unwrap() }
    }
    let tree = Tree::open(place.path()).unwrap();
    (place, tree)
}

fn at(at: &str, tree: usize, inner: &str) -> Place {
    Place { at: at.into(), tree, inner: inner.into() }
}

#[test]
fn sets_that_overlap_are_walked_once_and_exclusions_win() {
    let (_kept, tree) = tree(&["db/a.db", "db/a.log", "db/sub/b.db", "db/empty/", "db/tmp/x", "db/tmp/y/z", "other"]);
    let exclusion = Exclusion { path: "/srv/db/tmp".into(), pattern: Pattern::new("*"), recursive: true };
    let selection = Selection {
        sets: vec![set("/srv/db", "*.db", true), set("/srv/db", "*", false), set("/srv/db/tmp", "x", false)],
        exclusions: vec![exclusion],
        places: vec![at("/srv", 0, "")],
        ..Selection::default()
    };
    assert_eq!(
        told(&[tree], &selection),
        [
            "/srv/db/a.db [0, 1]",
            "/srv/db/a.log [1]",
            "/srv/db/empty/ [0]",
            "/srv/db/sub/b.db [0]",
            "/srv/db/sub/ [0]",
            "/srv/db/tmp/ [0]",
            "/srv/db/ [0]",
            "/srv/ []"
        ]
    );
}

#[test]
fn another_volume_begins_where_it_is_mounted_and_the_alternate_path_is_read_instead() {
    let (_one, first) = tree(&["data/f", "data/wal/covered", "spit/f", "spit/deep/g"]);
    let (_two, second) = tree(&["inner/seg/1"]);
    let whole = Selection {
        sets: vec![set("/v/data", "*", true)],
        places: vec![at("/v", 0, ""), at("/v/data/wal", 1, "inner")],
        ..Selection::default()
    };
    let trees = [first, second];
    let expected = [
        "/v/data/f [0]",
        "/v/data/wal/seg/1 [0]",
        "/v/data/wal/seg/ [0]",
        "/v/data/wal/ [0]",
        "/v/data/ [0]",
        "/v/ []",
    ];
    assert_eq!(told(&trees, &whole), expected);
    let mut elsewhere = whole.clone();
    elsewhere.sets[0].alternate = Some("/v/spit".into());
    elsewhere.sets[0].path = "/v/gone".into();
    let expected = ["/v/gone/deep/g [0]", "/v/gone/deep/ [0]", "/v/gone/f [0]", "/v/gone/ [0]", "/v/ []"];
    assert_eq!(told(&trees, &elsewhere), expected);
    elsewhere.sets[0].alternate = Some("/another/volume".into());
    assert!(told(&trees, &elsewhere)[0].starts_with("! /another/volume [0]"));
}

#[test]
fn a_named_file_must_be_there_and_a_link_is_no_way() {
    let (kept, tree) = tree(&["d/there"]);
    std::os::unix::fs::symlink("d", kept.path().join("link")).unwrap();
    let partial = |path: &str| PartialFile {
        path: path.into(),
        parts: crate::entry::Parts { ranges: Vec::new(), metadata: String::new() },
        component: None,
    };
    let selection = Selection {
        sets: vec![
            set("/d", "there", false),
            set("/d", "gone", false),
            set("/no", "*.x", true),
            set("/link", "there", false),
        ],
        partial_files: vec![partial("/d/part"), partial("/d/there")],
        places: vec![at("/", 0, "")],
        ..Selection::default()
    };
    assert_eq!(
        told(&[tree], &selection),
        [
            "/d/there [0]",
            "/d/ []",
            "! /link [3] not a directory",
            "? /no",
            "! /d/gone [1] entity not found",
            "! /d/part [] [0] entity not found"
        ]
    );
}

#[test]
fn what_is_no_directory_loses_all_that_is_selected_there_and_below() {
    let (kept, tree) = tree(&["file", "real/f", "spit/g"]);
    std::os::unix::fs::symlink("real", kept.path().join("link")).unwrap();
    let long = format!("/v/{}", "x".repeat(300));
    let parts = crate::entry::Parts { ranges: Vec::new(), metadata: String::new() };
    let elsewhere = FileSet { alternate: Some("/v/spit".into()), ..set("/v/link/spat", "*", true) };
    let mut selection = Selection {
        sets: vec![
            set("/v/link", "*", true),
            set("/v/link/deep/er", "f", false),
            elsewhere,
            set("/v/file", "*.db", false),
            set(&long, "*", true),
            set("/v/gone/er", "*", true),
            set("/w", "*", true),
            set("/nowhere", "*", true),
        ],
        partial_files: vec![PartialFile { path: "/v/link/part".into(), parts, component: None }],
        places: vec![at("/v", 0, ""), at("/w", 0, "gone")],
        ..Selection::default()
    };
    let trees = [tree];
    let long = format!("! {long} [4] invalid filename");
    let lost = [
        "! /nowhere [7] cross-device link or rename",
        "/nowhere/ []",
        "! /v/file [3] not a directory",
        "? /v/gone",
        "! /v/link [0, 1] [0] not a directory",
    ];
    let expected = [
        &lost[..],
        &["/v/link/spat/g [2]", "/v/link/spat/ [2]", "/v/link/ []", &long, "/v/ []", "! /w [6] entity not found"],
    ];
    assert_eq!(told(&trees, &selection), expected.concat());
    // The link is in the backup, so nothing can be below it.
    selection.sets.push(set("/v", "link", false));
    assert!(told(&trees, &selection).contains(&"! /v/link [0, 1, 2] [0] not a directory".to_owned()));
}

#[test]
fn what_is_left_out_is_not_looked_into() {
    let (_kept, tree) = tree(&["a/x", "backup/y"]);
    let selection = Selection {
        sets: vec![set("/", "*", true)],
        places: vec![at("/", 0, "")],
        left_out: [PathBuf::from("/backup")].into(),
        ..Selection::default()
    };
    assert_eq!(told(&[tree], &selection), ["/a/x [0]", "/a/ [0]"]);
}
