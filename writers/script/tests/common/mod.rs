//! What the tests of both writers share: programs in a temporary directory, and a call with little time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind, EventReply};
use vss_model::VssError;
use vss_writer::fake_service::event;
use vss_writer::{AnyWriter, Call};

/// A directory with programs and with the file `log`, in which they note what they are told.
pub(crate) struct Scene {
    pub(crate) directory: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes an executable shell script; `LOG` is the log's path in it. Another process writes it, so that no child of a
    /// test beside this one holds it open for writing when it is run (ETXTBSY).
    pub(crate) fn program(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("#!/bin/sh\nLOG={}\n{body}\n", self.path("log").display());
        let mut cat = Command::new("sh");
        cat.args(["-c", "umask 022; printf '%s' \"$1\" > \"$2\"", "sh", &text]).arg(&path);
        assert!(cat.status().unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The lines of the log.
    pub(crate) fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

pub(crate) fn session(seconds: u64) -> Event {
    event(Path::new("/srv/my data"), Duration::from_secs(seconds))
}

pub(crate) fn tell(writer: &mut dyn AnyWriter, event: &Event, kind: EventKind) -> Result<EventReply, VssError> {
    writer.event(&Call::new(kind, event))
}

/// True when no process has `marker` in its command line, or soon none: one that was killed is still there until it runs next.
#[allow(dead_code)]
pub(crate) fn nobody_runs(marker: &str) -> bool {
    let runs = || Command::new("pgrep").args(["-f", marker]).stdout(Stdio::null()).status().unwrap().success();
    let until = Instant::now() + Duration::from_secs(10);
    while runs() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}
