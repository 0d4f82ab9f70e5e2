//! A directory of this machine shown in a guest: one virtiofsd.

use crate::interrupt::{Interrupt, end};
use crate::packages::Package;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vss_linux::process::PidFd;

/// The program as Debian has it since 13, in a package of its own.
const VIRTIOFSD: Package = Package { name: "virtiofsd", program: "/usr/libexec/virtiofsd" };
/// The program as Debian 12 has it: another one, with other options.
const VIRTIOFSD_12: Package = Package { name: "qemu-system-common", program: "/usr/lib/qemu/virtiofsd" };

/// The package with the program, for this machine.
pub(crate) fn package() -> Package {
    let release = std::fs::read_to_string("/etc/debian_version").unwrap_or_default();
    if release.starts_with("12") { VIRTIOFSD_12 } else { VIRTIOFSD }
}

/// Longest time until it listens; it usually takes 10 ms.
const LIMIT: Duration = Duration::from_secs(10);

/// A directory that a guest is to see.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    /// What the guest mounts.
    pub(crate) tag: &'static str,
    /// The directory.
    pub(crate) directory: &'a Path,
    /// Nobody changes it meanwhile but the guest itself, which may so keep in memory whatever it has read.
    pub(crate) is_still: bool,
}

/// A running virtiofsd, ended with this.
#[derive(Debug)]
pub(crate) struct Share {
    process: Child,
    /// What the guest mounts.
    pub(crate) tag: &'static str,
    /// Where QEMU finds it.
    pub(crate) socket: PathBuf,
}

impl Share {
    /// Shows a directory; socket and log lie in `place`.
    pub(crate) fn start(shared: &Shared<'_>, place: &Path, interrupt: &Interrupt) -> Result<Self> {
        let Shared { tag, directory, is_still } = *shared;
        let (socket, log) = (place.join(format!("{tag}.socket")), place.join(format!("{tag}.log")));
        let output = File::create(&log)?;
        // That of an earlier boot.
        let _ = std::fs::remove_file(&socket);
        let cache = if is_still { "always" } else { "auto" };
        let mut command;
        if Path::new(VIRTIOFSD.program).exists() {
            command = Command::new(VIRTIOFSD.program);
            command.arg("--shared-dir").arg(directory).args(["--sandbox", "chroot", "--cache", cache]);
            // A mount below the directory is a directory: an overlay takes no mount that comes by itself.
            command.arg("--no-announce-submounts");
        } else {
            command = Command::new(VIRTIOFSD_12.program);
            command.arg("-o").arg(format!("source={}", directory.display()));
            command.args(["-o", "sandbox=chroot", "-o", &format!("cache={cache}")]);
        }
        command.arg(format!("--socket-path={}", socket.display()));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let mut share = Self { process: interrupt.spawn(&mut command)?, tag, socket };
        let deadline = Instant::now() + LIMIT;
        while !share.socket.exists() {
            let ended = share.process.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "virtiofsd does not share {}: {}",
                directory.display(),
                std::fs::read_to_string(&log).context("its log")?
            );
            interrupt.sleep(Duration::from_millis(10))?;
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It ends by itself when QEMU has ended; whatever fails here, it has.
        if let (Ok(None), Ok(pidfd)) = (self.process.try_wait(), PidFd::open(self.process.id())) {
            let _ = end(&mut self.process, &pidfd);
        }
    }
}
