//! On a kernel with device-mapper: the guard on a device-mapper volume, LVM's snapshots, btrfs as it is in that kernel, mirrors
//! (`lane/mirror.rs`), and what writes past the block layer (`lane/passthrough.rs`).

mod mirror;
mod passthrough;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use vss_tests::guard::{Driver, Setup};
use vss_tests::instance::Instance;
use vss_tests::load::Load;
use vss_tests::programs::program;
use vss_tests::traces;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;

use crate::is_elsewhere;

/// The disks that the guest is given.
const FIRST_DISK: &str = "/dev/vda";
const SECOND_DISK: &str = "/dev/vdb";
const NVME_DISK: &str = "/dev/nvme0n1";

/// A file system that is unmounted when it is dropped.
struct Mount(TempDir);

impl Mount {
    fn of(device: &Path, kind: &str, flags: MountFlags, options: &str) -> anyhow::Result<Self> {
        let place = TempDir::with_prefix("vss-mount-")?;
        let options = std::ffi::CString::new(options)?;
        mount(device, place.path(), kind, flags, Some(options.as_c_str()))
            .with_context(|| format!("mounting {}", device.display()))?;
        Ok(Self(place))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A device-mapper volume over the first disk, removed when it is dropped.
struct Mapped(&'static str);

impl Mapped {
    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.0)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = run("dmsetup", &["remove", "--retry", self.0]);
    }
}

/// Runs a command that has to succeed, and returns what it says.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    std::str::from_utf8(path.as_os_str().as_bytes()).context("a path in UTF-8")
}

/// What a provider for device-mapper needs: while the guard holds, the volume is suspended without a freeze of its own, gets
/// another table, and is resumed; the hold is whole, and writes flow when it is released.
#[test]
fn a_table_is_swapped_in_a_hold() -> anyhow::Result<()> {
    if is_elsewhere("a_table_is_swapped_in_a_hold", "lane") {
        return Ok(());
    }
    let sectors = run("blockdev", &["--getsz", FIRST_DISK])?;
    let (half, table) =
        (sectors.trim().parse::<u64>()? / 2, |kind: &str, length, rest: &str| format!("0 {length} {kind} {rest}"));
    let real = Mapped("vss-real");
    run("dmsetup", &["create", real.0, "--table", &table("linear", half, &format!("{FIRST_DISK} 0"))])?;
    let store = Mapped("vss-store");
    run("dmsetup", &["create", store.0, "--table", &table("linear", half, &format!("{FIRST_DISK} {half}"))])?;
    let volume = Mapped("vss-volume");
    run("dmsetup", &["create", volume.0, "--table", &table("linear", half, &format!("{} 0", text(&real.path())?))])?;
    run("mkfs.ext4", &["-q", text(&volume.path())?])?;
    let file_system = Mount::of(&volume.path(), "ext4", MountFlags::empty(), "")?;
    let copy = Mapped("vss-copy");
    fs::write(file_system.path().join("file"), "old")?;
    let load = Load::start(file_system.path())?;

    let runtime = TempDir::new_in("/run")?;
    let setup = Setup { runtime: runtime.path(), limit: Duration::from_secs(10), steps: false };
    let mut guard = Driver::start(&program("guard_driver"), setup, &[(file_system.path(), Some(0))])?;
    ensure!(guard.ask("sync")? == "synced");
    let held = guard.ask("hold")?;
    ensure!(held.starts_with("held"), "{held}");
    let before = load.writes();
    run("dmsetup", &["suspend", "--nolockfs", volume.0])?;
    run("dmsetup", &["load", volume.0, "--table", &table("snapshot-origin", half, text(&real.path())?)])?;
    let snapshot = format!("{} {} N 8", text(&real.path())?, text(&store.path())?);
    run("dmsetup", &["create", copy.0, "--table", &table("snapshot", half, &snapshot)])?;
    run("dmsetup", &["resume", volume.0])?;
    // One that was on its way when the hold began may have been counted since.
    ensure!(load.writes() <= before + 1, "{} writes went through in the hold", load.writes() - before);
    let released = guard.ask("release")?;
    ensure!(released.starts_with("released"), "the hold was not whole: {released}");
    ensure!(guard.ask("finish")? == "finished true");

    let flows = vss_tests::instance::wait_until(Duration::from_secs(10), || load.writes() > before + 1);
    ensure!(flows, "writes do not flow after the release");
    fs::write(file_system.path().join("file"), "new")?;
    drop(load);
    let shown = Mount::of(&copy.path(), "ext4", MountFlags::RDONLY, "noload")?;
    ensure!(fs::read_to_string(shown.path().join("file"))? == "old", "the snapshot has what came after it");
    drop((shown, copy, file_system, volume));
    run("e2fsck", &["-fn", text(&real.path())?])?;
    Ok(())
}

#[test]
fn lvm_makes_a_thin_snapshot() -> anyhow::Result<()> {
    if is_elsewhere("lvm_makes_a_thin_snapshot", "lane") {
        return Ok(());
    }
    run("pvcreate", &["-y", SECOND_DISK])?;
    run("vgcreate", &["vsstest", SECOND_DISK])?;
    run("lvcreate", &["-y", "--type", "thin-pool", "-L", "300M", "-n", "pool", "vsstest"])?;
    run("lvcreate", &["-y", "-V", "200M", "--thinpool", "pool", "-n", "volume", "vsstest"])?;
    run("mkfs.ext4", &["-q", "/dev/vsstest/volume"])?;
    let live = Mount::of(Path::new("/dev/vsstest/volume"), "ext4", MountFlags::empty(), "")?;
    fs::write(live.path().join("file"), "old")?;
    rustix::fs::syncfs(fs::File::open(live.path())?)?;
    run("lvcreate", &["-y", "-s", "-kn", "-n", "copy", "vsstest/volume"])?;
    fs::write(live.path().join("file"), "new")?;
    let copy = Mount::of(Path::new("/dev/vsstest/copy"), "ext4", MountFlags::RDONLY, "noload")?;
    ensure!(
        fs::read_to_string(copy.path().join("file"))? == "old"
            && fs::read_to_string(live.path().join("file"))? == "new"
    );
    drop((copy, live));
    run("vgremove", &["-ff", "-y", "vsstest"])?;
    run("pvremove", &["-y", SECOND_DISK]).map(drop)
}

/// Providers that are to come are built on these.
#[test]
fn the_kernel_has_ublk_and_nbd() -> anyhow::Result<()> {
    if is_elsewhere("the_kernel_has_ublk_and_nbd", "lane") {
        return Ok(());
    }
    run("modprobe", &["-a", "ublk_drv", "nbd", "dm_era", "dm_snapshot", "dm_thin_pool"])?;
    for device in ["/dev/ublk-control", "/dev/nbd0"] {
        ensure!(Path::new(device).exists(), "there is no {device}");
    }
    let targets = run("dmsetup", &["targets"])?;
    for target in ["linear", "snapshot", "thin-pool", "era"] {
        ensure!(targets.contains(target), "device-mapper has no {target}: {targets}");
    }
    Ok(())
}

#[test]
fn btrfs_is_copied_from_end_to_end() -> anyhow::Result<()> {
    if is_elsewhere("btrfs_is_copied_from_end_to_end", "lane") {
        return Ok(());
    }
    let (instance, volume) = (Instance::new()?, Volume::new()?);
    volume.make_subvolume("nested")?;
    for file in ["file", "nested/file"] {
        volume.write(file, "old")?;
    }
    let _turn = creation_turn();
    let set = instance.vss(["create", "--persistent", "--json", volume.name()])?.json()?;
    let id = set["shadows"][0]["id"].as_str().context("an id")?;
    for file in ["file", "nested/file"] {
        volume.write(file, "new")?;
    }
    let place = instance.path().join("exposed");
    fs::create_dir(&place)?;
    let exposed = instance.vss(["expose", id, text(&place)?])?;
    ensure!(exposed.is_success(), "{exposed:?}");
    for file in ["file", "nested/file"] {
        ensure!(fs::read_to_string(place.join(file))? == "old", "{file} is not as it was");
    }
    let run = instance.vss(["run", "--volume", volume.name(), "--", "cat", text(&volume.path().join("file"))?])?;
    ensure!(run.is_success() && run.stdout == "new", "{run:?}");
    ensure!(instance.vss(["unexpose", text(&place)?])?.is_success());
    ensure!(instance.vss(["delete", "--all"])?.is_success());
    volume.is_clean()?;
    traces::has_no_shadows(&instance)?;
    traces::has_no_processes(&instance)
}
