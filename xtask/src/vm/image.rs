//! The image of the systemd guest: Debian with systemd as its first process, made by mmdebstrap and kept between runs. Nothing of
//! ours is in it but the unit that runs the share "house": so it is not made again when we change.

use crate::interrupt::Interrupt;
use crate::packages::Package;
use crate::vm::cache;
use crate::vm::debian::{self, SUITE};
use crate::vm::kernel::Kernel;
use anyhow::Result;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is in it, with what these depend on.
const CONTENT: &str = "systemd,systemd-sysv,dbus,udev,kmod,util-linux,btrfs-progs,xfsprogs,e2fsprogs,python3";

/// What making it takes.
pub(crate) const PACKAGES: [Package; 2] =
    [Package { name: "mmdebstrap", program: "mmdebstrap" }, Package { name: "e2fsprogs", program: "mkfs.ext4" }];

/// Changes when an image of an earlier build of ours can't be used.
const FORMAT: u32 = 1;

/// Its size; the file is sparse.
const BYTES: u64 = 1500 << 20;

/// The unit that runs the share.
const UNIT: &str = include_str!("guest.service");
/// Its name.
const UNIT_NAME: &str = "vss-guest.service";

/// What costs time at every boot and is of no use in a guest.
const MASKED: [&str; 11] = [
    "getty@.service",
    "serial-getty@.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-logind.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
];

/// The image kept below `caches`, made when there is none.
pub(crate) fn ensure(caches: &Path, kernel: &Kernel, interrupt: &Interrupt) -> Result<PathBuf> {
    let directory = caches.join("systemd");
    let recipe = format!("{CONTENT} of {SUITE}, kernel {}, format {FORMAT}, {MASKED:?}, {UNIT}", kernel.version);
    cache::ensure(&directory, &recipe, |new| make(new, kernel, interrupt))?;
    Ok(directory.join("image"))
}

fn make(directory: &Path, kernel: &Kernel, interrupt: &Interrupt) -> Result<Vec<PathBuf>> {
    println!("Making the image of the systemd guest (Debian {SUITE}); this takes a minute");
    let root = directory.join("root");
    // In a mount namespace of its own: what it mounts in the new root is gone with it, however it ends, and never removed as files.
    let mut command = Command::new("unshare");
    command.args(["--mount", "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory"]);
    command.args(["--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Languages \"none\""]);
    for unread in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    command.arg(format!("--include={CONTENT}")).arg(SUITE).arg(&root).arg(debian::source(interrupt)?);
    interrupt.check(command.stdin(Stdio::null()))?;
    println!("Debian is there; now its kernel modules and the file system");
    configure(&root)?;
    let modules = root.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    interrupt.check(Command::new("cp").arg("-a").arg(kernel.modules()).arg(&modules))?;
    let image = directory.join("image");
    File::create_new(&image)?.set_len(BYTES)?;
    interrupt.check(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&root).arg(&image))?;
    fs::remove_dir_all(&root)?;
    Ok(vec!["image".into()])
}

fn configure(root: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    fs::write(units.join(UNIT_NAME), UNIT)?;
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    symlink(format!("../{UNIT_NAME}"), wanted.join(UNIT_NAME))?;
    for name in MASKED {
        let place = units.join(name);
        if place.symlink_metadata().is_ok() {
            fs::remove_file(&place)?;
        }
        symlink("/dev/null", place)?;
    }
    fs::write(root.join("etc/hostname"), "vss-guest\n")?;
    // Without one, each boot would be a first boot, which enables everything that is there.
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    Ok(())
}
