//! The contract's suite on real file systems in images on XFS and btrfs.

mod common;

use common::{FileSystem, needs};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};
use vss_linux::loop_device::{attached, status};
use vss_model::Volume;
use vss_provider::{
    Provider,
    conformance::{Subject, assert_conforms},
    store,
};

/// Volumes on one or two outer file systems; the inner ones go first.
struct ReflinkSubject {
    inner: Vec<FileSystem>,
    outer: Vec<FileSystem>,
}

impl Subject for ReflinkSubject {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(common::provider())
    }

    fn volumes(&self) -> Vec<Volume> {
        self.inner.iter().map(FileSystem::volume).collect()
    }

    fn leftovers(&self) -> io::Result<Vec<String>> {
        let devices: Vec<u64> =
            self.outer.iter().map(|outer| Ok(fs::metadata(outer.path())?.dev())).collect::<io::Result<_>>()?;
        // A loop device of a copy whose file is gone would keep the blocks.
        let is_of_copy = |device: &Path, image: &Path| {
            // No other is asked: its image may lie on a file system that does not answer.
            store::holds(image) && status(device).is_ok_and(|status| devices.contains(&status.device))
        };
        let attached = attached()?.into_iter().filter(|(device, image)| is_of_copy(device, image));
        let stored = self.outer.iter().flat_map(FileSystem::store);
        Ok(stored.chain(attached.map(|(device, _)| device.display().to_string())).collect())
    }
}

#[test]
fn xfs_in_images_on_xfs_conforms() {
    needs!("xfs_in_images_on_xfs_conforms", "xfs");
    let outer = FileSystem::outer("xfs", 1200);
    let inner = ["one", "two"].map(|name| outer.inner("xfs", name, 300)).into();
    assert_conforms(&ReflinkSubject { inner, outer: vec![outer] });
}

#[test]
fn ext4_in_images_on_xfs_conforms() {
    needs!("ext4_in_images_on_xfs_conforms", "xfs", "ext4");
    let outer = FileSystem::outer("xfs", 400);
    let inner = ["one", "two"].map(|name| outer.inner("ext4", name, 32)).into();
    assert_conforms(&ReflinkSubject { inner, outer: vec![outer] });
}

#[test]
fn ext4_in_images_on_btrfs_conforms() {
    needs!("ext4_in_images_on_btrfs_conforms", "btrfs", "ext4");
    let outer = FileSystem::outer("btrfs", 300);
    let inner = ["one", "two"].map(|name| outer.inner("ext4", name, 32)).into();
    assert_conforms(&ReflinkSubject { inner, outer: vec![outer] });
}

#[test]
fn volumes_on_two_kinds_of_file_systems_conform() {
    needs!("volumes_on_two_kinds_of_file_systems_conform", "xfs", "btrfs", "ext4");
    let outer = [FileSystem::outer("btrfs", 300), FileSystem::outer("xfs", 800)];
    let inner = vec![outer[0].inner("ext4", "one", 32), outer[1].inner("xfs", "two", 300)];
    assert_conforms(&ReflinkSubject { inner, outer: outer.into() });
}
