//! One instance of the service: the two directories that tell it from others, and what lies in them (design 2.3).

use std::path::{Path, PathBuf};

/// Where an instance keeps its sockets, its lock and its exposures, and where its catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    runtime_dir: PathBuf,
    state_dir: PathBuf,
}

impl Instance {
    /// The runtime directory of the machine's own instance.
    pub const RUNTIME_DIR: &'static str = "/run/vss";
    /// The state directory of the machine's own instance.
    pub const STATE_DIR: &'static str = "/var/lib/vss";

    /// The instance with these directories. Both should be absolute: the service has another working directory.
    #[must_use]
    pub fn new(runtime_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self { runtime_dir: runtime_dir.into(), state_dir: state_dir.into() }
    }

    /// Sockets, lock, ledger, exposures; emptied by a reboot.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The catalogue; kept over reboots.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The socket of requesters and of management.
    #[must_use]
    pub fn requester_socket(&self) -> PathBuf {
        self.runtime_dir.join("requester")
    }

    /// The lock that the service holds while it runs.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.runtime_dir.join("instance.lock")
    }

    /// The lock that a command holds while it starts the service.
    #[must_use]
    pub fn start_lock_file(&self) -> PathBuf {
        self.runtime_dir.join("start.lock")
    }

    /// The standard error of a service that was started on demand.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.runtime_dir.join("vssd.log")
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new(Self::RUNTIME_DIR, Self::STATE_DIR)
    }
}
