//! A directory of this machine shown in a guest: one virtiofsd.

use crate::interrupt::{Interrupt, end};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vss_linux::process::PidFd;

/// The program, of Debian's qemu-system-common.
pub(crate) const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// Longest time until it listens; it usually takes 10 ms.
const LIMIT: Duration = Duration::from_secs(10);

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
    /// Shows `directory` under the name `tag`; socket and log lie in `place`. With `is_still` nobody changes it meanwhile but
    /// the guest itself, so that the guest may keep in memory whatever it has read.
    pub(crate) fn start(
        tag: &'static str,
        directory: &Path,
        is_still: bool,
        place: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (socket, log) = (place.join(format!("{tag}.socket")), place.join(format!("{tag}.log")));
        let output = File::create(&log)?;
        // That of an earlier boot.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(VIRTIOFSD);
        command.arg(format!("--socket-path={}", socket.display()));
        command.arg("-o").arg(format!("source={}", directory.display())).args(["-o", "sandbox=chroot"]);
        command.arg("-o").arg(if is_still { "cache=always" } else { "cache=auto" });
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
