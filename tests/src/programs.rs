//! Finding the programs under test: beside the test's own executable, in the same target directory.

use std::path::PathBuf;

/// The path of program `name`, for example `vss-guard`.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own executable");
    // target/debug/deps/TEST-HASH, or target/debug/NAME for a program of this crate.
    let path = test.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("{name} is not beside {}: build it first (cargo build -p {name}, same profile)", test.display())
    })
}
