//! The contract's suite on real file systems, with images on file systems that share blocks, on one that does not, and on the
//! volume itself.

mod common;

use common::{FileSystem, Instance, needs, stored};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use vss_linux::loop_device::{attached, status};
use vss_model::Volume;
use vss_provider::{
    Provider,
    conformance::{Subject, assert_conforms},
    store,
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
        let left = places.iter().flat_map(|place| stored(place));
        let devices: Vec<u64> = places.iter().map(|place| Ok(fs::metadata(place)?.dev())).collect::<io::Result<_>>()?;
        // A loop device of a copy whose file is gone would keep the blocks.
        let is_of_copy = |device: &Path, image: &Path| {
            store::holds(image)
                && image.starts_with("/.vss")
                && status(device).is_ok_and(|status| devices.contains(&status.device))
        };
        let attached = attached()?.into_iter().filter(|(device, image)| is_of_copy(device, image));
        Ok(left.chain(attached.map(|(device, _)| device.display().to_string())).collect())
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
    let volumes = vec![FileSystem::new("xfs", 500, &[]), FileSystem::new("xfs", 500, &[])];
    let mut subject = MirrorSubject::new(volumes, None);
    // On tmpfs, where no image can lie.
    subject.instance = Instance::in_memory();
    assert_conforms(&subject);
}
