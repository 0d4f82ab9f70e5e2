//! Random trees with every kind of entry survive a backup and its restoration, by rsync's judgement.

mod common;

use common::{back_up, check, differences, put_back, skips};
use proptest::prelude::*;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use vss_backup::progress::Quiet;

#[derive(Debug, Clone)]
enum Thing {
    File {
        contents: Vec<u8>,
        hole: u64,
    },
    Directory,
    Symlink(Vec<u8>),
    /// A further name of the so-manieth file.
    Link(usize),
    Fifo,
    Socket,
    Device(u32, u32),
}

#[derive(Debug, Clone)]
struct Item {
    /// In the so-manieth directory.
    parent: usize,
    name: Vec<u8>,
    thing: Thing,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, u32),
    xattr: Option<Vec<u8>>,
    capability: bool,
    acl: bool,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => b'a'..=b'f', 1 => 1_u8..=255].prop_map(|byte| if byte == b'/' { b'!' } else { byte });
    prop_oneof![9 => prop::collection::vec(byte.clone(), 1..6), 1 => prop::collection::vec(byte, 255..=255)]
}

fn thing() -> impl Strategy<Value = Thing> {
    let contents = prop_oneof![Just(0_usize), 1..5000_usize, 1_000_000..2_500_000_usize]
        .prop_flat_map(|size| any::<u8>().prop_map(move |seed| contents(seed, size)));
    prop_oneof![
        6 => (contents, prop_oneof![Just(0), 1..(5_u64 << 20)]).prop_map(|(contents, hole)| Thing::File { contents, hole }),
        4 => Just(Thing::Directory),
        2 => prop::collection::vec(1_u8..=255, 1..300).prop_map(Thing::Symlink),
        3 => any::<usize>().prop_map(Thing::Link),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Socket),
        1 => (1_u32..200, 0_u32..2000).prop_map(|(major, minor)| Thing::Device(major, minor)),
    ]
}

fn contents(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 7) as u8 ^ seed).collect()
}

fn item() -> impl Strategy<Value = Item> {
    let times = (-1_000_000_000_i64..4_000_000_000, 0_u32..1_000_000_000);
    let rest = (prop::option::of(prop::collection::vec(any::<u8>(), 0..200)), any::<bool>(), any::<bool>());
    (any::<usize>(), name(), thing(), 0_u32..=0o7777, (0_u32..70_000, 0_u32..70_000), times, rest).prop_map(
        |(parent, name, thing, mode, owner, modified, (xattr, capability, acl))| Item {
            parent,
            name,
            thing,
            mode,
            owner,
            modified,
            xattr,
            capability,
            acl,
        },
    )
}

/// Two users and a mask, as the kernel has it (posix_acl_xattr.h): version 2, then tag, permissions, id.
fn acl(mode: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let permissions = |shift: u32| (mode >> shift & 7) as u16;
    for (tag, permissions, id) in [
        (0x01_u16, permissions(6), u32::MAX),
        (0x02, 5, 1234),
        (0x04, 4, u32::MAX),
        (0x10, permissions(3), u32::MAX),
        (0x20, permissions(0), u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `cap_net_raw+ep`, version 2 (linux/capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn grow(root: &Path, items: &[Item]) {
    let mut directories = vec![root.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Item)> = Vec::new();
    for item in items {
        let parent = &directories[item.parent % directories.len()];
        let path = parent.join(OsString::from_vec(item.name.clone()));
        if matches!(item.name.as_slice(), b"." | b"..")
            || path.symlink_metadata().is_ok()
            || path.as_os_str().len() > 3900
        {
            continue;
        }
        let special = |kind, device| rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::RUSR, device).unwrap();
        match &item.thing {
            Thing::File { contents, hole } => {
                let file = File::create(&path).unwrap();
                file.write_all_at(contents, *hole).unwrap();
                file.set_len(hole * 2 + contents.len() as u64).unwrap();
                files.push(path.clone());
            }
            Thing::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Thing::Symlink(target) => symlink(OsString::from_vec(target.clone()), &path).unwrap(),
            Thing::Link(which) => {
                if !files.is_empty() {
                    fs::hard_link(&files[which % files.len()], &path).unwrap();
                }
                continue;
            }
            Thing::Fifo => special(FileType::Fifo, 0),
            Thing::Socket => special(FileType::Socket, 0),
            Thing::Device(major, minor) => special(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)),
        }
        made.push((path, item));
    }
    // Directories last: what is made in them changes their times.
    for (path, item) in made.iter().rev() {
        let owner = (Some(Uid::from_raw(item.owner.0)), Some(Gid::from_raw(item.owner.1)));
        rustix::fs::chownat(rustix::fs::CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        if !matches!(item.thing, Thing::Symlink(_)) {
            fs::set_permissions(path, fs::Permissions::from_mode(item.mode)).unwrap();
        }
        if matches!(item.thing, Thing::File { .. } | Thing::Directory) {
            let set = |name: &str, value: &[u8]| {
                rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
            };
            if let Some(value) = &item.xattr {
                set("user.of.test", value);
                set("trusted.of.test", value);
            }
            if item.acl {
                set("system.posix_acl_access", &acl(item.mode));
            }
            if item.capability && matches!(item.thing, Thing::File { .. }) {
                set("security.capability", &CAPABILITY);
            }
        }
        let time = Timespec { tv_sec: item.modified.0, tv_nsec: item.modified.1.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn blocks(tree: &Path) -> u64 {
    let own = tree.symlink_metadata().unwrap();
    let below =
        if own.is_dir() { fs::read_dir(tree).unwrap().flatten().map(|entry| blocks(&entry.path())).sum() } else { 0 };
    own.blocks() + below
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_comes_back(items in prop::collection::vec(item(), 0..60)) {
        if skips("every_tree_comes_back") { return Ok(()); }
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("tree")).unwrap();
        grow(&at("tree"), &items);
        let completion = back_up(&at("tree"), &at("backup"), &mut Quiet).unwrap();
        prop_assert!(completion.failures.is_empty(), "{:?}", completion.failures);
        prop_assert_eq!(differences(&at("tree"), &at("backup/data/tree")), "");
        let report = check(&at("backup"));
        prop_assert!(report.problems.is_empty(), "{:?}", report.problems);
        let restored = put_back(&[at("backup")], &at("other"));
        prop_assert!(restored.failures.is_empty() && restored.losses.is_empty(), "{:?}", restored);
        prop_assert_eq!(differences(&at("tree"), &at("other/tree")), "");
        // Holes are holes: a few blocks more or less are the file system's.
        let (before, after) = (blocks(&at("tree")), blocks(&at("other/tree")));
        prop_assert!(after <= before + 16 * items.len() as u64 + 64, "{before} blocks became {after}");
        // A second time there is nothing to do.
        let again = put_back(&[at("backup")], &at("other"));
        prop_assert!(again.failures.is_empty(), "{:?}", again);
        prop_assert_eq!(again.totals.kept, again.totals.files);
    }
}
