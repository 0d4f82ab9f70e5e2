//! A program that writes while something is measured.

use crate::interrupt::{Interrupt, end};
use anyhow::Result;
use std::process::{Child, Command};
use vss_linux::process::PidFd;

/// It runs, and is ended when this is dropped.
pub(super) struct Load(Child);

impl Load {
    pub(super) fn start(command: &mut Command, interrupt: &Interrupt) -> Result<Self> {
        Ok(Self(interrupt.spawn(command)?))
    }

    /// False when it has ended by itself.
    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Ok(pidfd) = PidFd::open(self.0.id()) {
            let _ = end(&mut self.0, &pidfd);
        }
    }
}
