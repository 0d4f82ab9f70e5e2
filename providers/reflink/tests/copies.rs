//! What is in a copy, and what becomes of it: every block, whole file systems, writers that mend, sealing, deleting.

mod common;

use common::{FileSystem, attached_to, provider};
use rustix::fs::IFlags;
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use vss_lab::{
    needs,
    providers::{
        after_power_cut, assert_clean, begin, create, cut, finish, held, request, run, shown, strays, try_held, volume,
    },
};
use vss_linux::mount;
use vss_model::VssCode;
use vss_provider::{Deletion, Presence, Provider, Support, failure::failed};
use vss_provider_reflink::{ReflinkOptions, ReflinkProvider};

fn digest(path: &Path) -> Vec<u8> {
    run("sha256sum", |command| {
        command.stdin(File::open(path).unwrap());
    })
    .stdout
}

/// Files of many sizes, some of them deleted again.
fn fill(place: &Path, mib: usize) {
    for number in 0..mib {
        let mut file = File::create(place.join(format!("file{number}"))).unwrap();
        file.write_all(&vec![number as u8 | 1; 1 << 20]).unwrap();
    }
    for number in (0..mib).step_by(3) {
        fs::remove_file(place.join(format!("file{number}"))).unwrap();
    }
}

#[test]
fn a_copy_has_every_block_that_was_frozen() {
    needs!("a_copy_has_every_block_that_was_frozen", "xfs", "btrfs", "ext4");
    for (outer, inner, size) in [("xfs", "ext4", 64), ("xfs", "xfs", 300), ("btrfs", "ext4", 64), ("btrfs", "xfs", 300)]
    {
        let outer = FileSystem::outer(outer, 800);
        let inner = outer.inner(inner, "one", size);
        fill(inner.path(), 24);
        let provider = provider();
        let volume = inner.volume();
        let (set_id, copies) = begin(&provider, std::slice::from_ref(&volume));
        provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
        provider.pre_commit(set_id).unwrap();
        // Through the loop device, as the file system itself would read.
        let frozen = held(std::slice::from_ref(&volume), || {
            provider.commit(set_id).unwrap();
            digest(&inner.image)
        });
        fill(inner.path(), 30);
        assert_eq!(digest(&outer.copy(&copies[0])), frozen, "{} on {}", inner.kind, outer.kind);
        assert_ne!(digest(&inner.image), frozen);
        let before = fs::metadata(outer.copy(&copies[0])).unwrap().permissions().mode() & 0o777;
        assert_eq!(before, 0o600);
        finish(&provider, set_id);
        assert_clean(inner.kind, &outer.copy(&copies[0]));
        let sealed = digest(&outer.copy(&copies[0]));
        shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("shown"), |root| {
            let mut text = Vec::new();
            File::open(root.join("file1")).unwrap().read_to_end(&mut text).unwrap();
            assert!(text.len() == 1 << 20 && text.iter().all(|byte| *byte == 1));
            assert!(!root.join("file0").exists() && !root.join("file29").exists());
        });
        assert_eq!(digest(&outer.copy(&copies[0])), sealed, "showing a copy changes nothing in it");
        assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
        outer.assert_nothing_left();
        assert_eq!(strays(&[outer.path()]).unwrap(), Vec::<PathBuf>::new());
    }
}

#[test]
fn writers_mend_the_copy_and_then_it_is_sealed() {
    needs!("writers_mend_the_copy_and_then_it_is_sealed", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 800);
    for (kind, size) in [("ext4", 32), ("xfs", 300)] {
        let inner = outer.inner(kind, kind, size);
        fs::write(inner.path().join("scratch"), "x").unwrap();
        let provider = provider();
        let volumes = [inner.volume()];
        let (set_id, copies) = begin(&provider, &volumes);
        cut(&provider, set_id, &volumes);
        provider.post_commit(set_id).unwrap();
        provider.pre_final_commit(set_id).unwrap();
        let trees = provider.mount(&copies[0], true).unwrap();
        let mended = shown(&trees, &outer.beside("mended"), |root| {
            fs::remove_file(root.join("scratch")).unwrap();
            fs::write(root.join("label"), "mended").unwrap();
            // One that nobody closes before the seal.
            (File::open(root).unwrap(), File::create(root.join("late")).unwrap())
        });
        // While the set is made, it may be looked at too.
        shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("looked at"), |root| {
            assert!(root.join("label").exists() && File::create(root.join("new")).is_err());
        });
        drop(trees);
        let error = provider.post_final_commit(set_id).unwrap_err();
        assert!(error.code == VssCode::ProviderVeto && error.message.contains("open for writing"), "{error}");
        let (directory, late) = mended;
        drop(late);
        // It was not sealed meanwhile.
        let mode = fs::metadata(outer.copy(&copies[0])).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        provider.abort(set_id).unwrap();
        outer.assert_nothing_left();

        // A directory that a writer keeps is no trouble, and is of no use to it.
        let (set_id, again) = begin(&provider, &volumes);
        cut(&provider, set_id, &volumes);
        provider.post_commit(set_id).unwrap();
        provider.pre_final_commit(set_id).unwrap();
        let kept = shown(&provider.mount(&again[0], true).unwrap(), &outer.beside("kept"), |root| {
            fs::write(root.join("label"), "mended").unwrap();
            File::open(root).unwrap()
        });
        provider.post_final_commit(set_id).unwrap();
        let write = mount::create_beneath(&kept, Path::new("more"), rustix::fs::OFlags::WRONLY, rustix::fs::Mode::RUSR);
        assert_eq!(write.unwrap_err().raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
        drop((kept, directory));
        let file = File::open(outer.copy(&again[0])).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o400);
        assert!(rustix::fs::ioctl_getflags(&file).unwrap().contains(IFlags::IMMUTABLE));
        drop(file);
        assert_clean(kind, &outer.copy(&again[0]));
        shown(&provider.mount(&again[0], false).unwrap(), &outer.beside("shown"), |root| {
            assert_eq!(fs::read_to_string(root.join("label")).unwrap(), "mended");
        });
        assert_eq!(fs::read_to_string(inner.path().join("scratch")).unwrap(), "x", "the live volume is as it was");
        assert!(!inner.path().join("label").exists());
        provider.delete(&again[0]).unwrap();
        outer.assert_nothing_left();
    }
}

#[test]
fn a_copy_that_is_mounted_is_not_deleted() {
    needs!("a_copy_that_is_mounted_is_not_deleted", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let provider = provider();
    let copies = create(&provider, &[inner.volume()]);
    shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("shown"), |root| {
        let error = provider.delete(&copies[0]).unwrap_err();
        assert!(error.code == VssCode::ProviderVeto && error.message.contains(&*root.to_string_lossy()), "{error}");
        assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Present);
        // A copy is no volume: nobody copies it.
        let support = provider.is_volume_supported(&volume(root)).unwrap();
        assert_eq!(support, Support::No("it is a shadow copy itself".to_owned()));
    });
    // Two at once, each with a loop device of its own, and both are gone with their mounts.
    let trees = [provider.mount(&copies[0], false).unwrap(), provider.mount(&copies[0], false).unwrap()];
    assert_eq!(attached_to(&copies).len(), 2);
    drop(trees);
    assert_eq!(strays(&[outer.path()]).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    outer.assert_nothing_left();
}

#[test]
fn a_partition_of_an_image_is_a_volume() {
    needs!("a_partition_of_an_image_is_a_volume", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let image = outer.path().join("disk");
    File::create_new(&image).unwrap().set_len(70 << 20).unwrap();
    // A table of two partitions of 32 MiB (an MBR: type, first sector, number of sectors).
    let mut table = [0; 512];
    for (entry, first) in [(446, 2048_u32), (462, 2048 + 65536)] {
        table[entry + 4] = 0x83;
        table[entry + 8..entry + 12].copy_from_slice(&first.to_le_bytes());
        table[entry + 12..entry + 16].copy_from_slice(&65536_u32.to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    File::options().write(true).open(&image).unwrap().write_all(&table).unwrap();
    let device = run("losetup", |command| {
        command.args(["--find", "--show", "--partscan"]).arg(&image);
    });
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    struct Detach(String);
    impl Drop for Detach {
        fn drop(&mut self) {
            run("losetup", |command| {
                command.arg("-d").arg(&self.0);
            });
        }
    }
    let _detach = Detach(device.clone());
    let partition = format!("{device}p2");
    if !Path::new(&partition).exists() {
        // A kernel that reads no such tables may still be told.
        let _ = std::process::Command::new("addpart").args([&*device, "2", "67584", "65536"]).output();
    }
    if !Path::new(&partition).exists() {
        println!("SKIPPED: a_partition_of_an_image_is_a_volume: the kernel shows no partitions of loop devices");
        return;
    }
    run("mkfs.ext4", |command| {
        command.args(["-q", "-F"]).arg(&partition);
    });
    let point = outer.beside("partition");
    fs::create_dir(&point).unwrap();
    rustix::mount::mount(&*partition, &point, "ext4", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(point.join("file"), "old").unwrap();
    let provider = provider();
    let copies = create(&provider, &[volume(&point)]);
    fs::write(point.join("file"), "new").unwrap();
    shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("shown"), |root| {
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "old");
    });
    provider.delete(&copies[0]).unwrap();
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    outer.assert_nothing_left();
}

#[test]
fn an_image_without_checksums_in_a_subvolume_is_cloned() {
    needs!("an_image_without_checksums_in_a_subvolume_is_cloned", "btrfs", "ext4");
    let outer = FileSystem::outer("btrfs", 400);
    run("btrfs", |command| {
        command.args(["-q", "subvolume", "create"]).arg(outer.path().join("sub"));
    });
    run("chattr", |command| {
        command.arg("+C").arg(outer.path().join("sub"));
    });
    let inner = outer.inner("ext4", "sub/one", 32);
    assert!(rustix::fs::ioctl_getflags(File::open(&inner.image).unwrap()).unwrap().contains(IFlags::NOCOW));
    fs::write(inner.path().join("file"), "old").unwrap();
    let provider = provider();
    let copies = create(&provider, &[inner.volume()]);
    assert_eq!(outer.store(), [format!("{}.image", copies[0].shadow_id)], "at the top, not in the subvolume");
    assert!(!outer.path().join("sub/.vss").exists());
    shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("shown"), |root| {
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "old");
    });
    provider.delete(&copies[0]).unwrap();
    outer.assert_nothing_left();
}

#[test]
fn a_power_cut_leaves_what_was_made_and_brings_nothing_back() {
    needs!("a_power_cut_leaves_what_was_made_and_brings_nothing_back", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let provider = provider();
    let volumes = [inner.volume()];
    let kept = create(&provider, &volumes).remove(0);
    let deleted = create(&provider, &volumes).remove(0);
    let are_there = || {
        after_power_cut("xfs", &outer.image, &outer.beside("cut"), |top| {
            [&kept, &deleted].map(|copy| top.join(format!(".vss/{}.image", copy.shadow_id)).exists())
        })
    };
    assert_eq!(are_there(), [true, true]);
    assert_eq!(provider.delete(&deleted).unwrap(), Deletion::Deleted);
    assert_eq!(are_there(), [true, false]);
    assert_eq!(provider.delete(&kept).unwrap(), Deletion::Deleted);
    assert!(after_power_cut("xfs", &outer.image, &outer.beside("cut"), |top| !top.join(".vss").exists()));
}

#[test]
fn a_copy_has_no_copies_in_it() {
    needs!("a_copy_has_no_copies_in_it", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 1600);
    let middle = outer.inner("xfs", "middle", 600);
    let inner = middle.inner("ext4", "inner", 32);
    let provider = provider();
    let of_inner = create(&provider, &[inner.volume()]);
    assert_eq!(middle.store().len(), 1);
    let of_middle = create(&provider, &[middle.volume()]);
    shown(&provider.mount(&of_middle[0], false).unwrap(), &outer.beside("shown"), |root| {
        assert!(root.join("inner").exists() && !root.join(".vss").exists());
        // Of two file systems with one uuid the live one is meant.
        assert_eq!(provider.presence(&of_inner[0]).unwrap(), Presence::Present);
    });
    assert_clean("xfs", &outer.copy(&of_middle[0]));
    assert_eq!(provider.delete(&of_inner[0]).unwrap(), Deletion::Deleted);
    assert_eq!(provider.delete(&of_middle[0]).unwrap(), Deletion::Deleted);
    middle.assert_nothing_left();
    outer.assert_nothing_left();
}

#[test]
fn a_copy_that_is_whole_is_mounted_for_those_who_ask_for_it() {
    needs!("a_copy_that_is_whole_is_mounted_for_those_who_ask_for_it", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let provider = provider();
    let is_mounted = |hide: &str| {
        let volumes = [inner.volume()];
        let (set_id, copies) = begin(&provider, &volumes);
        cut(&provider, set_id, &volumes);
        provider.post_commit(set_id).unwrap();
        provider.pre_final_commit(set_id).unwrap();
        let is_mounted = !attached_to(&copies).is_empty();
        if !is_mounted {
            drop(provider.mount(&copies[0], false).unwrap());
            assert!(!attached_to(&copies).is_empty(), "it stays mounted until it is sealed");
        }
        provider.post_final_commit(set_id).unwrap();
        assert_clean("ext4", &outer.copy(&copies[0]));
        shown(&provider.mount(&copies[0], false).unwrap(), &outer.beside("shown"), |root| {
            assert!(!root.join(hide).exists());
        });
        provider.delete(&copies[0]).unwrap();
        is_mounted
    };
    assert!(!is_mounted("deleted"));
    // One that has to be mended is mounted in any case: of a file that was deleted while it is open something is left,
    let deleted = File::create(inner.path().join("deleted")).unwrap();
    fs::remove_file(inner.path().join("deleted")).unwrap();
    assert!(is_mounted("deleted"));
    drop(deleted);
    assert!(!is_mounted("deleted"));
    // and a store must not be seen in a copy.
    fs::create_dir(inner.path().join(".vss")).unwrap();
    assert!(is_mounted(".vss"));
    outer.assert_nothing_left();
}

#[test]
fn an_outer_file_system_that_is_away_is_told() {
    needs!("an_outer_file_system_that_is_away_is_told", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let provider = provider();
    let copies = create(&provider, &[inner.volume()]);
    drop(inner);
    rustix::mount::unmount(outer.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Unreachable);
    assert_eq!(provider.delete(&copies[0]).unwrap_err().code, VssCode::ObjectNotFound);
    assert_eq!(provider.mount(&copies[0], false).unwrap_err().code, VssCode::ObjectNotFound);
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount(outer.device(), outer.path(), "xfs", flags, None).unwrap();
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Present);
    drop(provider.mount(&copies[0], false).unwrap());
    let error = provider.delete(&copies[0]).unwrap_err();
    assert!(error.code == VssCode::ProviderVeto && error.message.contains("ead-only"), "{error}");
    rustix::mount::mount_remount(outer.path(), rustix::mount::MountFlags::empty(), "").unwrap();
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    outer.assert_nothing_left();
}

#[test]
fn a_store_that_is_full_leaves_nothing() {
    needs!("a_store_that_is_full_leaves_nothing", "xfs", "btrfs", "ext4");
    for kind in ["xfs", "btrfs"] {
        let outer = FileSystem::outer(kind, 320);
        let inner = outer.inner("ext4", "one", 64);
        fill(inner.path(), 16);
        let mut file = File::create(outer.path().join("filler")).unwrap();
        let block = vec![0x5a; 1 << 20];
        while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
        let volumes = [inner.volume()];
        let error = common::provider().begin_prepare(&request(&volumes[0])).unwrap_err();
        assert!(error.code == VssCode::InsufficientStorage && error.message.contains("16 MiB"), "{error}");
        // Without the guard: whatever the kernel says, nothing is left.
        let provider = ReflinkProvider::new(ReflinkOptions { min_free_bytes: Some(0) });
        let mut refused = 0;
        for _ in 0..4 {
            let (set_id, copies) = begin(&provider, &volumes);
            // On btrfs the volume itself may find no room to flush to.
            let cut =
                || try_held(&volumes, || provider.commit(set_id)).unwrap_or_else(|error| Err(failed("hold", &error)));
            let done = provider
                .end_prepare(set_id, &vss_provider::progress::Unwatched)
                .and_then(|()| provider.pre_commit(set_id))
                .and_then(|()| cut())
                .and_then(|()| provider.post_commit(set_id))
                .and_then(|_| provider.pre_final_commit(set_id))
                .and_then(|()| provider.post_final_commit(set_id));
            match done {
                Ok(()) => drop(provider.delete(&copies[0]).unwrap()),
                Err(error) => {
                    assert!(error.code.allowed_from_provider(), "{error}");
                    refused += 1;
                    provider.abort(set_id).unwrap();
                }
            }
            outer.assert_nothing_left();
        }
        println!("{kind}: {refused} of 4 sets refused on a full file system");
    }
}
