//! The lane guest: a command runs on Debian's kernel with the root of this machine under it, so that every program and file is
//! where it is here. What it writes lands in memory and is gone with the guest, except on the disks that it is given.

use crate::interrupt::Interrupt;
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Done, Machine};
use crate::vm::share::Shared;
use anyhow::{Result, ensure};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The first process of the guest.
const INIT: &str = include_str!("init.sh");

/// Variables that the command sees as they are here, by how they begin.
const KEPT: [&str; 5] = ["PATH", "VSS_", "RUST_", "CARGO", "TMPDIR"];

/// A command for a guest.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The program and its arguments.
    pub(crate) command: &'a [OsString],
    /// Where it runs.
    pub(crate) directory: &'a Path,
    /// Variables besides those that are kept.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Images for /dev/vda, /dev/vdb...
    pub(crate) disks: &'a [PathBuf],
    /// One for /dev/nvme0n1.
    pub(crate) nvme: Option<&'a Path>,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// The guest is ended after this time.
    pub(crate) limit: Duration,
}

/// Runs a job; what it says goes to `output` as it comes.
///
/// # Errors
/// No guest can be started; a signal came.
pub(crate) fn run(job: &Job<'_>, kernel: &Kernel, output: &File, interrupt: &Interrupt) -> Result<Done> {
    let place = TempDir::with_prefix("vss-vm-")?;
    let io = place.path().join("lane");
    fs::create_dir(&io)?;
    fs::write(io.join("command"), script(job))?;
    let init = place.path().join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    for path in [&init, kernel.root()] {
        // They are named on the kernel's command line.
        ensure!(!path.to_string_lossy().contains([' ', '"']), "{} has a space in it", path.display());
    }
    let shares = [
        Shared { tag: "root", directory: Path::new("/"), is_still: true },
        Shared { tag: "lane", directory: &io, is_still: false },
    ];
    let append =
        format!("rootfstype=virtiofs root=root ro init={} vss.kernel={}", init.display(), kernel.root().display());
    let machine = Machine {
        kernel: kernel.file(),
        append,
        memory_mib: job.memory_mib,
        nvme: job.nvme.map(Path::to_owned),
        disks: job.disks,
        shares: &shares,
    };
    machine.run(job.limit, output, &io, place.path(), interrupt)
}

/// What the guest's shell runs.
fn script(job: &Job<'_>) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    script.extend(quoted(job.directory.as_os_str()));
    script.extend(b" || exit 126\n");
    let kept =
        std::env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name.as_bytes().starts_with(kept.as_bytes())));
    let given = job.environment.iter().map(|(name, value)| (name.into(), value.into()));
    for (name, value) in kept.chain(given) {
        // A variable of another kind cannot be made by a shell.
        if name.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            script.extend([b"export ", name.as_bytes(), b"="].concat());
            script.extend(quoted(&value));
            script.push(b'\n');
        }
    }
    script.extend(b"exec");
    for word in job.command {
        script.push(b' ');
        script.extend(quoted(word));
    }
    script.push(b'\n');
    script
}

/// One word of a shell, whatever is in it.
pub(crate) fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        if *byte == b'\'' { quoted.extend(b"'\\''") } else { quoted.push(*byte) }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let odd = OsStr::from_bytes(b"it's \"a\" $HOME `b`\n\xff").to_owned();
        let job = Job {
            command: &["printf".into(), "%s|".into(), odd.clone(), "".into(), "c".into()],
            directory: Path::new("/"),
            environment: &[("VSS_TEST_ODD", "d'e")],
            disks: &[],
            nvme: None,
            memory_mib: 0,
            limit: Duration::ZERO,
        };
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("script");
        fs::write(&file, script(&job)).unwrap();
        let said = Command::new("sh").arg(&file).output().unwrap();
        assert_eq!(said.stdout, [odd.as_bytes(), b"||c|"].concat(), "{said:?}");
        let job = Job { command: &["sh".into(), "-c".into(), "echo \"$VSS_TEST_ODD\"".into()], ..job };
        fs::write(&file, script(&job)).unwrap();
        assert_eq!(Command::new("sh").arg(&file).output().unwrap().stdout, b"d'e\n");
    }
}
