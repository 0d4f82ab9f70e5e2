//! How far work on the files of a backup is, and the wish to stop it.

use super::Meter;
use crate::output::{counted, say};
use crate::signals::Signals;
use std::path::{Path, PathBuf};
use vss_backup::directory::Totals;
use vss_backup::progress::Progress;

/// Says how far it is, by bytes and files, and where.
#[derive(Debug)]
pub(crate) struct FileMeter {
    meter: Meter,
    signals: Signals,
    bytes: u64,
    files: u64,
    at: PathBuf,
    told_to_stop: bool,
}

impl FileMeter {
    /// Of `what` is being done (`copying`), of so many bytes if that is known.
    pub(crate) fn new(what: &'static str, signals: Signals, total: Option<u64>) -> Self {
        let meter = Meter::new(what, total.filter(|bytes| *bytes > 0));
        Self { meter, signals, bytes: 0, files: 0, at: PathBuf::new(), told_to_stop: false }
    }

    fn show(&mut self) {
        // After a wish to stop its own line is the last.
        if !self.told_to_stop {
            let (files, at) = (self.files, &self.at);
            self.meter.show_with(self.bytes, || format!("; {}, now {}", counted(files, "file"), at.display()));
        }
    }
}

impl Progress for FileMeter {
    fn at(&mut self, path: &Path, done: &Totals) {
        self.files = done.files;
        path.clone_into(&mut self.at);
        self.show();
    }

    fn bytes(&mut self, count: u64) {
        self.bytes = self.bytes.saturating_add(count);
        self.show();
    }

    fn stop(&mut self) -> bool {
        let stop = self.signals.wishes() > 0;
        if stop && !self.told_to_stop {
            self.told_to_stop = true;
            say("vss: stopping; what is done is kept");
        }
        stop
    }
}
