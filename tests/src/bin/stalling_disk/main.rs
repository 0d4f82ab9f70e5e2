//! A disk that stops answering when it is told to: one file in a FUSE file system.
//!
//! ```text
//! stalling_disk MOUNT_POINT MIB
//! ```
//!
//! Mounts itself, says `ready`, and reads commands: `stall`, `go`. It is a process of its own, so that nothing that hangs on
//! it keeps it from being let go: at the end of its input, and [`LONGEST`] after a `stall` whatever has become of the test.

mod wire;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use wire::{Answer, Errno, Request};

/// Bytes of one request: 128 KiB of data and its heads, and room to spare.
const BUFFER: usize = 256 << 10;
/// The longest stall.
const LONGEST: Duration = Duration::from_secs(45);
/// Whoever uses it at the end of its input has so long to stop.
const FAREWELL: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [point, size] = arguments.as_slice() else { bail!("usage: stalling_disk MOUNT_POINT MIB") };
    let size: u64 = size.to_str().and_then(|size| size.parse().ok()).context("a size in MiB")?;
    let point = PathBuf::from(point);
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    let data = tempfile::tempfile()?;
    data.set_len(size << 20)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = std::ffi::CString::new(options)?;
    mount("stalling", &point, "fuse.stalling", MountFlags::empty(), Some(options.as_c_str())).context("fuse")?;
    let gate = Arc::new(Gate::default());
    let told = Arc::clone(&gate);
    thread::spawn(move || {
        obey(&told);
        let _ = unmount(&point, UnmountFlags::DETACH);
        thread::sleep(FAREWELL);
        // Breaks off whatever is left of the connection.
        std::process::exit(1);
    });
    println!("ready");
    serve(&device, &data, &gate);
    Ok(())
}

/// Does what it is told until nobody can tell it any more.
fn obey(gate: &Gate) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        gate.close(line == "stall");
        println!("{line}");
    }
    gate.close(false);
}

/// What every request has to pass.
#[derive(Default)]
struct Gate {
    closed_until: Mutex<Option<Instant>>,
    opened: Condvar,
}

impl Gate {
    fn close(&self, close: bool) {
        let until = close.then(|| Instant::now() + LONGEST);
        *self.closed_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = closed.map(|until| until.saturating_duration_since(Instant::now()))
            && !left.is_zero()
        {
            closed = self.opened.wait_timeout(closed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Answers until nobody uses the file system any more.
fn serve(mut device: &File, data: &File, gate: &Gate) {
    let mut buffer = vec![0; BUFFER];
    // ENODEV: unmounted. Whatever else it is, the end of this process breaks the connection off.
    while let Ok(length) = device.read(&mut buffer) {
        let Some(request) = Request::read(&buffer[..length]) else { return };
        gate.pass();
        if let Some(answer) = answer(&request, data) {
            // ENOENT: who asked has been killed and does not wait any more.
            let _ = device.write_all(&answer.packet(request.unique));
        }
    }
}

/// None for what wants no answer.
fn answer(request: &Request<'_>, data: &File) -> Option<Answer> {
    let size = || data.metadata().map(|metadata| metadata.len()).unwrap_or_default();
    Some(match request.operation {
        wire::FORGET | wire::BATCH_FORGET | wire::INTERRUPT => return None,
        wire::INIT => Answer::init(),
        wire::LOOKUP if request.name() == wire::NAME.as_bytes() => Answer::entry(size()),
        wire::LOOKUP => Answer::error(Errno::NOENT),
        // Truncation by mkfs to what it is already, and times.
        wire::GETATTR | wire::SETATTR => Answer::attributes(request.node, size()),
        wire::OPEN | wire::OPENDIR => Answer::opened(),
        wire::READ => {
            let (offset, size) = request.range();
            let mut bytes = vec![0; size];
            let read = data.read_at(&mut bytes, offset);
            read.map_or_else(|_| Answer::error(Errno::IO), |length| Answer::of(bytes[..length].to_vec()))
        }
        wire::WRITE => {
            let (offset, _) = request.range();
            let bytes = request.data();
            let written = data.write_all_at(bytes, offset);
            written.map_or_else(|_| Answer::error(Errno::IO), |()| Answer::written(bytes.len()))
        }
        wire::FSYNC => data.sync_data().map_or_else(|_| Answer::error(Errno::IO), |()| Answer::of(Vec::new())),
        wire::STATFS => Answer::statfs(),
        wire::RELEASE | wire::RELEASEDIR | wire::FLUSH | wire::READDIR | wire::DESTROY => Answer::of(Vec::new()),
        _ => Answer::error(Errno::NOSYS),
    })
}
