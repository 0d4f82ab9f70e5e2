//! The parts of `cargo xtask test`: which there are, and which tests belong to which.

use crate::house::{Metadata, Package};
use crate::test::build::Test;
use crate::test::{ensure_covered, vm};
use anyhow::Result;

/// One part: a line of the table, with a limit of its own.
#[derive(Debug)]
pub(crate) struct Part {
    /// What to call it.
    pub(crate) name: String,
    /// What it checks.
    pub(crate) what: String,
    /// How.
    pub(crate) check: Check,
}

/// How a part is checked.
#[derive(Debug)]
pub(crate) enum Check {
    /// By a cargo command.
    Cargo(&'static [&'static str]),
    /// By [`crate::rules`].
    Rules,
    /// By `systemd-analyze verify`.
    Units,
    /// By tests in virtual machines.
    Guests,
    /// By [`crate::fuzz`].
    Fuzz,
    /// By tests.
    Tests(Selection),
}

/// Which tests belong to a part.
#[derive(Debug)]
pub(crate) enum Selection {
    /// All tests of these packages.
    Packages(Vec<String>),
    /// The file `tests/tests/NAME.rs`.
    File(String),
    /// The tests of the package `vss-tests` itself.
    Support,
}

/// The package with the tests of the whole house; each of its files is a part.
const HOUSE: &str = "vss-tests";

impl Test {
    /// True for the file `tests/tests/NAME.rs`, or the directory of this name.
    pub(crate) fn is_house(&self, name: &str) -> bool {
        self.package == HOUSE && self.is_integration && self.target == name
    }
}

impl Selection {
    /// True when the test belongs to it.
    pub(crate) fn has(&self, test: &Test) -> bool {
        match self {
            Self::Packages(names) => names.contains(&test.package),
            Self::File(name) => test.is_house(name),
            Self::Support => test.package == HOUSE && !test.is_integration,
        }
    }

    /// True when it has tests of this package.
    pub(crate) fn has_package(&self, package: &Package) -> bool {
        match self {
            Self::Packages(names) => names.contains(&package.name),
            Self::File(_) => false,
            Self::Support => package.name == HOUSE,
        }
    }
}

impl Part {
    /// True when it needs the programs and the tests.
    pub(crate) fn needs_build(&self) -> bool {
        matches!(self.check, Check::Tests(_) | Check::Units | Check::Guests)
    }
}

/// All parts, in the order in which they run: what is quick to say no comes first.
pub(crate) fn parts(metadata: &Metadata) -> Result<Vec<Part>> {
    let part = |name: &str, what: &str, check| Part { name: name.to_owned(), what: what.to_owned(), check };
    let packages =
        |names: &[&str]| Check::Tests(Selection::Packages(names.iter().map(|name| (*name).to_owned()).collect()));
    let below = |place: &str| {
        let inside = metadata.packages.iter().filter(|package| package.place().starts_with(place));
        inside.map(|package| package.name.as_str()).collect::<Vec<_>>()
    };
    let mut parts = vec![
        part("format", "rustfmt", Check::Cargo(&["fmt", "--all", "--check"])),
        part("rules", "the floors, unsafe code, sizes of files", Check::Rules),
        part("units", "the systemd units", Check::Units),
        part("model", "ids, states, session machine", packages(&["vss-model", "vss-session"])),
        part("interface", "system calls, tracer and Varlink", packages(&["vss-linux", "vss-trace", "vss-api"])),
        part("formats", "documents in Windows' schema, streams of blocks", packages(&["vss-documents", "vss-stream"])),
        part("contracts", "provider, writer and requester", packages(&["vss-provider", "vss-writer", "vss-requester"])),
        part("providers", "btrfs, mirror, reflink", packages(&below("providers"))),
        part("writers", "postgresql, script", packages(&[below("writers"), vec!["vss-writers"]].concat())),
        part("service", "coordinator, sagas, catalogue", packages(&["vss-service"])),
        part("backups", "backups in a directory", packages(&["vss-backup"])),
        part("programs", "command line, guard, tasks", packages(&["vssd", "vss-guard", "vss", "xtask"])),
        part("lab", "PostgreSQL clusters for the tests below", packages(&["vss-lab"])),
        part("support", "what the tests below share", Check::Tests(Selection::Support)),
    ];
    let house = metadata.packages.iter().filter(|package| package.name == HOUSE);
    for target in
        house.flat_map(|package| &package.targets).filter(|target| target.kind.iter().any(|kind| kind == "test"))
    {
        if target.name == vm::TARGET {
            parts.push(part(vm::TARGET, "device-mapper, LVM and systemd, in virtual machines", Check::Guests));
            continue;
        }
        let what = format!("tests/tests/{}.rs", target.name);
        parts.push(part(&target.name, &what, Check::Tests(Selection::File(target.name.clone()))));
    }
    let lint =
        &["clippy", "--workspace", "--all-targets", "--features", "vssd/fault-injection", "--", "-D", "warnings"];
    parts.push(part("lint", "clippy", Check::Cargo(lint)));
    let documents = &["test", "--doc", "--workspace", "--features", "vssd/fault-injection"];
    parts.push(part("documents", "the examples in the documentation", Check::Cargo(documents)));
    parts.push(part("fuzz", "documents and messages of others, a minute each", Check::Fuzz));
    ensure_covered(metadata, &parts)?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_names_of_their_own() {
        let parts = parts(&crate::house::metadata().unwrap()).unwrap();
        let mut names: Vec<_> = parts.iter().map(|part| &part.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), parts.len());
    }

    #[test]
    fn what_runs_in_virtual_machines_is_one_part() {
        let parts = parts(&crate::house::metadata().unwrap()).unwrap();
        let names: Vec<_> =
            parts.iter().filter(|part| matches!(part.check, Check::Guests)).map(|part| &part.name).collect();
        assert_eq!(names, [vm::TARGET]);
        let is_both = |part: &&Part| matches!(&part.check, Check::Tests(Selection::File(name)) if name == vm::TARGET);
        assert_eq!(parts.iter().filter(is_both).count(), 0, "its tests are left out where they are not in a guest");
    }
}
