//! A disk that stops answering, or writes slowly, when it is told to: one file in a FUSE file system.
//!
//! ```text
//! stalling_disk MOUNT_POINT MIB
//! ```
//!
//! Mounts itself, says `ready`, and reads commands: `stall` and `go`; `slow` and `fast`. It is a process of its own, so that nothing that hangs on
//! it keeps it from being let go: at the end of its input, and [`LONGEST`] after a `stall` whatever has become of the test.

mod wire;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    let is_slow = Arc::new(AtomicBool::new(false));
    let told = (Arc::clone(&gate), Arc::clone(&is_slow));
    thread::spawn(move || {
        obey(&told.0, &told.1);
        let _ = unmount(&point, UnmountFlags::DETACH);
        thread::sleep(FAREWELL);
        // Breaks off whatever is left of the connection.
        std::process::exit(1);
    });
    println!("ready");
    serve(&Arc::new(device), &Arc::new(data), &gate, &is_slow);
    Ok(())
}

/// Does what it is told until nobody can tell it any more.
fn obey(gate: &Gate, is_slow: &AtomicBool) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "slow" => is_slow.store(true, Ordering::Relaxed),
            "fast" => is_slow.store(false, Ordering::Relaxed),
            _ => gate.close(line == "stall"),
        }
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
fn serve(device: &Arc<File>, data: &Arc<File>, gate: &Gate, is_slow: &AtomicBool) {
    let mut buffer = vec![0; BUFFER];
    // ENODEV: unmounted. Whatever else it is, the end of this process breaks the connection off.
    while let Ok(length) = device.as_ref().read(&mut buffer) {
        let Some(request) = Request::read(&buffer[..length]) else { return };
        gate.pass();
        if request.operation == wire::WRITE && is_slow.load(Ordering::Relaxed) {
            // A thread each, as many as the kernel lets be under way: the others don't wait for it.
            let (packet, device, data) = (buffer[..length].to_vec(), Arc::clone(device), Arc::clone(data));
            thread::spawn(move || {
                if let Some(request) = Request::read(&packet) {
                    reply(&device, request.unique, &write_slowly(&request, &data));
                }
            });
        } else if let Some(answer) = answer(&request, data) {
            reply(device, request.unique, &answer);
        }
    }
}

fn reply(mut device: &File, unique: u64, answer: &Answer) {
    // ENOENT: who asked has been killed and does not wait any more.
    let _ = device.write_all(&answer.packet(unique));
}

/// Waits, writes the first half, waits, writes the rest.
fn write_slowly(request: &Request<'_>, data: &File) -> Answer {
    let (offset, _) = request.range();
    let bytes = request.data();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    thread::sleep(some_time());
    let half = data.write_all_at(first, offset);
    thread::sleep(some_time());
    let whole = half.and_then(|()| data.write_all_at(rest, offset + first.len() as u64));
    whole.map_or_else(|_| Answer::error(Errno::IO), |()| Answer::written(bytes.len()))
}

/// From 1 to 15 ms, another one each time.
fn some_time() -> Duration {
    static SEED: AtomicU64 = AtomicU64::new(0);
    // Of Weyl: the fraction of the golden ratio, spread evenly.
    let number = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) >> 32;
    Duration::from_micros(1000 + number % 14_000)
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
