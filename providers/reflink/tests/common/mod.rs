//! File systems in image files of the test's own: an outer one that shares blocks, and volumes in images on it; undone when
//! they are dropped.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;
use vss_linux::{
    freeze,
    loop_device::{AttachOptions, LoopDevice},
    mount, mountinfo,
};
use vss_model::{Context, SetId, ShadowId, Volume, VolumeId};
use vss_provider::{CommittedCopy, MountedTree, PrepareRequest, Provider, StoredCopy};
use vss_provider_reflink::{ReflinkOptions, ReflinkProvider};

/// Why no such file systems can be made here, if so: for a test's SKIPPED line.
pub(crate) fn missing(kinds: &[&str]) -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices".to_owned());
    }
    kinds.iter().find_map(|kind| {
        if !known.lines().any(|line| line.trim() == *kind) {
            Some(format!("the kernel has no {kind}"))
        } else if Command::new(format!("mkfs.{kind}")).arg("-V").output().is_err() {
            Some(format!("needs mkfs.{kind}"))
        } else {
            None
        }
    })
}

/// Prints the SKIPPED line and returns from the test when something is missing.
macro_rules! needs {
    ($test:literal, $($kind:literal),+) => {
        if let Some(missing) = common::missing(&[$($kind),+]) {
            println!("SKIPPED: {}: {missing}", $test);
            return;
        }
    };
}
pub(crate) use needs;

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
        let quiet: &[&str] = if kind == "ext4" { &["-q", "-F", "-E", "nodiscard"] } else { &["-q", "-f", "-K"] };
        run(&format!("mkfs.{kind}"), |command| {
            command.args(quiet).args(options).arg(image);
        });
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
        volume(&self.point)
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

/// Runs a program; its failure is the test's.
pub(crate) fn run(program: &str, add: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(program);
    add(&mut command);
    let output = command.output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{program}: {said}");
    output
}

/// Checks that the file system in a copy is whole, by its own program.
#[track_caller]
pub(crate) fn assert_clean(kind: &str, copy: &Path) {
    if kind == "ext4" {
        run("e2fsck", |command| {
            command.arg("-fn").arg(copy);
        });
    } else {
        run("xfs_repair", |command| {
            command.arg("-n").arg("-f").arg(copy);
        });
    }
}

/// Mounts the trees of a copy at `place`, runs `look` there and unmounts them.
pub(crate) fn shown<T>(trees: &[MountedTree], place: &Path, look: impl FnOnce(&Path) -> T) -> T {
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = mount::unmount_detached(self.0);
        }
    }
    fs::create_dir_all(place).unwrap();
    mount::attach_at(&trees[0].mount, place).unwrap();
    let mounted = Mounted(place);
    look(mounted.0)
}

/// The volume that is mounted at `mount_point`.
pub(crate) fn volume(mount_point: &Path) -> Volume {
    let mounts = mountinfo::mounts().unwrap();
    let entry = mounts.iter().rev().find(|entry| entry.mount_point == mount_point).unwrap();
    let uuid = vss_linux::fs_uuid::of_device(Path::new(&entry.source), &entry.fs_type).unwrap();
    let uuid = uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
    Volume {
        id: VolumeId::file_system(&entry.fs_type, &uuid),
        mount_point: mount_point.to_owned(),
        fs_type: entry.fs_type.clone(),
        source: entry.source.clone(),
        uuid,
        subvolume: None,
        root: "/".into(),
        device_number: entry.device_number(),
        mount_id: entry.mount_id,
    }
}

/// The provider under test.
pub(crate) fn provider() -> ReflinkProvider {
    ReflinkProvider::new(ReflinkOptions::default())
}

/// A request for a copy of this volume.
pub(crate) fn request(volume: &Volume) -> PrepareRequest {
    PrepareRequest {
        set_id: SetId::random(),
        shadow_id: ShadowId::random(),
        volume: volume.clone(),
        context: Context::AppRollback,
        options: vss_model::CreationOptions::default(),
    }
}

/// BeginPrepare of a new set over `volumes`.
pub(crate) fn begin(provider: &dyn Provider, volumes: &[Volume]) -> (SetId, Vec<StoredCopy>) {
    let set_id = SetId::random();
    let prepare = |volume: &Volume| provider.begin_prepare(&PrepareRequest { set_id, ..request(volume) }).unwrap();
    (set_id, volumes.iter().map(prepare).collect())
}

/// Calls `act` while the volumes are flushed and frozen, at most 10 s.
pub(crate) fn held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> T {
    try_held(volumes, act).unwrap()
}

/// As [`held`], of volumes that may refuse to be flushed or frozen.
pub(crate) fn try_held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> std::io::Result<T> {
    let open = || volumes.iter().map(|volume| File::open(&volume.mount_point).unwrap()).collect::<Vec<_>>();
    let (directories, late) = (open(), open());
    let (over, is_over) = mpsc::channel::<()>();
    let timer = thread::spawn(move || {
        if is_over.recv_timeout(Duration::from_secs(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
            for directory in &late {
                let _ = freeze::thaw(directory);
            }
        }
    });
    let frozen = directories.iter().try_for_each(|directory| {
        freeze::sync(directory)?;
        freeze::freeze(directory).map_err(|error| std::io::Error::from(error.errno()))
    });
    let result = frozen.map(|()| act());
    for directory in &directories {
        // One that was not frozen says so.
        freeze::thaw(directory).unwrap();
    }
    drop(over);
    timer.join().unwrap();
    result
}

/// The phases up to Commit, in the hold.
pub(crate) fn cut(provider: &dyn Provider, set_id: SetId, volumes: &[Volume]) {
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    held(volumes, || provider.commit(set_id)).unwrap();
}

/// The phases after Commit.
pub(crate) fn finish(provider: &dyn Provider, set_id: SetId) -> Vec<CommittedCopy> {
    let committed = provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    provider.post_final_commit(set_id).unwrap();
    committed
}

/// A finished set over `volumes`.
pub(crate) fn create(provider: &dyn Provider, volumes: &[Volume]) -> Vec<StoredCopy> {
    let (set_id, copies) = begin(provider, volumes);
    cut(provider, set_id, volumes);
    finish(provider, set_id);
    copies
}
