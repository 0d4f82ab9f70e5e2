//! The contract's suite on real file systems, with images on file systems that share blocks, on one that does not, and on the
//! volume itself.

mod common;

use common::{FileSystem, Instance, needs, stored};
use std::{
    io,
    path::{Path, PathBuf},
};
use vss_lab::providers::strays;
use vss_model::Volume;
use vss_provider::{
    Provider,
    conformance::{Subject, assert_conforms},
};

struct MirrorSubject {
    instance: Instance,
    volumes: Vec<FileSystem>,
    _storage: Option<FileSystem>,
}

impl MirrorSubject {
    fn new(volumes: Vec<FileSystem>, storage: Option<FileSystem>) -> Self {
        let instance = storage.as_ref().map_or_else(Instance::new, Instance::with_storage);
        Self { instance, volumes, _storage: storage }
    }
}

impl Subject for MirrorSubject {
    fn provider(&self) -> Box<dyn Provider> {
        Box::new(self.instance.provider())
    }

    fn volumes(&self) -> Vec<Volume> {
        self.volumes.iter().map(FileSystem::volume).collect()
    }

    fn leftovers(&self) -> io::Result<Vec<String>> {
        let mut places: Vec<PathBuf> = vec![self.instance.place().to_owned()];
        places.extend(self.volumes.iter().map(|volume| volume.path().to_owned()));
        let left: Vec<String> = places.iter().flat_map(|place| stored(place)).collect();
        // A loop device of a copy whose file is gone would keep the blocks.
        let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
        Ok(left.into_iter().chain(strays(&places)?.iter().map(|device| device.display().to_string())).collect())
    }
}

#[test]
fn ext4_with_images_on_xfs_conforms() {
    needs!("ext4_with_images_on_xfs_conforms", "ext4", "xfs");
    let volumes = vec![FileSystem::new("ext4", 48, &[]), FileSystem::new("ext4", 48, &["-b", "1024"])];
    assert_conforms(&MirrorSubject::new(volumes, Some(FileSystem::new("xfs", 600, &[]))));
}

#[test]
fn xfs_with_images_on_ext4_conforms() {
    needs!("xfs_with_images_on_ext4_conforms", "ext4", "xfs");
    let volumes = vec![FileSystem::new("xfs", 300, &[]), FileSystem::new("xfs", 300, &[])];
    assert_conforms(&MirrorSubject::new(volumes, Some(FileSystem::new("ext4", 600, &[]))));
}

#[test]
fn xfs_with_images_on_itself_conforms() {
    needs!("xfs_with_images_on_itself_conforms", "xfs");
    // Images share their blocks on one of them.
    let volumes =
        ["rmapbt=0", "rmapbt=1"].map(|option| FileSystem::new("xfs", 500, &["-m", option])).into_iter().collect();
    let mut subject = MirrorSubject::new(volumes, None);
    // On tmpfs, where no image can lie.
    subject.instance = Instance::in_memory();
    assert_conforms(&subject);
}
