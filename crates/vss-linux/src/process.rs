//! What a process does to itself and to others: memory locking, out-of-memory score, signal dispositions, process groups
//! and pidfds. Starting programs is left to `std::process`.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::process::{Pid, PidfdFlags};

pub use rustix::process::Signal;

/// Locks all memory that this process has and will have, so that no page fault waits for a disk (mlockall(2)).
///
/// # Errors
/// ENOMEM or EPERM without CAP_IPC_LOCK.
pub fn lock_memory() -> io::Result<()> {
    Ok(rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?)
}

/// As [`lock_memory`], but a page is locked when it is first touched: for a program with many threads, whose stacks would
/// otherwise all be made real at once (mlockall(2), MCL_ONFAULT).
///
/// # Errors
/// As [`lock_memory`].
pub fn lock_touched_memory() -> io::Result<()> {
    Ok(rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Touches 32 KiB of this thread's stack, so that deep calls later need no new page even where [`lock_memory`] failed.
#[inline(never)]
pub fn fault_in_stack() {
    let mut pages = [0u8; 32 * 1024];
    for byte in pages.iter_mut().step_by(4096) {
        // A volatile-like use: without it the array would be optimised away.
        *std::hint::black_box(byte) = 1;
    }
    std::hint::black_box(&pages);
}

/// Tells the kernel how willingly to kill this process when memory is short: -1000 (never) to 1000 (proc(5)).
///
/// # Errors
/// EACCES when it would be lowered without CAP_SYS_RESOURCE.
pub fn set_oom_score(score: i16) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// Sets this thread's share of busy processors, and that of the threads that it makes later: -20 (most) to 19 (setpriority(2)).
///
/// # Errors
/// EACCES when it would be raised without CAP_SYS_NICE.
pub fn set_nice(nice: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// Makes this process the leader of a new process group inside its session (setpgid(2)).
///
/// # Errors
/// EPERM for a session leader, which has a group of its own already.
pub fn own_process_group() -> io::Result<()> {
    Ok(rustix::process::setpgid(None, None)?)
}

/// Makes this process the leader of a new session, without a terminal (setsid(2)).
///
/// # Errors
/// EPERM for a process group leader.
pub fn own_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Ignores `signals` from now on, in every thread.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn ignore_signals(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN runs no code of ours; the number comes from a `Signal`, so it is a real one.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Blocks `signals` in this thread and in every thread that it makes later, and returns a descriptor that is readable
/// while one of them is pending (signalfd(2)); CLOEXEC and non-blocking.
///
/// Call it before any other thread exists: a thread that does not block the signal would receive it.
///
/// # Errors
/// No descriptor left.
pub fn signal_descriptor(signals: &[Signal]) -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before anything reads it; every pointer lives through its call; the
    // descriptor that signalfd returns is new and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal.as_raw());
        }
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// A handle on a process that can never mean another one (pidfd_open(2)).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens process `pid`. Safe from reuse of the number only while the caller knows that the process lives or is an
    /// unreaped child.
    ///
    /// # Errors
    /// ESRCH when there is no such process; EINVAL for a number that is no pid.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// ESRCH when the process has been reaped; EPERM.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, signal)?)
    }

    /// True when every thread of the process has ended: no system call of it can be running any more. A killed process
    /// with a thread in an uninterruptible call is *not* gone.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&crate::clock::timespec(0))), Ok(ready) if ready > 0)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `/proc/PID/stat` or that of one thread, opened beforehand: tells the death of a process that is not gone yet.
#[derive(Debug)]
pub struct ProcessStat(File);

impl ProcessStat {
    /// Opens it for process `pid`; see [`PidFd::open`] about the number.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/stat")).map(Self)
    }

    /// Opens it for every thread of process `pid`, each with its name. A thread that ends meanwhile is left out.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn open_threads(pid: u32) -> io::Result<Vec<(String, Self)>> {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let open = |directory: std::path::PathBuf| {
            let name = fs::read_to_string(directory.join("comm")).ok()?;
            Some((name.trim_end().to_owned(), Self(File::open(directory.join("stat")).ok()?)))
        };
        Ok(threads.filter_map(|thread| open(thread.path())).collect())
    }

    /// True when the main thread, or this one, has ended: at once when the process is killed, even while another thread of
    /// it is in an uninterruptible system call. True too when it has been reaped.
    pub fn is_dying(&self) -> bool {
        matches!(self.state(), None | Some(b'Z' | b'X'))
    }

    /// True while it is in a system call that no signal ends (D).
    pub fn is_uninterruptible(&self) -> bool {
        self.state() == Some(b'D')
    }

    /// The letter of its state; none when there is no such process any more.
    fn state(&self) -> Option<u8> {
        // `PID (NAME) STATE ...`; the name has at most 15 bytes (proc_pid_stat(5)).
        let mut line = [0u8; 64];
        let length = self.0.read_at(&mut line, 0).ok()?;
        let line = &line[..length];
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        line.get(name_end + 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_child_is_dying_and_gone_and_this_process_is_neither() -> io::Result<()> {
        let ours = std::process::id();
        assert!(!ProcessStat::open(ours)?.is_dying() && !PidFd::open(ours)?.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
        let (stat, process) = (ProcessStat::open(child.id())?, PidFd::open(child.id())?);
        assert!(!stat.is_dying() && !process.is_gone());
        process.signal(Signal::KILL)?;
        while !process.is_gone() {
            std::thread::yield_now();
        }
        assert!(stat.is_dying(), "a zombie");
        child.wait()?;
        assert!(stat.is_dying() && process.is_gone(), "reaped");
        Ok(())
    }

    #[test]
    fn niceness_is_that_of_the_thread_and_of_those_it_makes() -> io::Result<()> {
        let nice = || rustix::process::getpriority_process(None);
        let before = nice()?;
        let made = std::thread::spawn(move || {
            set_nice(19)?;
            io::Result::Ok(std::thread::spawn(nice).join().map(Result::ok).ok().flatten())
        });
        assert_eq!(made.join().ok().and_then(Result::ok).flatten(), Some(19));
        assert_eq!(nice()?, before);
        Ok(())
    }

    #[test]
    fn a_thread_is_told_from_its_process() -> io::Result<()> {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("vss-told-apart".to_owned()).spawn(move || ended.recv())?;
        let find = || {
            let threads = ProcessStat::open_threads(std::process::id())?;
            io::Result::Ok(threads.into_iter().find(|(name, _)| name == "vss-told-apart").map(|(_, stat)| stat))
        };
        let stat = loop {
            // It names itself when it begins.
            if let Some(stat) = find()? {
                break stat;
            }
        };
        assert!(!stat.is_dying() && !stat.is_uninterruptible());
        drop(end);
        let _ = thread.join();
        while !stat.is_dying() {
            std::thread::yield_now();
        }
        assert!(find()?.is_none() && !ProcessStat::open(std::process::id())?.is_dying());
        Ok(())
    }
}
