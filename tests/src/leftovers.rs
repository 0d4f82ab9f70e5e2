//! What there is of an instance of the service on the machine, whoever started it: its processes, mounts and tracers, and
//! the end of what outlives them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vss_linux::mountinfo;

use crate::instance::{Instance, is_alive};

impl Instance {
    /// The living processes of this instance: all that were started by it, and what they started.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let own = std::process::id();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != own && self.has_started(*pid) && is_alive(*pid))
            .map(|pid| Process { pid, name: name_of(pid) })
            .collect()
    }

    /// The environment tells it; the guard has none, but its ledger lies in our directory.
    fn has_started(&self, pid: u32) -> bool {
        let directory = self.path().as_os_str().as_bytes();
        let names_us = |file: &str| {
            fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|text| text.windows(directory.len()).any(|part| part == directory))
        };
        names_us("environ") || (name_of(pid) == "vss-guard" && names_us("cmdline"))
    }

    /// The mount points below this instance's directory, outermost first.
    #[must_use]
    pub fn mounts(&self) -> Vec<PathBuf> {
        let mounts = mountinfo::mounts().unwrap_or_default();
        mounts.into_iter().map(|mount| mount.mount_point).filter(|place| place.starts_with(self.path())).collect()
    }

    /// The tracers of this instance, by the names of their volumes.
    #[must_use]
    pub fn tracers(&self) -> Vec<String> {
        let entries = self.tracer_directory().and_then(|directory| fs::read_dir(directory).ok());
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn tracer_directory(&self) -> Option<PathBuf> {
        let any = vss_trace::Pins::new(&self.state_dir().to_string_lossy(), "any");
        any.directory().parent().map(Path::to_owned)
    }

    /// Ends the tracers of this instance, which outlive its processes.
    pub(crate) fn remove_tracers(&self) {
        let Some(directory) = self.tracer_directory() else { return };
        for tracer in self.tracers() {
            let tracer = directory.join(tracer);
            for pin in fs::read_dir(&tracer).into_iter().flatten().flatten() {
                let _ = fs::remove_file(pin.path());
            }
            let _ = fs::remove_dir(tracer);
        }
        let _ = fs::remove_dir(directory);
    }
}

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The name of its program, at most 15 bytes.
    pub name: String,
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
