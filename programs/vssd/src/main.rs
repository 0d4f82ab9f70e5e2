//! `vssd`: the service. Reads its arguments, starts the log, wires providers, and serves (vss-service).
//!
//! Runs in the foreground, on demand (`--idle-exit`, started by `vss`), or as a systemd unit with socket activation and
//! `sd_notify`. May be killed at any instruction.

mod journal;
mod log;
mod sockets;
mod wiring;

use anyhow::Context;
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vss_service::service::{Options, Service, Stopper};

/// Where programs lie that are not beside us.
const LIBEXEC: &str = "/usr/libexec/vss";

/// The Volume Shadow Copy Service for Linux.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  vssd                                  serve in the foreground\n  vssd --idle-exit                      serve until the last requester has left\n  vssd --runtime-dir R --state-dir S    an instance of its own, for tests"
)]
struct Arguments {
    /// Directory of the sockets, ledgers and mounts.
    #[arg(long, value_name = "DIR", default_value = "/run/vss")]
    runtime_dir: PathBuf,
    /// Directory of the catalogue.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vss")]
    state_dir: PathBuf,
    /// End when the last requester has left; start the in-box writers too.
    #[arg(long)]
    idle_exit: bool,
    /// Log more: what each session does.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.idle_exit {
        // Ctrl-C in the terminal of `vss` must not reach us. A leader of a group has a session of its own already.
        let _session = vss_linux::process::own_session();
    }
    // Sockets and exposures are for others too, whatever the umask of the `vss` that started us.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let log = log::Log::start().context("cannot start the log")?;
    start_telling(&log, if arguments.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO });
    // Page faults in a hold could wait for a held file system; without the right to lock, the guard alone is safe.
    if let Err(error) = vss_linux::process::lock_touched_memory() {
        tracing::warn!(%error, "cannot lock memory");
    }
    raise_open_files();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(serve(arguments));
            // A thread that is stuck in a provider must not keep the process alive.
            runtime.shutdown_background();
            result
        });
    log.flush(Duration::from_secs(2));
    result
}

/// What is told goes to the log: as entries for journald where standard error is its own, else as lines with their time.
fn start_telling(log: &log::Log, most: LevelFilter) {
    let told = tracing_subscriber::registry().with(most);
    if journal::is_connected() {
        return told.with(journal::Entries(log.clone())).init();
    }
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    told.with(lines.with_ansi(false).with_target(false)).init();
}

/// Every connection holds up to two descriptors, and the usual soft limit of 1024 is less than the connections that we
/// allow; the hard limit is the administrator's word.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let options = Options {
        guard: program("vss-guard")?,
        writers: if arguments.idle_exit { Some(program("vss-writers")?) } else { None },
        runtime_directory: absolute(&arguments.runtime_dir)?,
        state_directory: absolute(&arguments.state_dir)?,
        on_demand: arguments.idle_exit,
        sockets: sockets::inherited()?,
    };
    let state_directory = options.state_directory.clone();
    let providers = |config: &_| wiring::providers(config, &state_directory);
    let service = Service::start(options, providers).await.context("cannot start the service")?;
    for line in service.report() {
        tracing::info!("{line}");
    }
    stop_on_signals(service.stopper())?;
    service
        .run(|| {
            if arguments.idle_exit {
                // `vss` waits for this line; one that is gone needs nothing any more.
                drop(writeln!(std::io::stdout(), "ready"));
            }
            // Without systemd there is nobody to tell.
            drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
            tracing::info!(pid = std::process::id(), "ready");
        })
        .await;
    tracing::info!("ended");
    Ok(())
}

/// SIGTERM and SIGINT end the service as if every requester had gone.
fn stop_on_signals(stopper: Stopper) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot watch signals")?;
        let stopper = stopper.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                stopper.stop();
            }
        });
    }
    Ok(())
}

/// A program of ours: beside our own executable, else in libexec, never by PATH (design 2.3).
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find our own executable")?;
    let places = [own.with_file_name(name), Path::new(LIBEXEC).join(name)];
    places
        .iter()
        .find(|place| place.is_file())
        .cloned()
        .with_context(|| format!("{name} is neither beside {} nor in {LIBEXEC}", own.display()))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
}
