//! `vss-writers`: the process of the in-box writers. Each writer has a thread and a connection of its own and uses the same
//! public socket as everybody's writer; those that must be another user have a process of their own.

mod arguments;
mod log;
mod owners;

use crate::arguments::{Arguments, Only};
use crate::log::Log;
use crate::owners::Owners;
use anyhow::{Context, Result};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use vss_linux::process::signal_descriptor;
use vss_writer::{AnyWriter, Monitor, Notice, Options, RunError, Stop, run};
use vss_writer_postgresql::{PostgresqlWriter, Sources};
use vss_writer_script::{Places, load};

/// What the main thread waits for.
enum Message {
    /// A signal came, or the parent is gone.
    End,
    /// A writer's first registration is settled.
    Settled,
    /// A writer's thread has ended.
    Ended(String, Result<(), RunError>),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match serve(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vss-writers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<ExitCode> {
    // Before any other thread exists: all of them must leave the signals to the descriptor.
    let signals = signal_descriptor(&[Signal::TERM, Signal::INT]).context("cannot receive signals")?;
    let log = Arc::new(Log::start().context("cannot start the log's thread")?);
    let (sender, receiver) = channel();
    watch(signals, sender.clone())?;
    if arguments.exit_with_parent {
        watch_parent(sender.clone())?;
    }
    let (stopper, stop) = Stop::new().context("no file descriptor left")?;
    let mut threads = Vec::new();
    for writer in writers(arguments, &log)? {
        threads.push(spawn(writer, threads.len(), arguments, &stop, &log, &sender)?);
    }
    if arguments.only.is_none() && !arguments.no_postgresql && is_root() {
        threads.push(Owners::keep(arguments.socket.clone(), stop.clone(), Arc::clone(&log), sender, Message::Settled)?);
    }
    let refused = wait(&receiver, threads.len(), arguments.notify_ready, &log);
    drop(stopper);
    for thread in threads {
        // A writer that panicked has lost its connection, which the service has noticed.
        let _ = thread.join();
    }
    log.finish();
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The writers that this process serves itself.
fn writers(arguments: &Arguments, log: &Log) -> Result<Vec<Box<dyn AnyWriter + Send>>> {
    let postgresql = |user: &Option<String>| -> Result<Box<dyn AnyWriter + Send>> {
        let writer = PostgresqlWriter::new(Sources::default(), user.clone());
        Ok(Box::new(writer.context("cannot serve PostgreSQL")?))
    };
    if let Some(Only::Postgresql { user }) = &arguments.only {
        return Ok(vec![postgresql(user)?]);
    }
    let runtime = arguments.runtime_dir.clone().or_else(|| arguments.socket.parent().map(Into::into));
    let loaded = load(&Places {
        directory: arguments.directory.clone(),
        freeze_directories: arguments.freeze_directory.clone(),
        runtime: runtime.unwrap_or_default(),
    });
    loaded.problems.into_iter().for_each(|problem| log.line(problem));
    let mut writers = loaded.writers;
    // Root starts processes for others; anybody else can serve what is his own.
    let own = rustix::process::geteuid().as_raw();
    if !arguments.no_postgresql && !is_root() && !Sources::default().clusters_of(own).is_empty() {
        writers.push(postgresql(&None)?);
    }
    Ok(writers)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits for the end. True: there were writers, and every one was refused. What keeps the processes of owners counts as one
/// that never is.
fn wait(receiver: &Receiver<Message>, writers: usize, notify: bool, log: &Log) -> bool {
    let (mut settled, mut ended) = (0, 0);
    loop {
        if notify && settled == writers {
            // Nobody may be listening any more; that is told by the end of standard input.
            let _ = std::io::stdout().write_all(b"READY=1\n").and_then(|()| std::io::stdout().flush());
            settled += 1;
        }
        match receiver.recv() {
            Ok(Message::Settled) => settled += 1,
            Ok(Message::Ended(name, outcome)) => {
                ended += 1;
                if let Err(error) = outcome {
                    log.line(format!("{name}: gave up: {error}"));
                }
                if ended == writers {
                    return true;
                }
            }
            Ok(Message::End) | Err(_) => return false,
        }
    }
}

/// Runs one writer on a thread of its own.
fn spawn(
    mut writer: Box<dyn AnyWriter + Send>,
    index: usize,
    arguments: &Arguments,
    stop: &Stop,
    log: &Arc<Log>,
    sender: &Sender<Message>,
) -> Result<thread::JoinHandle<()>> {
    let name = writer.registration().name;
    let (socket, stop, sender) = (arguments.socket.clone(), stop.clone(), sender.clone());
    let monitor = Reporter {
        name: name.clone(),
        index,
        log: Arc::clone(log),
        first: std::sync::Once::new(),
        sender: sender.clone(),
    };
    let body = move || {
        let outcome = run(&socket, &mut *writer, &Options { stop: Some(&stop), reconnect: true, monitor: &monitor });
        monitor.settled();
        // The main thread has left its loop once the stop flag is up.
        let _ = sender.send(Message::Ended(name, outcome));
    };
    thread::Builder::new().name("writer".into()).spawn(body).context("cannot start a writer's thread")
}

/// Writes down what happens to one writer.
struct Reporter {
    name: String,
    index: usize,
    log: Arc<Log>,
    first: std::sync::Once,
    sender: Sender<Message>,
}

impl Reporter {
    fn settled(&self) {
        self.first.call_once(|| drop(self.sender.send(Message::Settled)));
    }
}

impl Monitor for Reporter {
    fn notice(&self, notice: &Notice<'_>) {
        self.log.note(self.index, &self.name, notice);
        if matches!(notice, Notice::Registered { .. } | Notice::Waiting { .. }) {
            self.settled();
        }
    }
}

/// Turns the first signal into the end.
fn watch(signals: OwnedFd, sender: Sender<Message>) -> Result<()> {
    let body = move || {
        // A failed poll is a signal to another thread, or a passing shortage.
        while !poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None).is_ok_and(|ready| ready > 0)
        {
        }
        let _ = sender.send(Message::End);
    };
    thread::Builder::new().name("signals".into()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

/// Turns the end of standard input into the end.
fn watch_parent(sender: Sender<Message>) -> Result<()> {
    let body = move || {
        let mut bytes = [0; 64];
        while matches!(std::io::stdin().read(&mut bytes), Ok(1..)) {}
        let _ = sender.send(Message::End);
    };
    thread::Builder::new().name("parent".into()).spawn(body).context("cannot start a thread")?;
    Ok(())
}
