//! `cargo xtask bpf`: compiles the tracer's programs into the object that lies beside them in the repository, so that nobody
//! needs clang to build the rest. A test compiles them again and compares.

use crate::house;
use crate::interrupt::Interrupt;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where source and object are.
const PLACE: &str = "crates/vss-trace/src/bpf";
const SOURCE: &str = "trace.bpf.c";
const OBJECT: &str = "trace.bpf.o";
/// The first number of the version of clang that made the object.
const MADE_BY: &str = "trace.bpf.clang";
/// Clang takes the kernel's headers from where Debian keeps those that differ by architecture.
const HEADERS: &str = "/usr/include/x86_64-linux-gnu";

/// Compiles, and replaces the object in the repository.
pub(crate) fn run(interrupt: &Interrupt) -> Result<bool> {
    let place = house::root().join(PLACE);
    let major = clang_major(interrupt)?;
    compile(interrupt, &place.join(OBJECT))?;
    fs::write(place.join(MADE_BY), format!("{major}\n"))?;
    println!("{} made by clang {major}", place.join(OBJECT).display());
    Ok(true)
}

fn clang_major(interrupt: &Interrupt) -> Result<u32> {
    let text = interrupt.output(Command::new("clang").arg("--version")).context("clang")?;
    let version = text.split_once("version ").and_then(|(_, version)| version.split('.').next()?.parse().ok());
    version.with_context(|| format!("clang says {text:?}"))
}

/// Instructions of the third set (Linux 5.12: atomics that give a result), with the types that CO-RE needs, without what only
/// a debugger does. No path of this machine gets in.
fn compile(interrupt: &Interrupt, object: &Path) -> Result<()> {
    let options = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-fdebug-compilation-dir=."];
    let mut clang = Command::new("clang");
    clang.current_dir(house::root().join(PLACE)).args(options);
    if Path::new(HEADERS).exists() {
        clang.arg(format!("-I{HEADERS}"));
    }
    interrupt.check(clang.arg("-c").arg(SOURCE).arg("-o").arg(object)).context("libbpf-dev and linux-libc-dev?")?;
    interrupt.check(Command::new(strip()?).arg("-g").arg(object))
}

fn strip() -> Result<PathBuf> {
    let clang = crate::packages::find("clang").context("clang is not installed")?;
    // Beside the real clang, which a link leads to.
    let beside = fs::canonicalize(clang)?.with_file_name("llvm-strip");
    if !beside.exists() {
        bail!("{} is not there (package llvm)", beside.display());
    }
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_object_is_what_its_source_compiles_to() {
        let interrupt = Interrupt::catch().unwrap();
        let place = house::root().join(PLACE);
        let made_by: u32 = fs::read_to_string(place.join(MADE_BY)).unwrap().trim().parse().unwrap();
        let why_not = match (clang_major(&interrupt), strip()) {
            (Ok(major), Ok(_)) if major == made_by => None,
            (Ok(major), Ok(_)) => Some(format!("this is clang {major}, the object was made by {made_by}")),
            (Err(error), _) | (_, Err(error)) => Some(format!("{error:#}")),
        };
        if let Some(why_not) = why_not {
            println!("SKIPPED: the_object_is_what_its_source_compiles_to: {why_not}");
            return;
        }
        let directory = TempDir::new().unwrap();
        let again = directory.path().join(OBJECT);
        compile(&interrupt, &again).unwrap();
        let is_same = fs::read(&again).unwrap() == fs::read(place.join(OBJECT)).unwrap();
        assert!(is_same, "{OBJECT} is not what {SOURCE} compiles to: run `cargo xtask bpf`");
    }
}
