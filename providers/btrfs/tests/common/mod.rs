//! A btrfs file system of the test's own: sparse images, loop devices, mounts; undone when it is dropped.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use vss_lab::providers::run;
use vss_linux::{
    btrfs,
    loop_device::{AttachOptions, LoopDevice},
    mountinfo,
};
use vss_model::{Context, SetId, ShadowId, Volume, VolumeId, VssError};
use vss_provider::{CommittedCopy, PrepareRequest, Provider, StoredCopy};
use vss_provider_btrfs::{BtrfsOptions, BtrfsProvider};

/// One btrfs file system on one or more loop devices.
pub(crate) struct Btrfs {
    mounts: Vec<PathBuf>,
    devices: Vec<LoopDevice>,
    directory: TempDir,
}

impl Btrfs {
    /// An empty one of `size_mib` MiB, its top level mounted at [`Btrfs::top`].
    pub(crate) fn new(size_mib: u64) -> Self {
        Self::on_devices(1, size_mib)
    }

    /// One on several devices of `size_mib` MiB each.
    pub(crate) fn on_devices(count: usize, size_mib: u64) -> Self {
        let directory = TempDir::with_prefix("vss-btrfs-").unwrap();
        let mut devices = Vec::new();
        for number in 0..count {
            let image = directory.path().join(format!("image{number}"));
            File::create_new(&image).unwrap().set_len(size_mib << 20).unwrap();
            devices.push(LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap());
        }
        let paths = devices.iter().map(LoopDevice::path);
        run("mkfs.btrfs", |command| {
            command.args(["-q", "-f", "-K"]).args(paths);
        });
        let mut made = Self { mounts: Vec::new(), devices, directory };
        made.mount("top", "subvolid=5");
        made
    }

    /// Mounts it again at `name` with `options`, for example `subvol=a`.
    pub(crate) fn mount(&mut self, name: &str, options: &str) -> PathBuf {
        let point = self.directory.path().join(name);
        fs::create_dir_all(&point).unwrap();
        let more = self.devices[1..].iter().map(|device| format!(",device={}", device.path().display()));
        let options = CString::new(options.to_owned() + &more.collect::<String>()).unwrap();
        let device = self.devices[0].path();
        rustix::mount::mount(device, &point, "btrfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        self.mounts.push(point.clone());
        point
    }

    /// Where the top level is mounted.
    pub(crate) fn top(&self) -> PathBuf {
        self.directory.path().join("top")
    }

    /// Its first device.
    pub(crate) fn device(&self) -> &Path {
        self.devices[0].path()
    }

    /// Makes a subvolume, by its path below the top level.
    pub(crate) fn subvolume(&self, path: &str) {
        let path = self.top().join(path);
        run("btrfs", |command| {
            command.args(["-q", "subvolume", "create"]).arg(path);
        });
    }

    /// Deletes a subvolume, by its path below the top level.
    pub(crate) fn delete_subvolume(&self, path: &str) {
        let path = self.top().join(path);
        run("btrfs", |command| {
            command.args(["-q", "subvolume", "delete"]).arg(path);
        });
    }

    /// A directory beside its mounts, for a test's own use.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Unmounts it everywhere; an error when somebody still uses it.
    pub(crate) fn unmount(&mut self) -> std::io::Result<()> {
        while let Some(point) = self.mounts.last() {
            rustix::mount::unmount(point, UnmountFlags::empty())?;
            self.mounts.pop();
        }
        Ok(())
    }

    /// What lies in `.vss`, sorted; `.vss` itself when it is empty.
    pub(crate) fn store(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.top().join(".vss")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        if names.is_empty() { vec![".vss".to_owned()] } else { names }
    }

    /// No copy, no part of one, no `.vss`.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.store(), Vec::<String>::new());
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        for point in self.mounts.drain(..).rev() {
            let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
        }
    }
}

/// True when the file system is mounted nowhere any more. A mount namespace that another test made holds a copy of every
/// mount until it ends, so this waits a little.
pub(crate) fn is_unmounted(uuid: &str) -> bool {
    let sysfs = Path::new("/sys/fs/btrfs").join(uuid);
    let deadline = Instant::now() + Duration::from_secs(30);
    while sysfs.exists() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// The volume that is mounted at `mount_point`.
pub(crate) fn volume(mount_point: &Path) -> Volume {
    let mounts = mountinfo::mounts().unwrap();
    let entry = mounts.iter().rev().find(|entry| entry.mount_point == mount_point).unwrap();
    let directory = File::open(mount_point).unwrap();
    let (uuid, subvolume) = if entry.fs_type == "btrfs" {
        (btrfs::uuid(&directory).unwrap().to_string(), Some(btrfs::subvolume_id(&directory).unwrap()))
    } else {
        (String::new(), None)
    };
    Volume {
        id: VolumeId::subvolume(&uuid, subvolume.unwrap_or(0)),
        mount_point: mount_point.to_owned(),
        fs_type: entry.fs_type.clone(),
        source: entry.source.clone(),
        uuid,
        subvolume,
        root: "/".into(),
        device_number: entry.device_number(),
        mount_id: entry.mount_id,
    }
}

/// The provider under test.
pub(crate) fn provider() -> BtrfsProvider {
    BtrfsProvider::new(BtrfsOptions::default())
}

/// BeginPrepare of a new set over `volumes`.
pub(crate) fn begin(provider: &dyn Provider, volumes: &[Volume], context: Context) -> (SetId, Vec<StoredCopy>) {
    let set_id = SetId::random();
    let request = |volume: &Volume| PrepareRequest {
        set_id,
        shadow_id: ShadowId::random(),
        volume: volume.clone(),
        context,
        options: vss_model::CreationOptions::default(),
    };
    (set_id, volumes.iter().map(|volume| provider.begin_prepare(&request(volume)).unwrap()).collect())
}

/// The phases up to Commit.
pub(crate) fn cut(provider: &dyn Provider, set_id: SetId) {
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    provider.commit(set_id).unwrap();
}

/// The phases after Commit.
pub(crate) fn finish(provider: &dyn Provider, set_id: SetId, copies: &mut [StoredCopy]) -> Vec<CommittedCopy> {
    let committed = provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    provider.post_final_commit(set_id).unwrap();
    for (copy, committed) in copies.iter_mut().zip(&committed) {
        copy.data.clone_from(&committed.data);
    }
    committed
}

/// A finished set over `volumes`.
pub(crate) fn create(provider: &dyn Provider, volumes: &[Volume]) -> (Vec<StoredCopy>, Vec<CommittedCopy>) {
    let (set_id, mut copies) = begin(provider, volumes, Context::AppRollback);
    cut(provider, set_id);
    let committed = finish(provider, set_id, &mut copies);
    (copies, committed)
}

/// A swap file in use, until it is dropped.
pub(crate) struct Swap(PathBuf);

impl Swap {
    /// None where swapon(8) does not work.
    pub(crate) fn on(file: &Path) -> Option<Self> {
        let done = Command::new("swapon").arg(file).output().ok()?;
        done.status.success().then(|| Self(file.to_owned()))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).output();
    }
}

/// EndPrepare with nobody watching, as a phase like the others.
pub(crate) fn end_prepare(provider: &BtrfsProvider, set_id: SetId) -> Result<(), VssError> {
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched)
}
