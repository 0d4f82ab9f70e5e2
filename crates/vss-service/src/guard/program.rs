//! The guard's process: how it is started.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Starts the program; `channel` is its standard input.
pub(super) fn start(program: &Path, ledger: &Path, limit: Duration, channel: OwnedFd) -> io::Result<Starting> {
    let child = Command::new(program)
        .args([OsString::from("--ledger"), ledger.into(), "--limit-ms".into(), limit.as_millis().to_string().into()])
        .env_clear()
        // One heap for all threads: each further one of glibc's would count with 64 MiB as locked memory.
        .env("MALLOC_ARENA_MAX", "1")
        .current_dir("/")
        // Standard input is the one place where a child gets a descriptor that all others do not inherit.
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own in vssd's session: when vssd dies, a stopped guard is woken by the kernel.
        .process_group(0)
        .spawn()?;
    Ok(Starting(Some(child)))
}

/// A guard that is not supervised yet: killed and reaped when something fails before it is. It has frozen nothing.
pub(super) struct Starting(pub(super) Option<Child>);

impl Starting {
    pub(super) fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Both fail only when it has been reaped, which nobody else does.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
