//! Volumes in image files of the test's own, and places for their mirrors; undone when they are dropped.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
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
use vss_model::{Context, CreationOptions, SetId, ShadowId, Volume, VolumeId};
use vss_provider::{CommittedCopy, MountedTree, PrepareRequest, Provider, StoredCopy, progress::Unwatched};
use vss_provider_mirror::{MirrorOptions, MirrorProvider};

/// Why no such file systems can be made or traced here, if so: for a test's SKIPPED line.
pub(crate) fn missing(kinds: &[&str]) -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices".to_owned());
    }
    if let Err(error) = vss_trace::available() {
        return Some(error.to_string());
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

/// A file system in an image: a volume, or a place for mirrors.
pub(crate) struct FileSystem {
    pub(crate) kind: &'static str,
    point: PathBuf,
    device: PathBuf,
    attached: LoopDevice,
    directory: TempDir,
}

impl FileSystem {
    /// One of `size_mib` MiB, made with these options of mkfs.
    pub(crate) fn new(kind: &'static str, size_mib: u64, options: &[&str]) -> Self {
        let directory = TempDir::with_prefix("vss-mirror-").unwrap();
        let image = directory.path().join("image");
        File::create_new(&image).unwrap().set_len(size_mib << 20).unwrap();
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        let node = device.path().to_owned();
        Self::make(kind, directory, device, node, options)
    }

    /// One in the second half of a device of `size_mib` MiB: a partition.
    pub(crate) fn on_partition(kind: &'static str, size_mib: u64) -> Self {
        let directory = TempDir::with_prefix("vss-mirror-").unwrap();
        let image = directory.path().join("image");
        File::create_new(&image).unwrap().set_len(size_mib << 20).unwrap();
        let sectors = size_mib << 11;
        let device = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        run("addpart", |command| {
            // Neither its beginning nor its end is that of a block of 4 KiB.
            let (start, length) = (sectors / 2 + 3, sectors / 2 - 2048);
            command.arg(device.path()).args(["1", &start.to_string(), &length.to_string()]);
        });
        let node = PathBuf::from(format!("{}p1", device.path().display()));
        if !node.exists() {
            // Where no udev makes nodes.
            let name = node.file_name().unwrap().to_str().unwrap();
            let number = fs::read_to_string(format!("/sys/class/block/{name}/dev")).unwrap();
            let (major, minor) = number.trim().split_once(':').unwrap();
            run("mknod", |command| {
                command.arg(&node).args(["b", major, minor]);
            });
        }
        Self::make(kind, directory, device, node, &[])
    }

    fn make(kind: &'static str, directory: TempDir, attached: LoopDevice, device: PathBuf, options: &[&str]) -> Self {
        let quiet: &[&str] = if kind == "ext4" { &["-q", "-F", "-E", "nodiscard"] } else { &["-q", "-f"] };
        run(&format!("mkfs.{kind}"), |command| {
            command.args(quiet).args(options).arg(&device);
        });
        let point = directory.path().join("on");
        fs::create_dir_all(&point).unwrap();
        let made = Self { kind, point, device, attached, directory };
        made.mount();
        made
    }

    pub(crate) fn mount(&self) {
        rustix::mount::mount(&self.device, &self.point, self.kind, MountFlags::empty(), None).unwrap();
    }

    pub(crate) fn unmount(&self) {
        rustix::mount::unmount(&self.point, UnmountFlags::empty()).unwrap();
    }

    /// Unmounts it, detaches its image, lets `act` have that, and attaches and mounts it again.
    pub(crate) fn take_away(&mut self, act: impl FnOnce(&Path)) {
        self.unmount();
        let image = self.directory.path().join("image");
        // Autoclear: it goes with its last user.
        self.attached = LoopDevice::attach(&image, AttachOptions { read_only: true, ..Default::default() }).unwrap();
        let held = std::mem::replace(&mut self.device, PathBuf::new());
        while vss_linux::loop_device::status(&held).is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
        act(&image);
        let again = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        self.device = again.path().to_owned();
        std::mem::replace(&mut self.attached, again).detach().unwrap();
        self.mount();
    }

    /// Gives its device so many MiB; the file system stays as it is.
    pub(crate) fn grow(&self, size_mib: u64) {
        let image = self.directory.path().join("image");
        File::options().write(true).open(image).unwrap().set_len(size_mib << 20).unwrap();
        run("losetup", |command| {
            command.arg("-c").arg(&self.device);
        });
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// A directory beside its mount point, for a test's own use.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// It as a volume.
    pub(crate) fn volume(&self) -> Volume {
        volume(&self.point)
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = File::open(&self.point).map(freeze::thaw);
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        if self.device != self.attached.path() {
            let _ = Command::new("delpart").arg(self.attached.path()).arg("1").output();
            let _ = fs::remove_file(&self.device);
        }
    }
}

/// What lies in the store of the place `directory`, but for running mirrors, sorted.
pub(crate) fn stored(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory.join(".vss")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".mirror") && !name.ends_with(".state")).collect();
    names.sort();
    names
}

/// Runs a program; its failure is the test's.
#[track_caller]
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

/// An instance of the service: its state directory and the options of its provider. Its mirrors and tracers go with it.
pub(crate) struct Instance {
    pub(crate) options: MirrorOptions,
    _directory: Option<TempDir>,
}

impl Instance {
    /// One whose state directory, and so its images, lie on the file system of temporary files.
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("vss-mirror-state-").unwrap();
        let options = MirrorOptions::new(directory.path().to_owned());
        Self { options, _directory: Some(directory) }
    }

    /// One whose state directory is in memory, so that images lie on the volumes themselves.
    pub(crate) fn in_memory() -> Self {
        let directory = TempDir::with_prefix_in("vss-mirror-state-", "/dev/shm").unwrap();
        let options = MirrorOptions::new(directory.path().to_owned());
        Self { options, _directory: Some(directory) }
    }

    /// One whose images lie in the top directory of this file system.
    pub(crate) fn with_storage(storage: &FileSystem) -> Self {
        let mut instance = Self::new();
        instance.options.storage = Some(storage.path().to_owned());
        instance
    }

    pub(crate) fn provider(&self) -> MirrorProvider {
        MirrorProvider::new(self.options.clone())
    }

    /// Where images lie.
    pub(crate) fn place(&self) -> &Path {
        self.options.storage.as_deref().unwrap_or(&self.options.state_directory)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let name = vss_trace::Pins::new(&self.options.state_directory.to_string_lossy(), "x");
        let Some(pins) = name.directory().parent() else { return };
        for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path());
        }
        let _ = fs::remove_dir(pins);
    }
}

/// A request for a copy of this volume.
pub(crate) fn request(volume: &Volume) -> PrepareRequest {
    PrepareRequest {
        set_id: SetId::random(),
        shadow_id: ShadowId::random(),
        volume: volume.clone(),
        context: Context::AppRollback,
        options: CreationOptions::default(),
    }
}

/// BeginPrepare of a new set over `volumes`.
pub(crate) fn begin(
    provider: &dyn Provider,
    volumes: &[Volume],
    options: &CreationOptions,
) -> (SetId, Vec<StoredCopy>) {
    let set_id = SetId::random();
    let prepare = |volume: &Volume| {
        let request = PrepareRequest { set_id, options: options.clone(), ..request(volume) };
        provider.begin_prepare(&request).unwrap()
    };
    (set_id, volumes.iter().map(prepare).collect())
}

/// Calls `act` while the volumes are flushed and frozen, at most 10 s.
pub(crate) fn held<T>(volumes: &[Volume], act: impl FnOnce() -> T) -> T {
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
    result.unwrap()
}

/// The phases up to Commit, in the hold.
pub(crate) fn cut(provider: &dyn Provider, set_id: SetId, volumes: &[Volume]) {
    provider.end_prepare(set_id, &Unwatched).unwrap();
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
    create_with(provider, volumes, &CreationOptions::default())
}

/// A finished set, made as wished.
pub(crate) fn create_with(provider: &dyn Provider, volumes: &[Volume], options: &CreationOptions) -> Vec<StoredCopy> {
    let (set_id, copies) = begin(provider, volumes, options);
    cut(provider, set_id, volumes);
    finish(provider, set_id);
    copies
}

/// A program that writes until it is dropped.
pub(crate) struct Writer(Child);

impl Writer {
    /// fio with these arguments, endlessly, in `directory`.
    pub(crate) fn fio(directory: &Path, arguments: &[&str]) -> Self {
        let child = Command::new("fio")
            .args(["--name=load", "--time_based", "--runtime=600", "--output=/dev/null"])
            .arg(format!("--directory={}", directory.display()))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Remembers all that it is told.
#[derive(Default)]
pub(crate) struct Seen(std::sync::Mutex<Vec<vss_provider::progress::Progress>>);

impl Seen {
    pub(crate) fn all(&self) -> Vec<vss_provider::progress::Progress> {
        self.0.lock().unwrap().clone()
    }
}

impl vss_provider::progress::Watcher for Seen {
    fn progress(&self, progress: vss_provider::progress::Progress) {
        self.0.lock().unwrap().push(progress);
    }
}
