//! Reaching a copy's file system later: not mounted any more, on several devices, replaced by another one, read-only.

mod common;

use common::{Btrfs, begin, create, is_unmounted, provider, volume};
use rustix::mount::MountFlags;
use std::fs;
use vss_lab::{
    needs,
    providers::{run, shown},
};
use vss_model::{Context, VssCode};
use vss_provider::{Deletion, Presence, Provider};

#[test]
fn a_copy_does_not_keep_its_volume_mounted_and_is_found_without_a_mount() {
    needs!("a_copy_does_not_keep_its_volume_mounted_and_is_found_without_a_mount", "btrfs");
    let mut fs = Btrfs::new(160);
    fs.subvolume("vol");
    fs::write(fs.top().join("vol/file"), "old").unwrap();
    let volume = volume(&fs.mount("vol", "subvol=vol"));
    let uuid = volume.uuid.clone();
    let provider = provider();
    let (copies, _) = create(&provider, &[volume]);
    fs.unmount().unwrap();
    assert!(is_unmounted(&uuid), "something keeps the file system mounted");

    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Unreachable);
    assert!(is_unmounted(&uuid), "asking mounts the file system");
    shown(&provider.mount(&copies[0], false).unwrap(), &fs.beside("shown"), |root| {
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "old");
    });
    assert!(is_unmounted(&uuid), "showing keeps the file system mounted");
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    assert!(is_unmounted(&uuid), "deleting keeps the file system mounted");
    fs.mount("top", "subvolid=5");
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Gone);
    fs.assert_nothing_left();
}

#[test]
fn a_file_system_on_several_devices_is_found_by_all_of_them() {
    needs!("a_file_system_on_several_devices_is_found_by_all_of_them", "btrfs");
    let mut fs = Btrfs::on_devices(2, 160);
    let provider = provider();
    let volume = volume(&fs.top());
    let (copies, _) = create(&provider, std::slice::from_ref(&volume));
    fs.unmount().unwrap();
    assert!(is_unmounted(&volume.uuid));
    // As after a reboot without udev: the kernel has forgotten which devices belong together.
    run("btrfs", |command| {
        command.args(["device", "scan", "--forget"]).arg(fs.device());
    });
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    fs.mount("top", "subvolid=5");
    fs.assert_nothing_left();
}

#[test]
fn another_file_system_on_the_device_is_never_touched() {
    needs!("another_file_system_on_the_device_is_never_touched", "btrfs");
    let mut fs = Btrfs::new(160);
    let provider = provider();
    let volume = volume(&fs.top());
    let (copies, _) = create(&provider, std::slice::from_ref(&volume));
    fs.unmount().unwrap();
    assert!(is_unmounted(&volume.uuid));
    run("mkfs.btrfs", |command| {
        command.args(["-q", "-f", "-K"]).arg(fs.device());
    });
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Unreachable);
    assert_eq!(provider.delete(&copies[0]).unwrap_err().code, VssCode::ObjectNotFound);
    assert_eq!(provider.mount(&copies[0], false).unwrap_err().code, VssCode::ObjectNotFound);
    run("mkfs.ext4", |command| {
        command.args(["-q", "-F"]).arg(fs.device());
    });
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Unreachable);
}

#[test]
fn a_read_only_file_system_is_refused_and_stays_so() {
    needs!("a_read_only_file_system_is_refused_and_stays_so", "btrfs");
    let fs = Btrfs::new(160);
    let provider = provider();
    let (copies, _) = create(&provider, &[volume(&fs.top())]);
    rustix::mount::mount_remount(fs.top(), MountFlags::RDONLY, "").unwrap();
    let request = vss_provider::PrepareRequest {
        set_id: vss_model::SetId::random(),
        shadow_id: vss_model::ShadowId::random(),
        volume: volume(&fs.top()),
        context: Context::Backup,
        options: vss_model::CreationOptions::default(),
    };
    let error = provider.begin_prepare(&request).unwrap_err();
    assert!(error.code == VssCode::ProviderVeto && error.message.contains("read-only"), "{error}");
    let error = provider.delete(&copies[0]).unwrap_err();
    assert!(error.code == VssCode::ProviderVeto && error.message.contains("read-only"), "{error}");
    // Looking at a copy makes nothing writable either.
    assert_eq!(provider.presence(&copies[0]).unwrap(), Presence::Present);
    drop(provider.mount(&copies[0], false).unwrap());
    assert!(fs::write(fs.top().join("file"), "x").is_err());
    rustix::mount::mount_remount(fs.top(), MountFlags::empty(), "").unwrap();
    provider.delete(&copies[0]).unwrap();
}

#[test]
fn somebody_elses_directory_is_not_taken() {
    needs!("somebody_elses_directory_is_not_taken", "btrfs");
    let fs = Btrfs::new(160);
    fs::create_dir(fs.top().join(".vss")).unwrap();
    fs::write(fs.top().join(".vss/mine"), "x").unwrap();
    let provider = provider();
    let (set_id, _) = begin(&provider, &[volume(&fs.top())], Context::Backup);
    let error = provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap_err();
    assert!(error.code == VssCode::ProviderVeto && error.message.contains(".vss"), "{error}");
    provider.abort(set_id).unwrap();
    assert_eq!(fs.store(), ["mine"]);
}
