//! Free space and places of files as real file systems tell them, on loop devices of the test's own.

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};
use vss_linux::{
    block_device, fiemap, freeze,
    fsmap::{self, Owner, SpaceMap},
    loop_device::{AttachOptions, LoopDevice},
    reflink,
};

/// A mounted file system; undone when it is dropped.
struct Mounted {
    place: PathBuf,
    device: LoopDevice,
}

impl Mounted {
    fn new(kind: &str, mib: u64, options: &[&str]) -> Option<Self> {
        let name = options.concat().replace(['-', '='], "");
        let place = std::env::temp_dir().join(format!("vss-linux-maps-{}-{kind}{name}", std::process::id()));
        fs::create_dir_all(place.join("on")).unwrap();
        let image = place.join("image");
        File::create_new(&image).unwrap().set_len(mib << 20).unwrap();
        let quiet: &[&str] = if kind == "ext4" { &["-q", "-F"] } else { &["-q", "-f"] };
        let made = Command::new(format!("mkfs.{kind}")).args(quiet).args(options).arg(&image).status();
        if !rustix::process::geteuid().is_root() || !made.is_ok_and(|status| status.success()) {
            println!("SKIPPED: maps of {kind}: needs root and mkfs.{kind}");
            fs::remove_dir_all(&place).unwrap();
            return None;
        }
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        rustix::mount::mount(device.path(), place.join("on"), kind, MountFlags::empty(), None).unwrap();
        Some(Self { place, device })
    }

    fn top(&self) -> File {
        File::open(self.place.join("on")).unwrap()
    }

    fn free(&self) -> u64 {
        let mut free = 0;
        let mut end = 0;
        SpaceMap::default()
            .each(self.top(), |owner, run| {
                if owner != Owner::Nobody {
                    return;
                }
                assert!(run.start >= end && run.start < run.end, "{run:?} after {end}");
                end = run.end;
                free += run.end - run.start;
            })
            .unwrap();
        assert!(end <= block_device::size(File::open(self.device.path()).unwrap()).unwrap());
        free
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.place.join("on"), UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Free blocks as the block bitmaps on the device have them.
fn free_on_disk(device: &Path) -> u64 {
    let output = Command::new("dumpe2fs").arg(device).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let number =
        |name: &str| -> u64 { text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap() };
    let mut free = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for run in line.split(", ").filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            free += last.parse::<u64>().unwrap() - first.parse::<u64>().unwrap() + 1;
        }
    }
    free * number("Block size:")
}

#[test]
fn ext4_with_groups_that_are_wholly_in_use_hides_none() {
    for options in [["-b", "1024"], ["-b", "4096"]] {
        let Some(mounted) = Mounted::new("ext4", 256, &options) else { return };
        // Several groups of 8 MiB (1 KiB blocks) or one of 128 MiB have no free block any more.
        let file = File::create(mounted.place.join("on/large")).unwrap();
        let data = vec![1_u8; 1 << 20];
        (0..190).for_each(|mib| file.write_all_at(&data, mib << 20).unwrap());
        // With it goes what is reserved for its growth, in memory only.
        drop(file);
        freeze::sync(mounted.top()).unwrap();
        let told = mounted.free();
        assert!(told <= 64 << 20, "{told} free bytes");
        // Also while it is frozen, and then the bitmaps are on the device.
        freeze::freeze(mounted.top()).unwrap();
        let (frozen, on_disk) = (mounted.free(), free_on_disk(mounted.device.path()));
        freeze::thaw(mounted.top()).unwrap();
        assert_eq!((frozen, told), (on_disk, on_disk), "{options:?}");
    }
}

#[test]
fn xfs_tells_what_is_free_while_it_is_frozen() {
    let Some(mounted) = Mounted::new("xfs", 320, &[]) else { return };
    let empty = mounted.free();
    let file = File::create(mounted.place.join("on/large")).unwrap();
    let data = vec![1_u8; 1 << 20];
    (0..100).for_each(|mib| file.write_all_at(&data, mib << 20).unwrap());
    drop(file);
    freeze::sync(mounted.top()).unwrap();
    freeze::freeze(mounted.top()).unwrap();
    let filled = mounted.free();
    freeze::thaw(mounted.top()).unwrap();
    assert!((99 << 20..140 << 20).contains(&(empty - filled)), "{empty} - {filled}");
}

#[test]
fn xfs_with_a_reverse_mapping_names_each_owner_and_none_that_was_deleted() {
    for (option, tells) in [("rmapbt=1", true), ("rmapbt=0", false)] {
        let Some(mounted) = Mounted::new("xfs", 400, &["-m", option]) else { return };
        assert_eq!(reflink::xfs_tells_owners(mounted.top()).unwrap(), tells);
        let path = |name: &str| mounted.place.join("on").join(name);
        let file = File::options().read(true).write(true).create_new(true).open(path("file")).unwrap();
        // Every other page, so that it takes a while to free them.
        (0..4_000).for_each(|number| file.write_all_at(&[7; 4096], number * 8192).unwrap());
        let copy = File::options().read(true).write(true).create_new(true).open(path("copy")).unwrap();
        reflink::clone(&file, &copy).unwrap();
        freeze::sync(mounted.top()).unwrap();
        assert!(fiemap::pieces(&copy).unwrap().iter().all(|piece| piece.is_shared));
        let owned = |inode: u64| {
            let mut bytes = 0;
            let add = |owner, run: std::ops::Range<u64>| {
                bytes += if owner == Owner::File(inode) { run.end - run.start } else { 0 }
            };
            SpaceMap::default().each(mounted.top(), add).unwrap();
            bytes
        };
        let inodes = [&file, &copy].map(|file| file.metadata().unwrap().ino());
        let least = if tells { 4_000 * 4096 } else { 0 };
        assert!(inodes.map(owned).iter().all(|bytes| (least..=least * 3).contains(bytes)), "{:?}", inodes.map(owned));
        drop(copy);
        fs::remove_file(path("copy")).unwrap();
        fsmap::end_deletions(mounted.top()).unwrap();
        assert_eq!(owned(inodes[1]), 0);
        assert!(fiemap::pieces(&file).unwrap().iter().all(|piece| !piece.is_shared));
    }
}

#[test]
fn each_mounting_has_a_number_of_its_own() {
    for kind in ["ext4", "xfs"] {
        let Some(mounted) = Mounted::new(kind, 320, &["-L", "mounting"]) else { return };
        let (device, place) = (fs::metadata(mounted.device.path()).unwrap().rdev(), mounted.place.join("on"));
        let first = block_device::mounting(device).unwrap();
        // It is mounted once more, and stays mounted.
        rustix::mount::mount_bind(&place, &place).unwrap();
        rustix::mount::unmount(&place, UnmountFlags::empty()).unwrap();
        assert_eq!(block_device::mounting(device).unwrap(), first);
        rustix::mount::unmount(&place, UnmountFlags::empty()).unwrap();
        assert!(block_device::mounting(device).is_err());
        rustix::mount::mount(mounted.device.path(), &place, kind, MountFlags::empty(), None).unwrap();
        assert!(block_device::mounting(device).unwrap() > first);
        assert!(!block_device::is_mapped(device).unwrap());
    }
}

#[test]
fn a_file_is_where_its_pieces_say() {
    for kind in ["ext4", "xfs"] {
        let Some(mounted) = Mounted::new(kind, 320, &[]) else { return };
        let file = File::create(mounted.place.join("on/file")).unwrap();
        // Every other page, so that there are more pieces than the kernel tells in one call.
        let page = |number: u64| vec![(number % 251) as u8 + 1; 4096];
        (0..1200).for_each(|number| file.write_all_at(&page(number), number * 8192).unwrap());
        let pieces = fiemap::pieces(&file).unwrap();
        assert_eq!(fiemap::count(&file).unwrap() as usize, pieces.len());
        freeze::sync(mounted.top()).unwrap();
        let device = File::open(mounted.device.path()).unwrap();
        let mut seen = 0;
        for piece in &pieces {
            let physical = piece.physical.clone().unwrap();
            assert_eq!(physical.end - physical.start, piece.logical.end - piece.logical.start);
            let mut found = vec![0; 4096];
            for at in
                (piece.logical.start..piece.logical.end).step_by(4096).filter(|at| at % 8192 == 0 && *at < 1200 * 8192)
            {
                device.read_exact_at(&mut found, physical.start + at - piece.logical.start).unwrap();
                assert!(found == page(at / 8192), "{kind}: page {at}");
                seen += 1;
            }
        }
        assert_eq!(seen, 1200, "{kind}: {} pieces", pieces.len());
    }
}
