//! Where things lie: the workspace, its packages, cargo and the programs that it builds.

use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that a server needs, all built by `cargo build --release`.
pub(crate) const PROGRAMS: [&str; 4] = ["vssd", "vss-guard", "vss", "vss-writers"];

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The cargo that runs us, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set by the `cargo run` that started us; a cargo below us must not take them for its own.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
    command
}

/// What `cargo metadata` says of the workspace; the fields that we read.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// The members.
    pub(crate) packages: Vec<Package>,
    /// Where cargo builds.
    pub(crate) target_directory: PathBuf,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// As cargo's messages name it.
    pub(crate) id: String,
    /// Its Cargo.toml.
    pub(crate) manifest_path: PathBuf,
    /// What it depends on, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
    /// What is built of it.
    pub(crate) targets: Vec<Target>,
}

/// A library, program or test of a member.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`...
    pub(crate) kind: Vec<String>,
}

/// A dependency of a member.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package.
    pub(crate) name: String,
    /// Where it lies, for one of the workspace.
    pub(crate) path: Option<PathBuf>,
    /// `dev`, `build`, or nothing for an ordinary one.
    pub(crate) kind: Option<String>,
}

impl Dependency {
    /// True when only the package's tests use it.
    pub(crate) fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

impl Package {
    /// Its directory relative to the root, for example `crates/vss-model`.
    pub(crate) fn place(&self) -> &Path {
        let directory = self.manifest_path.parent().unwrap_or(Path::new(""));
        directory.strip_prefix(root()).unwrap_or(directory)
    }
}

/// Asks cargo about the workspace.
pub(crate) fn metadata() -> Result<Metadata> {
    let output =
        cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().context("cannot run cargo")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata says something unexpected")
}

/// The directory in which cargo has built us; there may be no cargo any more.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find our own executable")?;
    Ok(own.parent().and_then(Path::parent).context("our own executable is in no target directory")?.to_path_buf())
}

/// Builds the programs as they are shipped and returns their directory. Started without cargo, as root by `sudo .../xtask`, it
/// takes those that the same command has built for an ordinary user before: root may have no cargo.
pub(crate) fn build_release(interrupt: &Interrupt) -> Result<PathBuf> {
    build_release_of(&PROGRAMS, interrupt)
}

/// As [`build_release`], for who needs some of them alone.
pub(crate) fn build_release_of(programs: &[&str], interrupt: &Interrupt) -> Result<PathBuf> {
    if std::env::var_os("CARGO").is_some() {
        let packages = if programs == PROGRAMS { Vec::new() } else { programs.to_vec() };
        let packages = packages.into_iter().flat_map(|program| ["--package", program]);
        let arguments: Vec<&str> = ["build", "--release"].into_iter().chain(packages).collect();
        println!("$ cargo {}", arguments.join(" "));
        interrupt.check(cargo().args(arguments))?;
    }
    let directory = target()?.join("release");
    for program in programs {
        anyhow::ensure!(directory.join(program).is_file(), "{program} has not been built in {}", directory.display());
    }
    Ok(directory)
}

/// Where demo and benchmarks put their volumes: TMPDIR, else not /tmp, which may lie in memory.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Refuses an ordinary user, once all is built that can be built without root.
pub(crate) fn need_root(task: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let own = std::env::current_exe().context("cannot find our own executable")?;
    anyhow::bail!(
        "this mounts a volume of its own, which takes root. Everything is built; now run\n  sudo {} {task}",
        own.display()
    )
}
