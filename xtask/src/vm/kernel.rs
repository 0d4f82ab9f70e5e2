//! The guests' kernel: Debian's for clouds, which starts from virtiofs or NVMe without an initial RAM disk.

use crate::interrupt::Interrupt;
use crate::vm::cache;
use crate::vm::debian::{SUITE, Suite};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changes when a kernel of an earlier build of ours can't be used.
const FORMAT: u32 = 1;

/// Depends on the kernel of the day.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel with its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    directory: PathBuf,
    /// As `uname -r` says it.
    pub(crate) version: String,
}

impl Kernel {
    /// The kernel kept below `caches`, fetched when there is none.
    pub(crate) fn ensure(caches: &Path, interrupt: &Interrupt) -> Result<Self> {
        let directory = caches.join("kernel");
        cache::ensure(&directory, &format!("{PACKAGE} of {SUITE}, format {FORMAT}"), |new| fetch(new, interrupt))?;
        let names = fs::read_dir(directory.join("boot"))?.map(|entry| Ok(entry?.file_name().into_string()));
        let names = names.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten();
        let version = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned())).next();
        Ok(Self { directory, version: version.context("the package has no kernel")? })
    }

    /// The kernel's file, for QEMU.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The directory for `modprobe -d`.
    pub(crate) fn root(&self) -> &Path {
        &self.directory
    }

    /// The modules, to be put in /usr/lib/modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("usr/lib/modules").join(&self.version)
    }
}

fn fetch(directory: &Path, interrupt: &Interrupt) -> Result<Vec<PathBuf>> {
    println!("Fetching the kernel of the virtual machines (Debian {SUITE}), about 35 MB");
    let suite = Suite::fetch(interrupt)?;
    let package = suite.dependency(PACKAGE, "linux-image-", interrupt)?;
    let version = package.strip_prefix("linux-image-").unwrap_or(&package).to_owned();
    suite.unpack(&format!("{package}-unsigned"), directory, interrupt)?;
    // Under emulation, a module that has to be uncompressed takes its time at every load.
    let mut uncompress = Command::new("sh");
    uncompress.args(["-c", "find \"$0\" -name '*.ko.xz' -print0 | xargs -0 -n 200 -P 2 xz -d"]);
    interrupt.check(uncompress.arg(directory.join("usr/lib/modules")))?;
    // modprobe looks below /lib.
    fs::create_dir_all(directory.join("lib"))?;
    std::os::unix::fs::symlink("../usr/lib/modules", directory.join("lib/modules"))?;
    interrupt.check(Command::new("depmod").arg("-b").arg(directory).arg(&version))?;
    Ok(vec![
        format!("boot/vmlinuz-{version}").into(),
        format!("usr/lib/modules/{version}/modules.dep.bin").into(),
        format!("usr/lib/modules/{version}/kernel/fs/overlayfs/overlay.ko").into(),
    ])
}
