//! Volumes in image files of the test's own, and places for their mirrors; undone when they are dropped.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use vss_lab::providers::{run, shown, wait_until_let_go};
use vss_linux::{
    freeze,
    loop_device::{AttachOptions, LoopDevice},
};
use vss_model::Volume;
use vss_provider::{Provider, StoredCopy};
use vss_provider_mirror::{MirrorOptions, MirrorProvider};

/// Prints the SKIPPED line and returns from the test when such file systems cannot be made or traced here.
macro_rules! needs {
    ($test:literal, $($kind:literal),+) => {
        vss_lab::needs!($test, $($kind),+);
        if let Err(error) = vss_trace::available() {
            println!("SKIPPED: {}: {error}", $test);
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
        // A partition outlives what was attached before, if somebody's mount kept it busy then.
        let _ = Command::new("delpart").arg(device.path()).arg("1").output();
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
        vss_lab::providers::make(kind, &device, options);
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
        self.attach_anew(act);
        self.mount();
    }

    /// Detaches the image of an unmounted one, lets `act` have it, and attaches it again.
    pub(crate) fn attach_anew(&mut self, act: impl FnOnce(&Path)) {
        let image = self.image();
        // By another name, so that it is told which device is let go of.
        let link = self.directory.path().join("link");
        fs::hard_link(&image, &link).unwrap();
        // Autoclear: it goes with its last user.
        self.attached = LoopDevice::attach(&link, AttachOptions { read_only: true, ..Default::default() }).unwrap();
        fs::remove_file(link).unwrap();
        self.device = PathBuf::new();
        wait_until_let_go(&image);
        act(&image);
        let again = LoopDevice::attach(&image, AttachOptions { autoclear: true, ..Default::default() }).unwrap();
        self.device = again.path().to_owned();
        std::mem::replace(&mut self.attached, again).detach().unwrap();
    }

    /// Gives its device so many MiB; the file system stays as it is.
    pub(crate) fn grow(&self, size_mib: u64) {
        File::options().write(true).open(self.image()).unwrap().set_len(size_mib << 20).unwrap();
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

    /// The image that its device shows.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// A directory beside its mount point, for a test's own use.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// It as a volume.
    pub(crate) fn volume(&self) -> Volume {
        vss_lab::providers::volume(&self.point)
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

/// Files with content that is nowhere else.
pub(crate) fn fill(directory: &Path, name: &str, mib: u8) {
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut data = Vec::new();
    for number in 0..mib {
        data.extend(block.iter().map(|byte| byte.wrapping_add(number)));
    }
    fs::write(directory.join(name), data).unwrap();
}

/// Overwrites single blocks of a file.
pub(crate) fn touch(directory: &Path, name: &str, blocks: &[u64], byte: u8) {
    let file = File::options().write(true).create(true).truncate(false).open(directory.join(name)).unwrap();
    blocks.iter().for_each(|block| file.write_all_at(&[byte; 4096], block * 4096).unwrap());
}

/// A file of a copy, which is mounted at `place` for it, has this content.
#[track_caller]
pub(crate) fn assert_same(provider: &dyn Provider, copy: &StoredCopy, place: &Path, name: &str, wanted: &[u8]) {
    let trees = provider.mount(copy, false).unwrap();
    let found = shown(&trees, place, |top| fs::read(top.join(name)).unwrap());
    assert!(found == wanted, "{name} differs in the copy");
}

/// What lies in the store of the place `directory`, but for running mirrors, sorted.
pub(crate) fn stored(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory.join(".vss")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".mirror") && !name.ends_with(".state")).collect();
    names.sort();
    names
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

    /// Where the tracer of this volume is pinned.
    pub(crate) fn pins(&self, volume: &FileSystem) -> vss_trace::Pins {
        let key = volume.volume().id.as_str().replace(':', "-");
        vss_trace::Pins::new(&self.options.state_directory.to_string_lossy(), &key)
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

/// Breaks the work off when some of it is done.
pub(crate) struct Breaks;

impl vss_provider::progress::Watcher for Breaks {
    fn progress(&self, progress: vss_provider::progress::Progress) {
        assert_eq!(progress.bytes_done, 0, "broken off");
        // So long nothing more would be told.
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
}
