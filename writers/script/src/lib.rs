//! The script writers: applications join with a script or with freeze and thaw programs, without a line of new code.
//!
//! Here live two kinds of [`Writer`]. [`ScriptWriter`] keeps one process per session and tells it each event as a line
//! (`docs/script-writer.md` has the protocol); it is configured by a `*.toml` file. [`HookDirectory`] runs the programs
//! of a directory with `freeze` and `thaw`, as qemu-guest-agent, VMware and Veeam run theirs. [`load`] makes all writers
//! of a machine; what cannot be read becomes a [`BrokenWriter`], which fails every backup until it is mended, because the
//! application behind it would otherwise be backed up unquiesced without a word.

mod broken;
mod class_id;
mod config;
mod conversation;
mod environment;
mod hooks;
mod ledger;
mod program;
mod script;
mod tail;
mod trust;

pub use broken::BrokenWriter;
pub use class_id::class_id;
pub use config::{HooksConfig, ScriptConfig};
pub use hooks::{Dialect, HookDirectory};
pub use script::ScriptWriter;
pub use trust::{Distrust, trusted_program};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use vss_model::VssError;
use vss_writer::AnyWriter;

/// Where the writers of a machine are described.
#[derive(Debug, Clone)]
pub struct Places {
    /// Holds one `*.toml` for each script writer; may be missing.
    pub directory: PathBuf,
    /// Directories of hooks, each a writer of its own; may be missing.
    pub freeze_directories: Vec<PathBuf>,
    /// Where frozen hooks are noted, so that the next start thaws them: not on a volume that is backed up.
    pub runtime: PathBuf,
}

/// Every script writer and hook directory of the machine, in the order of their files' names. Hooks that an earlier
/// process left frozen are thawed first.
#[must_use]
pub fn load(places: &Places) -> Loaded {
    let mut loaded = Loaded::default();
    let mut names = BTreeSet::new();
    match config::files(&places.directory) {
        Ok(files) => {
            for file in files {
                match ScriptConfig::read(&file) {
                    Ok(config) if names.insert(config.name.clone()) => loaded.add(ScriptWriter::new(config)),
                    Ok(config) => loaded.add_broken(&file, format!("another file names a writer {} too", config.name)),
                    Err(problem) => loaded.add_broken(&file, problem),
                }
            }
        }
        Err(problem) => loaded.add_broken(&places.directory, problem),
    }
    for directory in places.freeze_directories.iter().filter(|directory| directory.exists()) {
        match hooks_of(directory, &places.runtime) {
            Ok((hooks, None)) => loaded.add(hooks),
            Ok((hooks, Some(problem))) => {
                loaded.problems.push(problem.while_doing("Thawing what an earlier process left").to_string());
                loaded.add(hooks);
            }
            Err(problem) => loaded.add_broken(directory, problem),
        }
    }
    loaded
}

/// The writers of a machine, and what went wrong with them.
#[derive(Default)]
pub struct Loaded {
    /// To be run, each on a thread of its own.
    pub writers: Vec<Box<dyn AnyWriter + Send>>,
    /// A sentence for each file that could not be used and for each hook that could not be thawed.
    pub problems: Vec<String>,
}

impl Loaded {
    fn add(&mut self, writer: impl AnyWriter + Send + 'static) {
        self.writers.push(Box::new(writer));
    }

    fn add_broken(&mut self, file: &Path, problem: String) {
        let broken = BrokenWriter::new(file, problem);
        self.problems.push(format!("every backup will fail: {}", broken.error()));
        self.add(broken);
    }
}

/// The hooks of a directory, and why those that were frozen could not all be thawed.
fn hooks_of(directory: &Path, runtime: &Path) -> Result<(HookDirectory, Option<VssError>), String> {
    let config = HooksConfig::beside(directory)?;
    let mut hooks = HookDirectory::new(directory, config).with_ledger(runtime);
    let problem = hooks.thaw_left_over().err();
    Ok((hooks, problem))
}
