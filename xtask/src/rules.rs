//! The rules of the house that no compiler knows: who may depend on whom, and what must not be in any file.

use crate::house::{self, Metadata, Package};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file of Rust.
const LINES: usize = 1000;
/// The crates that may have `unsafe`.
const UNSAFE: [&str; 2] = ["crates/vss-linux", "crates/vss-trace"];
/// Dependencies within one floor: the session machine is written in the words of the model, and the interface reads its
/// peer's credentials by a system call.
const WITHIN_A_FLOOR: [(&str, &str); 2] = [("vss-session", "vss-model"), ("vss-api", "vss-linux")];
/// Real servers for tests: anybody may test with it, and only what proves and shows the house may be built on it.
const LAB: (&str, [&str; 2]) = ("vss-lab", ["vss-tests", "xtask"]);
/// Who may name concrete providers and writers: the wiring, and the tests.
const WIRING: [&str; 3] = ["vssd", "vss-writers", "vss-tests"];

/// Every rule that is broken, one line each.
pub(crate) fn broken() -> Result<Vec<String>> {
    let mut broken = floors(&house::metadata()?);
    for path in files(house::root())? {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let place = path.strip_prefix(house::root()).unwrap_or(&path);
        broken.extend(text_rules(place, &text).into_iter().map(|what| format!("{}: {what}", place.display())));
        if place.extension().is_some_and(|extension| extension == "md") {
            broken.extend(
                missing_tests(&text, house::root()).into_iter().map(|what| format!("{}: {what}", place.display())),
            );
        }
    }
    Ok(broken)
}

/// A crate may depend only on floors below it.
fn floors(metadata: &Metadata) -> Vec<String> {
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let Some(floor) = floor(package) else {
            broken.push(format!("{}: which floor is {} on?", package.name, package.place().display()));
            continue;
        };
        let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        for dependency in ours {
            let Some(below) = metadata.packages.iter().find(|one| one.name == dependency.name) else { continue };
            let pair = (package.name.as_str(), below.name.as_str());
            if below.name == LAB.0 {
                if !dependency.is_for_tests() && !LAB.1.contains(&pair.0) {
                    broken.push(format!("{} is built on {}: only tests may", pair.0, pair.1));
                }
                continue;
            }
            if self::floor(below).is_some_and(|other| other >= floor) && !WITHIN_A_FLOOR.contains(&pair) {
                broken.push(format!("{} (floor {floor}) depends on {}, which is not below it", pair.0, pair.1));
            }
            if is_concrete(below) && !WIRING.contains(&pair.0) {
                broken.push(format!("{} names {}: only the wiring may", pair.0, pair.1));
            }
        }
    }
    broken
}

fn is_concrete(package: &Package) -> bool {
    ["providers", "writers"].iter().any(|part| package.place().starts_with(part))
}

/// The floor that a package is on, from ground to roof.
fn floor(package: &Package) -> Option<u32> {
    let place = package.place();
    if is_concrete(package) {
        return Some(3);
    }
    if ["programs", "xtask", "tests"].iter().any(|part| place.starts_with(part)) {
        return Some(5);
    }
    match package.name.as_str() {
        "vss-model" | "vss-session" => Some(0),
        "vss-api" | "vss-documents" | "vss-linux" | "vss-stream" | "vss-trace" => Some(1),
        "vss-provider" | "vss-writer" | "vss-requester" => Some(2),
        "vss-service" | "vss-backup" => Some(4),
        _ => None,
    }
}

/// Every file that belongs to the project.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut directories, mut files) = (vec![root.to_path_buf()], Vec::new());
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            // A directory, or the file by which a second work tree finds it.
            if entry.file_name() == ".git" {
                continue;
            }
            // A build directory has a tag, whatever its name (bford.info/cachedir).
            if kind.is_dir() && !entry.path().join("CACHEDIR.TAG").exists() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// What is wrong with the text of one file.
fn text_rules(place: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let is_rust = place.extension().is_some_and(|extension| extension == "rs");
    let lines = text.lines().count();
    if is_rust && lines > LINES {
        broken.push(format!("{lines} lines, at most {LINES}"));
    }
    // Written in two parts, because this file is one of those that are read.
    let promises = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let machines = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let may_be_unsafe = UNSAFE.iter().any(|one| place.starts_with(one));
    let unsafe_code = ["{", "fn ", "impl ", "extern "].map(|next| format!("{} {next}", concat!("un", "safe")));
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if promises.iter().any(|word| line.contains(word)) {
            broken.push(format!("line {number}: a promise instead of a deed"));
        }
        if machines.iter().any(|path| line.contains(path)) {
            broken.push(format!("line {number}: a path of one machine"));
        }
        if is_rust && !may_be_unsafe && unsafe_code.iter().any(|word| line.contains(word)) {
            broken.push(format!("line {number}: unsafe code outside {}", UNSAFE.join(" and ")));
        }
    }
    let is_manifest = place.file_name().is_some_and(|name| name == "Cargo.toml");
    if is_manifest
        && place.parent() != Some(Path::new(""))
        && !may_be_unsafe
        && !text.contains("[lints]\nworkspace = true")
    {
        broken.push("does not take the workspace's lints".to_owned());
    }
    broken
}

/// The tests that a document names as `FILE.rs::TEST` and that are not there. A fact is as good as the test that shows it.
fn missing_tests(text: &str, root: &Path) -> Vec<String> {
    let named = text.split('`').filter_map(|words| words.split_once(".rs::"));
    let is_missing = |(file, test): &(&str, &str)| {
        let text = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
        !text.contains(&format!("#[test]\nfn {test}(")) && !text.contains(&format!("    #[test]\n    fn {test}("))
    };
    named.filter(is_missing).map(|(file, test)| format!("there is no test {file}.rs::{test}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::Dependency;

    #[test]
    fn a_document_names_only_tests_that_exist() {
        let text = "shown by `tests/tests/guard/main.rs::a_hold_ends_after_ten_seconds_by_itself` and `xtask/src/rules.rs::\
            a_document_names_only_tests_that_exist`, not by `tests/tests/guard/main.rs::it_is_so` nor by `no/such.rs::test`";
        let missing = missing_tests(text, house::root());
        assert_eq!(
            missing,
            ["tests/tests/guard/main.rs::it_is_so", "no/such.rs::test"].map(|it| format!("there is no test {it}"))
        );
        let window = fs::read_to_string(house::root().join("docs/freeze-window.md")).unwrap();
        assert!(window.matches(".rs::").count() > 20);
    }

    #[test]
    fn the_house_keeps_its_rules() {
        assert_eq!(broken().unwrap(), Vec::<String>::new());
    }

    fn package(name: &str, place: &str, below: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: name.trim_end_matches('?').to_owned(),
            path: Some(PathBuf::new()),
            kind: name.ends_with('?').then(|| "dev".to_owned()),
        };
        Package {
            name: name.to_owned(),
            id: name.to_owned(),
            manifest_path: house::root().join(place).join("Cargo.toml"),
            dependencies: below.iter().map(dependency).collect(),
            targets: Vec::new(),
        }
    }

    fn floors_of(name: &str, place: &str, below: &str) -> Vec<String> {
        let packages = vec![
            package("vss-model", "crates/vss-model", &[]),
            package("vss-service", "crates/vss-service", &[]),
            package("vss-provider-btrfs", "providers/btrfs", &[]),
            package("vss-lab", "tests/lab", &[]),
            package(name, place, &[below]),
        ];
        floors(&Metadata { packages, target_directory: PathBuf::new() })
    }

    #[test]
    fn upwards_and_sideways_are_seen() {
        assert_eq!(floors_of("vss-session", "crates/vss-session", "vss-model"), Vec::<String>::new());
        assert_eq!(floors_of("vssd", "programs/vssd", "vss-provider-btrfs"), Vec::<String>::new());
        assert_eq!(floors_of("vss-writer", "crates/vss-writer", "vss-service").len(), 1);
        assert_eq!(floors_of("vss-writer-script", "writers/script", "vss-provider-btrfs").len(), 2);
        assert_eq!(floors_of("vss", "programs/vss", "vss-provider-btrfs").len(), 1);
        assert_eq!(floors_of("vss-new", "crates/vss-new", "vss-model").len(), 1);
    }

    #[test]
    fn the_lab_is_for_tests() {
        assert_eq!(floors_of("vss-writer-script", "writers/script", "vss-lab?"), Vec::<String>::new());
        assert_eq!(floors_of("vss-tests", "tests", "vss-lab"), Vec::<String>::new());
        assert_eq!(floors_of("vss-writer-script", "writers/script", "vss-lab").len(), 1);
        assert_eq!(floors_of("vssd", "programs/vssd", "vss-lab").len(), 1);
    }

    #[test]
    fn what_must_not_be_in_a_file_is_seen() {
        let rust = Path::new("crates/vss-model/src/x.rs");
        assert!(text_rules(rust, "fn main() {}\n").is_empty());
        assert_eq!(text_rules(rust, &"\n".repeat(LINES + 1)).len(), 1);
        assert_eq!(text_rules(rust, concat!("// TO", "DO\nun", "safe { x }\n\"/ro", "ot/x\"\n")).len(), 3);
        assert!(text_rules(Path::new("crates/vss-linux/src/x.rs"), concat!("un", "safe { x }\n")).is_empty());
        assert_eq!(text_rules(Path::new("tests/Cargo.toml"), "[package]\n").len(), 1);
    }
}
