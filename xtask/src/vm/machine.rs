//! One virtual machine: QEMU without acceleration, which is there on every machine.

use crate::interrupt::{Ended, Interrupt};
use crate::vm::share::{Share, Shared};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Without cx16: with it the emulated `cmpxchg16b` of QEMU 7.2 makes the 6.12 kernel panic in one boot of three.
const CPU: &str = "qemu64,-cx16,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq";

/// One processor: with two, emulated on a busy machine, guests are slower, and a kernel that rewrites its own code while the other
/// processor runs it panics now and then.
const CPUS: u32 = 1;

/// How often a guest is started that goes off before it has begun.
const STARTS: u32 = 3;

/// Lines of the console that are shown when a guest fails.
const CONSOLE_LINES: usize = 40;

/// What every kernel of ours is told.
const APPEND: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on";

/// What to start.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// The kernel's file.
    pub(crate) kernel: PathBuf,
    /// What the kernel is told besides [`APPEND`].
    pub(crate) append: String,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// A raw image for /dev/nvme0n1, from which the kernel can start: it has NVMe built in. (Of several disks there it would be
    /// chance which is the first.)
    pub(crate) nvme: Option<PathBuf>,
    /// Raw images for /dev/vda, /dev/vdb..., which take the module virtio_blk.
    pub(crate) disks: &'a [PathBuf],
    /// Directories that it sees.
    pub(crate) shares: &'a [Shared<'a>],
}

/// What became of the command that a guest was booted for.
#[derive(Debug)]
pub(crate) enum Done {
    /// The command ended with this status.
    With(u8),
    /// The guest was ended at its limit; the end of its console.
    TimedOut(String),
    /// The guest went off before the command had ended, for example by a panic; the end of its console.
    Died(String),
}

impl Machine<'_> {
    /// Runs it until it is off, at most for `limit`. What the guest writes to /dev/vport0p1 goes to `output` as it comes; its
    /// console is kept in `place`. In the share `io` the guest makes the file `begun` when it begins its command, and `status`
    /// with its exit status when it has ended. A guest that goes off before it has begun (the emulator is not without faults) is
    /// started again.
    ///
    /// # Errors
    /// QEMU cannot be started; a signal came, in which case everything was ended.
    pub(crate) fn run(
        &self,
        limit: Duration,
        output: &File,
        io: &Path,
        place: &Path,
        interrupt: &Interrupt,
    ) -> Result<Done> {
        let [begun, status] = ["begun", "status"].map(|name| io.join(name));
        for left in [&begun, &status].into_iter().filter(|file| file.exists()) {
            fs::remove_file(left)?;
        }
        let mut start = 1;
        loop {
            let shares = self.shares.iter().map(|share| Share::start(share, place, interrupt));
            let shares = shares.collect::<Result<Vec<_>>>()?;
            let ended = self.start(&shares, limit, output.try_clone()?, place, interrupt)?;
            // A command that ended while the limit passed has ended.
            if let Ok(status) = fs::read_to_string(&status) {
                return Ok(Done::With(status.trim().parse().context("the guest tells a strange exit status")?));
            }
            match ended {
                Ended::TimedOut => return Ok(Done::TimedOut(console_tail(place))),
                Ended::With(status) if !status.success() => {
                    anyhow::bail!("QEMU ended with {status}: {}", fs::read_to_string(place.join("qemu.log"))?)
                }
                Ended::With(_) if begun.exists() || start == STARTS => return Ok(Done::Died(console_tail(place))),
                Ended::With(_) => {
                    eprintln!("The virtual machine went off before it had begun and is started again. Its console:");
                    eprintln!("{}", console_tail(place));
                }
            }
            start += 1;
        }
    }

    fn start(
        &self,
        shares: &[Share],
        limit: Duration,
        output: File,
        place: &Path,
        interrupt: &Interrupt,
    ) -> Result<Ended> {
        let socket = place.join("output.socket");
        // That of an earlier start.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).context("cannot receive the guest's output")?;
        let reader = thread::Builder::new().name("output".to_owned()).spawn(move || {
            let (mut from, mut to) = (listener.accept()?.0, output);
            io::copy(&mut from, &mut to)
        })?;
        let log = File::create(place.join("qemu.log"))?;
        let mut command = self.command(shares, &socket, place);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let ended = interrupt.spawn(&mut command).and_then(|mut qemu| interrupt.finish(&mut qemu, Some(limit)));
        // Should QEMU never have connected, the reader waits for somebody who does.
        drop(UnixStream::connect(&socket));
        // A reader that could not write has nobody to tell.
        let _ = reader.join();
        ended
    }

    fn command(&self, shares: &[Share], output: &Path, place: &Path) -> Command {
        let mut command = Command::new(QEMU);
        // The guest's memory is shared with virtiofsd.
        let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory_mib);
        command
            .args(["-accel", "tcg,thread=multi", "-smp", &CPUS.to_string(), "-cpu", CPU])
            .args(["-m", &format!("{}M", self.memory_mib), "-machine", "q35,memory-backend=memory", "-object", &memory])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console(place).display()))
            .args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"])
            .arg("-chardev")
            .arg(format!("socket,id=output,path={}", output.display()))
            .args(["-device", "virtserialport,chardev=output,name=output"])
            .arg("-kernel")
            .arg(&self.kernel)
            .args(["-append", &format!("{APPEND} {}", self.append)]);
        for Share { tag, socket, .. } in shares {
            command.arg("-chardev").arg(format!("socket,id=share-{tag},path={}", socket.display()));
            command.args(["-device", &format!("vhost-user-fs-pci,chardev=share-{tag},tag={tag}")]);
        }
        if let Some(nvme) = &self.nvme {
            command.arg("-drive").arg(drive(nvme, "nvme")).args(["-device", "nvme,drive=nvme,serial=nvme"]);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let id = format!("disk{number}");
            command.arg("-drive").arg(drive(disk, &id));
            command.args(["-device", &format!("virtio-blk-pci,drive={id},serial={id}")]);
        }
        command
    }
}

/// A raw image as QEMU's options name one: a comma is written twice.
fn drive(image: &Path, id: &str) -> String {
    format!("file={},format=raw,if=none,id={id}", image.display().to_string().replace(',', ",,"))
}

/// Where the console is kept.
fn console(place: &Path) -> PathBuf {
    place.join("console.log")
}

/// What the console said last.
fn console_tail(place: &Path) -> String {
    let said = fs::read(console(place)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}
