//! Builds the programs and all tests, and finds the tests' executables in what cargo says.

use crate::house::{self, Target};
use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The tests.
    pub(crate) tests: Vec<Test>,
}

/// One executable with tests.
#[derive(Debug)]
pub(crate) struct Test {
    /// For people, for example `vss-tests tests/guard`.
    pub(crate) name: String,
    /// The package.
    pub(crate) package: String,
    /// The target within the package.
    pub(crate) target: String,
    /// True for a file in the package's `tests`.
    pub(crate) is_integration: bool,
    /// The package's directory, where cargo would run it.
    pub(crate) directory: PathBuf,
    /// The executable.
    pub(crate) executable: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds everything in one go, so that the features of the dependencies are the same for all.
pub(crate) fn build(interrupt: &Interrupt) -> Result<Built> {
    const ARGUMENTS: [&str; 5] = ["build", "--workspace", "--all-targets", "--features", "vssd/fault-injection"];
    println!("$ cargo {}", ARGUMENTS.join(" "));
    let output = interrupt.output(house::cargo().args(ARGUMENTS).arg("--message-format=json-render-diagnostics"))?;
    let metadata = house::metadata()?;
    let mut tests = Vec::new();
    for line in output.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo says {line}"))?;
        let Message {
            reason,
            package_id: Some(id),
            target: Some(target),
            profile: Some(profile),
            executable: Some(executable),
        } = message
        else {
            continue;
        };
        let Some(package) = metadata.packages.iter().find(|package| package.id == id) else { continue };
        if reason != "compiler-artifact" || !profile.test {
            continue;
        }
        let is_integration = target.kind.iter().any(|kind| kind == "test");
        let place = match target.kind.first().map(String::as_str) {
            Some("test") => format!(" tests/{}", target.name),
            Some("bin") if target.name != package.name => format!(" bin/{}", target.name),
            _ => String::new(),
        };
        tests.push(Test {
            name: format!("{}{place}", package.name),
            package: package.name.clone(),
            target: target.name,
            is_integration,
            directory: package.manifest_path.parent().unwrap_or(Path::new("/")).to_path_buf(),
            executable,
        });
    }
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Built { tests })
}
