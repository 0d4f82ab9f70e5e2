//! One process for each user that owns running PostgreSQL clusters: a server lets a client in by the user it runs as.
//!
//! The processes are this program again, as `vss-writers postgresql`. They live until we end; a server that is stopped
//! meanwhile is just not named in the next backup.

use crate::log::Log;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vss_linux::child::{become_user, bind_to_parent};
use vss_linux::process::Signal;
use vss_linux::user::User;
use vss_writer::Stop;
use vss_writer_postgresql::{Owner, Sources};

/// How often new clusters are looked for.
const LOOK: Duration = Duration::from_secs(10);
/// How often the processes are looked after.
const CARE: Duration = Duration::from_millis(500);
/// Most users that are served: each is a process.
const MOST: usize = 16;
/// How long the first processes may take to join before we say that we are ready.
const JOIN: Duration = Duration::from_secs(4);
/// How long a process may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(8);
/// First and longest pause before a process that ended is started again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Our own program, wherever it lies: the user may not be able to reach its directory.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The processes of all owners.
pub(crate) struct Owners {
    sources: Sources,
    socket: PathBuf,
    log: Arc<Log>,
    /// By uid: an owner's servers may run in several groups, and a second process for him would be refused.
    served: BTreeMap<u32, Served>,
}

/// The process of one owner.
struct Served {
    owner: Owner,
    /// None while it waits to be started again.
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

impl Owners {
    /// Starts a thread that keeps the processes until the stop flag. It sends `settled` once, as soon as those for the
    /// clusters that run now have joined.
    pub(crate) fn keep<M: Send + 'static>(
        socket: PathBuf,
        stop: Stop,
        log: Arc<Log>,
        sender: Sender<M>,
        settled: M,
    ) -> Result<JoinHandle<()>> {
        let mut owners = Self { sources: Sources::default(), socket, log, served: BTreeMap::new() };
        let body = move || {
            let deadline = Instant::now() + JOIN;
            for ready in owners.look() {
                // An end of the process, or of our patience: ready without it.
                let _ = ready.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            // The main thread has left its loop once the stop flag is up.
            let _ = sender.send(settled);
            let mut looked = Instant::now();
            while !is_up(&stop) {
                owners.reap();
                if looked.elapsed() >= LOOK {
                    owners.look();
                    looked = Instant::now();
                }
            }
            owners.end();
        };
        thread::Builder::new().name("owners".into()).spawn(body).context("cannot start a thread")
    }

    /// Starts what is missing. Each receiver hears when its process has joined.
    fn look(&mut self) -> Vec<std::sync::mpsc::Receiver<()>> {
        for owner in self.sources.owners() {
            if self.served.len() < MOST {
                let (started, pause) = (Instant::now(), Duration::ZERO);
                self.served.entry(owner.uid).or_insert(Served { owner, child: None, started, pause });
            }
        }
        let mut joining = Vec::new();
        for (uid, served) in &mut self.served {
            if served.child.is_some() || served.started.elapsed() < served.pause {
                continue;
            }
            served.started = Instant::now();
            served.pause = (served.pause * 2).clamp(PAUSES.0, PAUSES.1);
            match start(served.owner, &self.socket) {
                Ok((child, ready)) => {
                    served.child = Some(child);
                    joining.push(ready);
                }
                Err(error) => {
                    self.log.line(format!("cannot serve the PostgreSQL clusters of uid {uid}: {error:#}"));
                }
            }
        }
        joining
    }

    /// Takes leave of those that have ended; the next look starts them again, ever more slowly when they do not last.
    fn reap(&mut self) {
        let mut is_missing = false;
        for (uid, served) in &mut self.served {
            if let Some(child) = &mut served.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.log.line(format!("the writer of the PostgreSQL clusters of uid {uid} ended: {status}"));
                served.child = None;
                if served.started.elapsed() > PAUSES.1 {
                    served.pause = PAUSES.0;
                }
            }
            is_missing |= served.child.is_none() && served.started.elapsed() >= served.pause;
        }
        if is_missing {
            self.look();
        }
    }

    /// Ends all: each sees the end of its standard input, undoes what it holds, and goes.
    fn end(mut self) {
        let mut children: Vec<Child> = self.served.values_mut().filter_map(|served| served.child.take()).collect();
        children.iter_mut().for_each(|child| drop(child.stdin.take()));
        let deadline = Instant::now() + FAREWELL;
        for child in &mut children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            // Fails for one that has gone, as it should have.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts the process of one owner.
fn start(owner: Owner, socket: &std::path::Path) -> Result<(Child, std::sync::mpsc::Receiver<()>)> {
    let user = User::by_uid(owner.uid)?.context("the system does not know this user")?;
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0("vss-writers").arg("postgresql").arg("--socket").arg(socket);
    command.args(["--notify-ready", "--exit-with-parent"]).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    become_user(&mut command, owner.uid, owner.gid, user.groups(owner.gid)?);
    bind_to_parent(&mut command, Signal::TERM);
    let mut child = command.spawn().context("cannot start its writer")?;
    let (sender, receiver) = channel();
    let said = child.stdout.take().context("its standard output is not ours")?;
    let body = move || {
        let mut lines = BufReader::new(said).lines();
        while let Some(Ok(line)) = lines.next()
            && line != "READY=1"
        {}
        // Nobody waits beyond the first time.
        let _ = sender.send(());
    };
    thread::Builder::new().name("joining".into()).spawn(body).context("cannot start a thread")?;
    Ok((child, receiver))
}

/// Waits a little; true when the stop flag is up.
fn is_up(stop: &Stop) -> bool {
    let pause = Timespec { tv_sec: 0, tv_nsec: CARE.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)], Some(&pause)).is_ok_and(|ready| ready > 0)
}
