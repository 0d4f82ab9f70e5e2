//! Trees of files as rsync compares and copies them: contents, links, owners, times, ACLs, attributes, holes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

fn rsync(words: &[&str], from: &Path, to: &Path) -> anyhow::Result<String> {
    let output = Command::new("rsync")
        .args(words)
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output()
        .context("rsync")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What rsync would do to make `copy` equal to `tree`: nothing when they are.
///
/// # Errors
/// What rsync says.
pub fn differences(tree: &Path, copy: &Path) -> anyhow::Result<String> {
    rsync(&["-aHAXSn", "--checksum", "--delete", "--itemize-changes"], tree, copy)
}

/// Makes `copy` what `tree` is.
///
/// # Errors
/// What rsync says.
pub fn copy(tree: &Path, copy: &Path) -> anyhow::Result<()> {
    // Files that are changed twice in a second are not known by their size and time.
    rsync(&["-aHAXS", "--delete", "--ignore-times"], tree, copy).map(drop)
}

/// Every inode of a tree: its path, and what a change of it would change. To see that nobody wrote there.
///
/// # Errors
/// It cannot be read.
pub fn inodes(tree: &Path) -> anyhow::Result<Vec<String>> {
    let output =
        Command::new("find").arg(tree).args(["-printf", "%p %i %m %s %n %T@ %C@\\n"]).output().context("find")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}
