//! The machine: what it can do, programs that are run on it, and loop devices that are being let go of.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use vss_linux::loop_device::{self, AttachOptions, LoopDevice};
use vss_linux::mount;
use vss_provider::{MountedTree, store};

use super::phases::shown;
use crate::process::wait_until;

/// How long a loop device may take to go that nobody uses any more. A process that is being started, by whatever thread, has all
/// our descriptors until its exec.
const LETTING_GO: Duration = Duration::from_secs(30);

/// Why file systems of these kinds cannot be made here in images, if so: for a test's SKIPPED line.
#[must_use]
pub fn missing(kinds: &[&str]) -> Option<String> {
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

/// Prints the SKIPPED line of a test and returns from it when these kinds of file systems cannot be made.
#[macro_export]
macro_rules! needs {
    ($test:literal, $($kind:literal),+) => {
        if let Some(missing) = $crate::providers::missing(&[$($kind),+]) {
            println!("SKIPPED: {}: {missing}", $test);
            return;
        }
    };
}

/// Runs a program to its end.
///
/// # Panics
/// It cannot be run, or fails: with what it said.
#[track_caller]
pub fn run(program: &str, add: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(program);
    add(&mut command);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{program}: {said}");
    output
}

/// Makes an empty file system of this kind on a device or in a file, with these further options of mkfs.
///
/// # Panics
/// mkfs fails.
#[track_caller]
pub fn make(kind: &str, on: &Path, options: &[&str]) {
    let quiet: &[&str] = if kind == "ext4" { &["-q", "-F", "-E", "nodiscard"] } else { &["-q", "-f", "-K"] };
    run(&format!("mkfs.{kind}"), |command| {
        command.args(quiet).args(options).arg(on);
    });
}

/// Checks that the ext4 or XFS in an image is whole, by its own program.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn assert_clean(kind: &str, image: &Path) {
    if kind == "ext4" {
        run("e2fsck", |command| {
            command.arg("-fn").arg(image);
        });
    } else {
        run("xfs_repair", |command| {
            command.args(["-n", "-f"]).arg(image);
        });
    }
}

/// What a disk has when its power goes now: `look` sees the file system of this kind that lies in `image`, mounted anew at
/// `place`, as the image is at this moment. What the kernel has not written yet is not there.
///
/// # Panics
/// The image cannot be copied beside `place`, or does not mount.
#[track_caller]
pub fn after_power_cut<T>(kind: &str, image: &Path, place: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let cut = place.with_extension("cut");
    run("cp", |command| {
        command.arg("--sparse=always").arg(image).arg(&cut);
    });
    let options = AttachOptions { autoclear: true, ..AttachOptions::default() };
    let device = LoopDevice::attach(&cut, options).expect("a loop device");
    // Beside the one that it is a copy of.
    let nouuid: &[&str] = if kind == "xfs" { &["nouuid"] } else { &[] };
    let mount = mount::mount_device(kind, device.path(), false, nouuid).expect("a journal that is replayed");
    let seen = shown(&[MountedTree { path: PathBuf::new(), mount }], place, look);
    drop(device);
    wait_until_let_go(&cut);
    fs::remove_file(cut).expect("a file that can be removed");
    seen
}

/// The loop devices that show copies from the stores of the file systems of these directories, and do not go.
///
/// # Errors
/// A directory is gone; sysfs is not mounted.
pub fn strays(places: &[&Path]) -> io::Result<Vec<PathBuf>> {
    let devices: Vec<u64> = places.iter().map(|place| Ok(fs::metadata(place)?.dev())).collect::<io::Result<_>>()?;
    // No other is asked: its image may lie on a file system that does not answer.
    let is_of_copy = |device: &Path, image: &Path| {
        store::holds(image) && loop_device::status(device).is_ok_and(|status| devices.contains(&status.device))
    };
    let mut left = Vec::new();
    wait_until(LETTING_GO, || {
        let attached = loop_device::attached().unwrap_or_default().into_iter();
        left = attached.filter(|(device, image)| is_of_copy(device, image)).map(|(device, _)| device).collect();
        left.is_empty()
    });
    Ok(left)
}

/// Waits until no loop device shows this file any more, by the name that it is attached by.
///
/// # Panics
/// One shows it still after 30 s.
#[track_caller]
pub fn wait_until_let_go(image: &Path) {
    let is_shown = || loop_device::attached().is_ok_and(|devices| devices.iter().any(|(_, backing)| backing == image));
    assert!(wait_until(LETTING_GO, || !is_shown()), "a loop device shows {} still", image.display());
}
