//! What is refused, with the reason: volumes whose image cannot be cloned, whole or safely.

mod common;

use common::{FileSystem, provider};
use rustix::mount::MountFlags;
use std::{
    fs::{self, File},
    path::Path,
};
use vss_lab::{
    needs,
    providers::{request, run, volume, wait_until_let_go},
};
use vss_linux::loop_device::{AttachOptions, LoopDevice};
use vss_model::{CreationOptions, Volume, VssCode};
use vss_provider::{Provider, Support};
use vss_provider_reflink::{ReflinkOptions, ReflinkProvider};

/// The volume is refused with these words, by each call that can refuse it.
#[track_caller]
fn refuses(volume: &Volume, words: &[&str]) {
    let provider = provider();
    let Support::No(reason) = provider.is_volume_supported(volume).unwrap() else { panic!("it is supported") };
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    for error in [
        provider.forecast(volume, &CreationOptions::default()).map(drop).unwrap_err(),
        provider.begin_prepare(&request(volume)).map(drop).unwrap_err(),
        provider.writes_to(volume).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.code, VssCode::VolumeNotSupported, "{error}");
        assert!(error.message.contains(&reason), "{error}");
    }
}

#[test]
fn what_lies_in_no_image_is_refused() {
    needs!("what_lies_in_no_image_is_refused", "btrfs", "xfs");
    refuses(&volume(Path::new("/proc")), &["it is proc", "ext4 and xfs"]);
    let outer = FileSystem::outer("btrfs", 256);
    refuses(&outer.volume(), &["it is btrfs"]);
    // As if it lay on a disk: a loop device of another number is none.
    let mut on_disk = outer.volume();
    on_disk.fs_type = "ext4".to_owned();
    refuses(&on_disk, &["no loop device"]);
}

#[test]
fn a_file_system_that_shares_no_blocks_is_refused() {
    needs!("a_file_system_that_shares_no_blocks_is_refused", "xfs", "ext4");
    let outer = FileSystem::outer("ext4", 100);
    let inner = outer.inner("ext4", "image one", 32);
    refuses(&inner.volume(), &["image one", "lies on ext4, whose files cannot share blocks"]);
    drop(inner);
    let outer = FileSystem::outer_with("xfs", 400, &["-m", "reflink=0"]);
    let inner = outer.inner("ext4", "one", 32);
    refuses(&inner.volume(), &["made without reflink"]);
}

#[test]
fn an_image_that_is_not_the_volumes_alone_is_refused() {
    needs!("an_image_that_is_not_the_volumes_alone_is_refused", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let provider = provider();
    assert_eq!(provider.is_volume_supported(&inner.volume()).unwrap(), Support::Yes);

    // The same file, by another of its names.
    let link = outer.path().join("link");
    fs::hard_link(&inner.image, &link).unwrap();
    let options = AttachOptions { autoclear: true, read_only: true, ..Default::default() };
    let second = LoopDevice::attach(&link, options).unwrap();
    refuses(&inner.volume(), &["attached to", &second.path().to_string_lossy()]);
    drop(second);
    wait_until_let_go(&link);
    assert_eq!(provider.is_volume_supported(&inner.volume()).unwrap(), Support::Yes);

    let moved = outer.path().join("moved");
    fs::rename(&inner.image, &moved).unwrap();
    assert_eq!(provider.is_volume_supported(&inner.volume()).unwrap(), Support::Yes, "the kernel knows its new name");
    fs::remove_file(&moved).unwrap();
    refuses(&inner.volume(), &["deleted or moved"]);
    // What has the name now is another file.
    File::create(outer.path().join("moved (deleted)")).unwrap();
    refuses(&inner.volume(), &["is not the file any more"]);
}

#[test]
fn a_loop_device_that_shows_a_part_of_a_file_is_refused() {
    needs!("a_loop_device_that_shows_a_part_of_a_file_is_refused", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let image = outer.path().join("image");
    File::create_new(&image).unwrap().set_len(33 << 20).unwrap();
    let options = AttachOptions { autoclear: true, offset: 1 << 20, ..Default::default() };
    let device = LoopDevice::attach(&image, options).unwrap();
    run("mkfs.ext4", |command| {
        command.args(["-q", "-F"]).arg(device.path());
    });
    let point = outer.beside("part");
    fs::create_dir(&point).unwrap();
    rustix::mount::mount(device.path(), &point, "ext4", MountFlags::empty(), None).unwrap();
    let volume = volume(&point);
    refuses(&volume, &["only a part"]);
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_file_system_on_two_devices_is_refused() {
    needs!("a_file_system_on_two_devices_is_refused", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 1000);
    let image = outer.path().join("log");
    File::create_new(&image).unwrap().set_len(64 << 20).unwrap();
    let log = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
    let name = log.path().to_str().unwrap();
    let inner = outer.inner_with("xfs", "one", 320, &["-l", &format!("logdev={name}")], &format!("logdev={name}"));
    refuses(&inner.volume(), &["its log lies on another device"]);
    drop(inner);

    run("mkfs.ext4", |command| {
        command.args(["-q", "-F", "-b", "4096", "-O", "journal_dev"]).arg(log.path());
    });
    let journal = format!("device={name}");
    let inner = outer.inner_with("ext4", "two", 64, &["-b", "4096", "-J", &journal], "");
    refuses(&inner.volume(), &["its journal lies on another device"]);
}

#[test]
fn an_outer_file_system_with_too_little_room_is_refused() {
    needs!("an_outer_file_system_with_too_little_room_is_refused", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = outer.inner("ext4", "one", 32);
    let greedy = ReflinkProvider::new(ReflinkOptions { min_free_bytes: Some(1 << 40) });
    let error = greedy.begin_prepare(&request(&inner.volume())).unwrap_err();
    assert_eq!(error.code, VssCode::InsufficientStorage);
    assert!(error.message.contains("1048576 MiB"), "{error}");
    assert_eq!(
        greedy.forecast(&inner.volume(), &CreationOptions::default()).unwrap_err(),
        error,
        "the forecast says the same"
    );
    outer.assert_nothing_left();
}
