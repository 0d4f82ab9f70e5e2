//! The whole service: directories, locks, recovery, sockets, coordinator, and its end.

use crate::api::door::Door;
use crate::catalogue::Catalogue;
use crate::config::{Config, ConfigError};
use crate::coordinator::{Action, Beginning, Coordinator};
use crate::creation_lock;
use crate::environment::Environment;
use crate::events::Events;
use crate::exposure::Exposures;
use crate::guard_hold::GuardMaker;
use crate::inbox_writers::InboxWriters;
use crate::providers::Providers;
use crate::recovery;
use crate::rules::Rules;
use crate::storage;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vss_api::server::{Bounds, Face, serve};
use vss_model::{VssError, limits};

/// How long followers of the events are given to take the last ones.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the service is to run.
pub struct Options {
    /// Sockets, ledgers, mounts; gone with the boot.
    pub runtime_directory: PathBuf,
    /// The catalogue.
    pub state_directory: PathBuf,
    /// The program `vss-guard`.
    pub guard: PathBuf,
    /// The program `vss-writers`, which an instance on demand starts itself; none: somebody else does.
    pub writers: Option<PathBuf>,
    /// End when idle.
    pub on_demand: bool,
    /// Sockets that somebody made for us (requester, writer); none: we make them.
    pub sockets: Option<(std::os::unix::net::UnixListener, std::os::unix::net::UnixListener)>,
}

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another vssd has this runtime directory.
    #[error("another vssd is running with the runtime directory {0}")]
    Running(PathBuf),
    /// A file or directory could not be made or used.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `vss.toml` is wrong.
    #[error("the settings are wrong")]
    Config(#[from] ConfigError),
    /// The catalogue or the exposures.
    #[error(transparent)]
    Vss(#[from] VssError),
}

/// A service that is ready to serve.
pub struct Service {
    options: Options,
    coordinator: Coordinator,
    environment: Arc<Environment>,
    events: Arc<Events>,
    actions: mpsc::UnboundedSender<Action>,
    door: Arc<Door>,
    config: Config,
    requester_socket: UnixListener,
    writer_socket: UnixListener,
    report: Vec<String>,
    /// Held as long as the service runs.
    _instance: std::fs::File,
}

impl Service {
    /// Takes the instance lock, recovers, and opens the sockets. `providers` makes the providers from the settings.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(mut options: Options, providers: impl FnOnce(&Config) -> Providers) -> Result<Self, StartError> {
        make_directory(&options.runtime_directory, 0o755)?;
        let instance = lock_instance(&options.runtime_directory)?;
        // First of all: whatever is frozen must flow. The other directories may lie on it.
        let mut report = recovery::thaw(&options.runtime_directory);
        make_directory(&options.state_directory, 0o700)?;
        let config = Config::load(&options.state_directory)?;
        crate::fault::prepare();
        let exposures = Arc::new(Exposures::new(&options.runtime_directory)?);
        let environment = Arc::new(Environment {
            catalogue: Catalogue::open(&options.state_directory)?,
            providers: providers(&config),
            staging: exposures.clone(),
            exposures,
            holds: Arc::new(GuardMaker {
                program: options.guard.clone(),
                runtime_directory: std::fs::canonicalize(&options.runtime_directory)
                    .map_err(|source| StartError::Path { path: options.runtime_directory.clone(), source })?,
            }),
            changes: tokio::sync::Mutex::new(()),
            forecasts: tokio::sync::Semaphore::new(limits::FORECASTS),
            events: Arc::default(),
            inbox_writers: InboxWriters::default(),
            boot_id: vss_linux::clock::boot_id()
                .map_err(|source| StartError::Path { path: "/proc/sys/kernel/random/boot_id".into(), source })?,
        });
        report.extend(recovery::recover(&environment));
        let events = Arc::clone(&environment.events);
        events.started(&report);
        let rules = Rules::new(&config, Path::new("/etc/group"));
        let (coordinator, actions) = Coordinator::new(Beginning {
            environment: Arc::clone(&environment),
            writers: config.writers.clone(),
            creation_lock: PathBuf::from(creation_lock::FILE),
            state_directory: options.state_directory.clone(),
            recovery: report.clone(),
            on_demand: options.on_demand,
        });
        let door = Arc::new(Door { rules, actions: actions.clone() });
        let (requester_socket, writer_socket) = match options.sockets.take() {
            Some((requester, writer)) => (inherited(requester)?, inherited(writer)?),
            None => (
                listen(&options.runtime_directory.join("requester"))?,
                listen(&options.runtime_directory.join("writer"))?,
            ),
        };
        Ok(Self {
            options,
            coordinator,
            environment,
            events,
            actions,
            door,
            config,
            requester_socket,
            writer_socket,
            report,
            _instance: instance,
        })
    }

    /// What recovery did, one line each.
    #[must_use]
    pub fn report(&self) -> &[String] {
        &self.report
    }

    /// What tells the service to stop.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.actions.clone())
    }

    /// Serves until it is stopped or, on demand, idle. `ready` is called when the sockets answer and the in-box writers have
    /// joined.
    pub async fn run(self, ready: impl FnOnce()) {
        let shutdown = CancellationToken::new();
        let requesters = Bounds::default();
        // Room for every writer that may register, and for some that will be told that they may not.
        let writers = Bounds {
            connections: limits::WRITERS + 256,
            connections_per_uid: limits::WRITERS_PER_UID + 64,
            ..requesters
        };
        let faces = [(self.requester_socket, Face::Requester, requesters), (self.writer_socket, Face::Writer, writers)];
        let mut doors = tokio::task::JoinSet::new();
        for (socket, face, bounds) in faces {
            doors.spawn(serve(socket, face, self.door.clone(), bounds, shutdown.clone()));
        }
        let coordinator = tokio::spawn(self.coordinator.run());
        let untended = CancellationToken::new();
        let tending = tokio::spawn(storage::tend(Arc::clone(&self.environment), untended.clone()));
        let writers = &self.environment.inbox_writers;
        writers.start(&self.options, &self.config.writers).await;
        ready();
        // A coordinator that was told to stop meanwhile needs no word.
        drop(self.actions.send(Action::Ready));
        if let Err(error) = coordinator.await {
            tracing::error!(%error, "the coordinator broke off");
        }
        // A round that is under way is small work, and killed it would be left for the next start.
        untended.cancel();
        if tokio::time::timeout(limits::PROVIDER_IN_WINDOW, tending).await.is_err() {
            tracing::warn!("the shadow storage is still being tended");
        }
        self.events.stopped();
        self.events.drained(LAST_WORDS).await;
        shutdown.cancel();
        while doors.join_next().await.is_some() {}
        writers.stop().await;
    }
}

/// Tells a service to stop.
#[derive(Clone)]
pub struct Stopper(mpsc::UnboundedSender<Action>);

impl Stopper {
    /// Tells it: sessions end as if their requesters had gone, then the service does.
    pub fn stop(&self) {
        drop(self.0.send(Action::Stop));
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StartError> {
    let failed = |source| StartError::Path { path: path.to_path_buf(), source };
    if !path.is_dir() {
        std::fs::create_dir_all(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// One vssd a runtime directory: flock(2), gone with the process.
fn lock_instance(runtime_directory: &Path) -> Result<std::fs::File, StartError> {
    let path = runtime_directory.join("instance.lock");
    let failed = |error: rustix::io::Errno| StartError::Path { path: path.clone(), source: error.into() };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Running(runtime_directory.to_path_buf())),
        Err(error) => Err(failed(error)),
    }
}

/// A new socket; the instance lock is held, so one that is there belongs to nobody. Who may use it is decided by the peer's
/// credentials, so everybody may connect.
fn listen(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |source| StartError::Path { path: path.to_path_buf(), source };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

fn inherited(listener: std::os::unix::net::UnixListener) -> Result<UnixListener, StartError> {
    let failed = |source| StartError::Path { path: "the inherited socket".into(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}
