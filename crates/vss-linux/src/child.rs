//! What a child process must not inherit, and what ties it to its parent: set between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid};

/// Lets `command`'s process be independent of this one: it inherits no descriptor but its standard three, and no blocked
/// signal. For a service that is started on demand: it must not keep a pipe or a lock of the caller's open.
pub fn let_go(command: &mut Command) {
    // SAFETY: the closure makes two system calls and touches no memory but its stack; both are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            close_others_on_exec()?;
            unblock_signals()
        });
    }
}

/// Makes `command`'s process run as user `uid`, group `gid` and exactly `groups`, for good: real, effective and saved ids.
/// Call it before [`bind_to_parent`], whose wish a change of user would undo.
pub fn become_user(command: &mut Command, uid: u32, gid: u32, groups: Vec<u32>) {
    // SAFETY: the closure makes three system calls, which read `groups` where it lies and nothing else; all are
    // async-signal-safe, and as direct system calls they concern the only thread that the child has.
    unsafe {
        command.pre_exec(move || {
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
            check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
        });
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ties `command`'s process to this one: it inherits no blocked signal, and gets `signal` when the thread that starts it
/// ends before it (PR_SET_PDEATHSIG), which it does at the latest with this process, however that ends.
///
/// Not for a program that changes its credentials: the kernel forgets the wish at the exec of a set-user-ID program.
pub fn bind_to_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure makes three system calls and touches no memory but its stack; all are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            unblock_signals()?;
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // The parent may have ended before the wish was made.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

/// Gives `command`'s process the default action of every signal, and blocks none: what somebody above ignores, as nohup(1)
/// does SIGHUP, would stay ignored in it.
pub fn restore_signals(command: &mut Command) {
    // SAFETY: the closure makes system calls and touches no memory but its stack; all are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            for signal in 1..=LAST_SIGNAL {
                // Refused for those that nobody can ignore, and those that the C library keeps for itself.
                let _ = libc::signal(signal, libc::SIG_DFL);
            }
            unblock_signals()
        });
    }
}

/// The highest number of a signal (signal(7)).
const LAST_SIGNAL: libc::c_int = 64;

/// Unblocks every signal in the calling thread (sigprocmask(2)).
fn unblock_signals() -> io::Result<()> {
    // SAFETY: `none` is initialised by sigemptyset before it is read, and lives through both calls.
    let result = unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Marks every descriptor from 3 on close-on-exec (close_range(2), Linux 5.11).
fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: the call takes numbers only, and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::signal_descriptor;
    use rustix::io::{FdFlags, fcntl_setfd};
    use std::process::Stdio;

    #[test]
    fn a_child_that_is_let_go_has_only_its_standard_descriptors_and_no_blocked_signal() {
        let inherited = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&inherited, FdFlags::empty()).unwrap();
        let _blocked = signal_descriptor(&[Signal::USR1]).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ls /proc/$$/fd; exec grep SigBlk /proc/self/status"]).stdin(Stdio::null());
        let_go(&mut command);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said, "0\n1\n2\nSigBlk:\t0000000000000000\n");
    }

    #[test]
    fn a_child_ignores_no_signal_that_a_parent_ignores() {
        let ignored = |restored: bool| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "exec grep SigIgn /proc/self/status"]);
            // SAFETY: the closure makes one system call, which is async-signal-safe.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGHUP, libc::SIG_IGN);
                    Ok(())
                });
            }
            if restored {
                restore_signals(&mut command);
            }
            let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
            u64::from_str_radix(said.split_whitespace().last().unwrap(), 16).unwrap()
        };
        assert_eq!(ignored(false) & 1, 1, "SIGHUP is the first");
        // The C library keeps 32 and 33 for itself: whoever starts the tests may have them ignored.
        let of_library = 0b11 << 31;
        assert_eq!(ignored(true) & !of_library, 0);
    }

    #[test]
    fn a_child_that_becomes_a_user_has_no_right_left() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: a_child_that_becomes_a_user_has_no_right_left: needs root");
            return;
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status"]).stdin(Stdio::null());
        become_user(&mut command, 65_534, 65_533, vec![65_533, 7]);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        let (uid, gid) = ("65534", "65533");
        assert_eq!(words[..10], ["Uid:", uid, uid, uid, uid, "Gid:", gid, gid, gid, gid]);
        assert_eq!(words[10..], ["Groups:", "7", gid, "CapEff:", "0000000000000000"]);
    }

    #[test]
    fn a_bound_child_gets_the_signal_when_the_thread_that_started_it_ends() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("/bin/sleep");
            command.arg("60");
            bind_to_parent(&mut command, Signal::TERM);
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::TERM.as_raw()));
    }
}
