//! `systemd-analyze verify` on the units. They name the programs where a package puts them; what is checked is a copy that
//! names those that were just built.

use crate::house::{self, Metadata};
use crate::interrupt::Interrupt;
use crate::packages;
use crate::test::report::Report;
use anyhow::Result;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Where packages put the programs.
const LIBEXEC: &str = "/usr/libexec/vss";

/// Verifies every unit.
pub(crate) fn verify(metadata: &Metadata, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    if !packages::is_there("systemd-analyze") {
        report.skip("units", "systemd-analyze is not installed");
        return Ok(());
    }
    let copies = TempDir::new()?;
    let programs = metadata.target_directory.join("debug");
    let mut units: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(house::root().join("packaging/systemd"))? {
        let entry = entry?;
        let name = entry.file_name();
        let copy = copies.path().join(&name);
        fs::write(&copy, fs::read_to_string(entry.path())?.replace(LIBEXEC, &programs.to_string_lossy()))?;
        if [".service", ".socket"].iter().any(|kind| name.to_string_lossy().ends_with(kind)) {
            units.push(copy);
        }
    }
    // Alone, so that units of this machine are not verified with ours; --man=no: the manual is not installed here.
    let log = copies.path().join("log");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]).args(&units);
    let output = File::create(&log)?;
    let status = interrupt.run(command.stdout(output.try_clone()?).stderr(output))?;
    let said = fs::read_to_string(&log)?;
    // It may end with 0 and a warning, for example about a key that it does not know.
    let ours: Vec<&str> =
        said.lines().filter(|line| line.contains(&*copies.path().to_string_lossy()) || line.contains("vss")).collect();
    for line in &ours {
        println!("   {line}");
    }
    if !status.success() && ours.is_empty() {
        println!("   systemd-analyze ended with {status}: {said}");
    }
    report.count(status.success() && ours.is_empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_service::config::Config;

    /// A line `#key = value` is a default, a line `# words` is for people.
    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let text = fs::read_to_string(house::root().join("packaging/vss.toml")).unwrap();
        let setting = |line: &str| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).map(str::to_owned);
        let settings: Vec<String> = text.lines().filter_map(setting).collect();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("vss.toml"), settings.join("\n")).unwrap();
        assert!(settings.len() > 10, "{settings:?}");
        assert_eq!(Config::load(directory.path()).unwrap(), Config::default());
    }
}
