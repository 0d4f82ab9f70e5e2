//! File systems in image files of the test's own: an outer one that shares blocks, and volumes in images on it; undone when
//! they are dropped.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use vss_linux::{
    freeze,
    loop_device::{AttachOptions, LoopDevice},
};
use vss_model::Volume;
use vss_provider::StoredCopy;
use vss_provider_reflink::{ReflinkOptions, ReflinkProvider};

/// A file system in an image: outer or inner.
pub(crate) struct FileSystem {
    pub(crate) kind: &'static str,
    point: PathBuf,
    pub(crate) image: PathBuf,
    device: Option<LoopDevice>,
    _directory: Option<TempDir>,
}

impl FileSystem {
    /// An outer one of `size_mib` MiB in the directory for temporary files.
    pub(crate) fn outer(kind: &'static str, size_mib: u64) -> Self {
        Self::outer_with(kind, size_mib, &[])
    }

    /// An outer one, made with more options of mkfs.
    pub(crate) fn outer_with(kind: &'static str, size_mib: u64, options: &[&str]) -> Self {
        let directory = TempDir::with_prefix("vss-reflink-").unwrap();
        let image = directory.path().join("image");
        let point = directory.path().join("outer");
        let mut made = Self::make(kind, &image, &point, size_mib, options, "");
        made._directory = Some(directory);
        made
    }

    /// A volume whose image `name` lies on this file system.
    pub(crate) fn inner(&self, kind: &'static str, name: &str, size_mib: u64) -> Self {
        self.inner_with(kind, name, size_mib, &[], "")
    }

    /// A volume, made with more options of mkfs and of mount.
    pub(crate) fn inner_with(
        &self,
        kind: &'static str,
        name: &str,
        size_mib: u64,
        options: &[&str],
        data: &str,
    ) -> Self {
        let point = self.point.with_file_name(format!("{name}-mount"));
        Self::make(kind, &self.point.join(name), &point, size_mib, options, data)
    }

    fn make(kind: &'static str, image: &Path, point: &Path, size_mib: u64, options: &[&str], data: &str) -> Self {
        File::create_new(image).unwrap().set_len(size_mib << 20).unwrap();
        vss_lab::providers::make(kind, image, options);
        let device = LoopDevice::attach(image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        fs::create_dir_all(point).unwrap();
        let data = CString::new(data).unwrap();
        rustix::mount::mount(device.path(), point, kind, MountFlags::empty(), Some(data.as_c_str())).unwrap();
        Self { kind, point: point.to_owned(), image: image.to_owned(), device: Some(device), _directory: None }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Its loop device.
    pub(crate) fn device(&self) -> &Path {
        self.device.as_ref().unwrap().path()
    }

    /// A directory beside its mount point, for a test's own use.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.point.with_file_name(name)
    }

    /// It as a volume.
    pub(crate) fn volume(&self) -> Volume {
        vss_lab::providers::volume(&self.point)
    }

    /// What lies in `.vss`, sorted; `.vss` itself when it is empty.
    pub(crate) fn store(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.point.join(".vss")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        if names.is_empty() { vec![".vss".to_owned()] } else { names }
    }

    /// The file of a copy that lies on this file system.
    pub(crate) fn copy(&self, copy: &StoredCopy) -> PathBuf {
        self.point.join(format!(".vss/{}.image", copy.shadow_id))
    }

    /// No copy, no `.vss`, no loop device of a copy.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.store(), Vec::<String>::new());
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = File::open(&self.point).map(freeze::thaw);
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
    }
}

/// The loop devices that are attached to one of these copies.
pub(crate) fn attached_to(copies: &[StoredCopy]) -> Vec<PathBuf> {
    let names: Vec<String> = copies.iter().map(|copy| copy.shadow_id.to_string()).collect();
    let attached = vss_linux::loop_device::attached().unwrap();
    let is_theirs = |image: &Path| names.iter().any(|name| image.to_string_lossy().contains(name));
    attached.into_iter().filter(|(_, image)| is_theirs(image)).map(|(device, _)| device).collect()
}

/// The provider under test.
pub(crate) fn provider() -> ReflinkProvider {
    ReflinkProvider::new(ReflinkOptions::default())
}
