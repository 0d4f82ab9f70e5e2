//! `cargo xtask fuzz`: bytes that nobody thought of, thrown at what reads bytes from others. The targets are in `fuzz/`.
//!
//! Everything that it makes is below `target/fuzz`: the build with its sanitizer, the corpus, which grows from run to run, and
//! what it found. It begins with seeds that our own types write.

use crate::interrupt::Interrupt;
use crate::test::report::Report;
use crate::{house, packages};
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What there is to fuzz.
pub(crate) const TARGETS: [&str; 3] = ["documents", "calls", "replies"];
/// Longest input: several messages, or a document of more than any field.
const INPUT_BYTES: usize = 16 << 10;
/// Longest time for one input; what takes longer is a finding.
const INPUT_SECONDS: u32 = 10;
/// Most memory for one input, in MiB; what takes more is a finding.
const INPUT_MIB: u32 = 1024;
/// The compiler that links the fuzzer, which is in C++.
const COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz: documents, calls or replies
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    target: String,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// True when nothing was found.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    let fuzzer = Fuzzer::ensure(interrupt)?;
    fuzzer.build(interrupt)?;
    fuzzer.run(&arguments.target, arguments.seconds, interrupt)
}

/// Every target for so many seconds, each counted as a test; skipped, and said, where there is no fuzzer.
pub(crate) fn check(seconds: u32, report: &mut Report, interrupt: &Interrupt) -> Result<()> {
    let fuzzer = match Fuzzer::ensure(interrupt) {
        Ok(fuzzer) => fuzzer,
        Err(error) => {
            // Not when somebody has pressed Ctrl-C.
            interrupt.sleep(Duration::ZERO)?;
            TARGETS.iter().for_each(|target| report.skip(target, &format!("no cargo-fuzz: {error:#}")));
            return Ok(());
        }
    };
    fuzzer.build(interrupt)?;
    for target in TARGETS {
        report.count(fuzzer.run(target, seconds, interrupt)?);
    }
    Ok(())
}

/// cargo-fuzz, and where it works.
struct Fuzzer {
    place: PathBuf,
    program: PathBuf,
}

impl Fuzzer {
    /// The fuzzer of this machine, else one below `target`, installed when there is none.
    ///
    /// # Errors
    /// There is no compiler of C++, or cargo-fuzz cannot be fetched.
    fn ensure(interrupt: &Interrupt) -> Result<Self> {
        ensure!(COMPILERS.iter().any(|compiler| packages::is_there(compiler)), "there is no compiler of C++");
        let place = house::target()?.join("fuzz");
        let own = place.join("tools/bin/cargo-fuzz");
        let program = if packages::is_there("cargo-fuzz") { PathBuf::from("cargo-fuzz") } else { own.clone() };
        if program == own && !own.is_file() {
            println!("Installing cargo-fuzz");
            let mut install = house::cargo();
            install.args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(place.join("tools"));
            interrupt.check(&mut install)?;
        }
        Ok(Self { place, program })
    }

    /// A command of cargo-fuzz. Sanitizers are for nightly compilers alone; the variable lets any have them.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["fuzz", subcommand]).current_dir(house::root());
        command.env("RUSTC_BOOTSTRAP", "1").arg("--target-dir").arg(self.place.join("build"));
        command
    }

    fn build(&self, interrupt: &Interrupt) -> Result<()> {
        interrupt.check(&mut self.command("build"))
    }

    /// Runs a target; true when nothing was found.
    fn run(&self, target: &str, seconds: u32, interrupt: &Interrupt) -> Result<bool> {
        let corpus = self.place.join("corpus").join(target);
        let found = self.place.join("found").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&found)?;
        self.seed(target, &corpus, interrupt)?;
        let mut command = self.command("run");
        command.arg(target).arg(&corpus).arg("--");
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_BYTES}"),
            format!("-timeout={INPUT_SECONDS}"),
            format!("-rss_limit_mb={INPUT_MIB}"),
            format!("-artifact_prefix={}/", found.display()),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ]);
        let status = interrupt.run(&mut command)?;
        println!("   {target}: {seconds} s, {}", if status.success() { "nothing found" } else { "FOUND something" });
        if !status.success() {
            println!("   {}", found.display());
        }
        Ok(status.success())
    }

    /// Writes what our own types say into the corpus. Built by the same command as the targets.
    fn seed(&self, target: &str, corpus: &Path, interrupt: &Interrupt) -> Result<()> {
        let Some(program) = self.built("seeds")? else { bail!("the seeds were not built") };
        interrupt.check(Command::new(program).arg(target).arg(corpus))
    }

    /// A program of `fuzz/`, below the directory of the machine's kind.
    fn built(&self, name: &str) -> Result<Option<PathBuf>> {
        let kinds = std::fs::read_dir(self.place.join("build"))?;
        let programs = kinds.flatten().map(|kind| kind.path().join("release").join(name));
        Ok(programs.into_iter().find(|program| program.is_file()))
    }
}
