//! Finding what is under test: programs beside the test's own executable, in the same target directory, and files of the
//! repository.

use std::path::{Path, PathBuf};

/// The path of program `name`, for example `vss-guard`.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    built(name, &format!("cargo build -p {name}"))
}

/// The path of an example in Rust, for example `writer`.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"), "cargo build --workspace --examples")
}

/// A file of the repository.
#[must_use]
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn built(name: &str, how: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own executable");
    // target/debug/deps/TEST-HASH, or target/debug/NAME for a program of this crate.
    let path = test.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    path.unwrap_or_else(|| panic!("{name} is not beside {}: build it first ({how}, same profile)", test.display()))
}
