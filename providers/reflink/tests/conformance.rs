//! The contract's suite on real file systems in images on XFS and btrfs.

mod common;

use common::FileSystem;
use std::{io, path::Path};
use vss_lab::{needs, providers::strays};
use vss_model::Volume;
use vss_provider::{
    Provider,
    conformance::{Subject, assert_conforms},
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
        let stored = self.outer.iter().flat_map(FileSystem::store);
        // A loop device of a copy whose file is gone would keep the blocks.
        let places: Vec<&Path> = self.outer.iter().map(FileSystem::path).collect();
        Ok(stored.chain(strays(&places)?.iter().map(|device| device.display().to_string())).collect())
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
