//! `cargo xtask fuzz`: bytes that nobody thought of, thrown at what reads bytes from others. The targets are in `fuzz/`.
//!
//! Everything that it makes is below `target/fuzz`: the build with its sanitizer, the corpus, which grows from run to run, and
//! what it found. It begins with seeds that our own types write.

use crate::interrupt::Interrupt;
use crate::test::report::Report;
use crate::{house, packages, test};
use anyhow::{Result, bail, ensure};
use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What there is to fuzz.
pub(crate) const TARGETS: [&str; 3] = ["documents", "calls", "replies"];
/// Longest input: several messages, or a document of more than any field.
const INPUT_BYTES: usize = 16 << 10;
/// Longest time for one input; what takes longer is a finding.
const INPUT_SECONDS: u32 = 10;
/// Most memory for one input, in MiB; what takes more is a finding.
const INPUT_MIB: u32 = 1024;
/// How much of a log is searched for the number of inputs: its last lines.
const LOG_END: u64 = 16 << 10;
/// Time between two looks at running targets.
const LOOK: Duration = Duration::from_millis(500);
/// The compiler that links the fuzzer, which is in C++.
const COMPILERS: [&str; 3] = ["c++", "g++", "clang++"];

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz: documents, calls, replies
    #[arg(value_name = "TARGET", required = true, value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// True when nothing was found.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    let fuzzer = Fuzzer::ensure(interrupt)?;
    fuzzer.build(interrupt)?;
    let named = |target: &&str| arguments.targets.iter().any(|name| name == target);
    let targets: Vec<_> = TARGETS.into_iter().filter(named).collect();
    Ok(fuzzer.run(&targets, arguments.seconds, interrupt)?.into_iter().all(|good| good))
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
    fuzzer.run(&TARGETS, seconds, interrupt)?.into_iter().for_each(|good| report.count(good));
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

    /// Builds the targets. Sanitizers are for nightly compilers alone; the variable lets any have them.
    fn build(&self, interrupt: &Interrupt) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["fuzz", "build", "--target-dir"]).arg(self.place.join("build"));
        interrupt.check(command.current_dir(house::root()).env("RUSTC_BOOTSTRAP", "1"))
    }

    /// Runs these targets for so many seconds each, as many at once as there are processors; true for each in which nothing
    /// was found.
    fn run(&self, targets: &[&'static str], seconds: u32, interrupt: &Interrupt) -> Result<Vec<bool>> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let mut good = Vec::new();
        for some in targets.chunks(at_once) {
            let mut running = Vec::new();
            for target in some {
                running.push(self.start(target, seconds, interrupt)?);
            }
            watch(&mut running, seconds, interrupt)?;
            for mut fuzzing in running {
                good.push(fuzzing.judge()?);
            }
        }
        Ok(good)
    }

    fn start(&self, target: &'static str, seconds: u32, interrupt: &Interrupt) -> Result<Fuzzing> {
        let corpus = self.place.join("corpus").join(target);
        let found = self.place.join("found").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&found)?;
        self.seed(target, &corpus, interrupt)?;
        let Some(program) = self.built(target)? else { bail!("the target {target} was not built") };
        let log = test::log_path(&format!("fuzz-{target}"))?;
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.arg(&corpus).args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_BYTES}"),
            format!("-timeout={INPUT_SECONDS}"),
            format!("-rss_limit_mb={INPUT_MIB}"),
            format!("-artifact_prefix={}/", found.display()),
            "-print_final_stats=1".to_owned(),
        ]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Fuzzing { target, began: Instant::now(), process: interrupt.spawn(&mut command)?, log, found })
    }

    /// Writes what our own types say into the corpus. Built by the same command as the targets.
    fn seed(&self, target: &str, corpus: &Path, interrupt: &Interrupt) -> Result<()> {
        let Some(program) = self.built("seeds")? else { bail!("the seeds were not built") };
        interrupt.check(Command::new(program).arg(target).arg(corpus))
    }

    /// A program of `fuzz/`, below the directory of the machine's kind.
    fn built(&self, name: &str) -> Result<Option<PathBuf>> {
        let kinds = fs::read_dir(self.place.join("build"))?;
        let programs = kinds.flatten().map(|kind| kind.path().join("release").join(name));
        Ok(programs.into_iter().find(|program| program.is_file()))
    }
}

/// A target that runs; ended when it is dropped.
struct Fuzzing {
    target: &'static str,
    began: Instant,
    process: Child,
    log: PathBuf,
    /// Where the inputs are put that it finds.
    found: PathBuf,
}

impl Fuzzing {
    fn is_over(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// How many inputs were tried so far.
    fn runs(&self) -> u64 {
        let end = || -> std::io::Result<Vec<u8>> {
            let mut log = File::open(&self.log)?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
            let mut end = Vec::new();
            log.take(LOG_END).read_to_end(&mut end)?;
            Ok(end)
        };
        end().map_or(0, |end| runs(&String::from_utf8_lossy(&end)))
    }

    /// One line of what came out, and the end of the log if it is a finding.
    fn judge(&mut self) -> Result<bool> {
        let good = self.process.wait()?.success();
        let result = if good { "nothing found" } else { "FOUND something" };
        println!("   {}: {} s, {} inputs, {result}", self.target, self.began.elapsed().as_secs(), self.runs());
        if !good {
            let log = fs::read(&self.log)?;
            println!("{}", test::tail(&String::from_utf8_lossy(&log)));
            println!("   the input: {}; all of the log: {}", self.found.display(), self.log.display());
        }
        Ok(good)
    }
}

impl Drop for Fuzzing {
    fn drop(&mut self) {
        // Both fail when it has been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until all are over; on a terminal a line tells how far they are.
fn watch(running: &mut [Fuzzing], seconds: u32, interrupt: &Interrupt) -> Result<()> {
    let began = Instant::now();
    let is_watched = std::io::stdout().is_terminal();
    loop {
        let mut are_over = true;
        for fuzzing in running.iter_mut() {
            are_over &= fuzzing.is_over()?;
        }
        if is_watched {
            let inputs: Vec<_> =
                running.iter().map(|fuzzing| format!("{} {}", fuzzing.target, fuzzing.runs())).collect();
            print!("\r\x1b[K   {} s of {seconds} s, inputs: {}", began.elapsed().as_secs(), inputs.join(", "));
            if are_over {
                print!("\r\x1b[K");
            }
            std::io::stdout().flush()?;
        }
        if are_over {
            return Ok(());
        }
        interrupt.sleep(LOOK)?;
    }
}

/// How many inputs were tried, by the end of a fuzzer's log: its lines begin with the number, but for the last ones.
fn runs(log: &str) -> u64 {
    let number = |line: &str| {
        let counted = line.strip_prefix("stat::number_of_executed_units:").or_else(|| line.strip_prefix('#'))?;
        counted.split_whitespace().next()?.parse().ok()
    };
    log.lines().rev().find_map(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted_while_it_runs_and_at_its_end() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 3 ft: 3\n#4096\tpulse  cov: 3 ft: 3 exec/s: 9\nNEW_FUNC: 1\n";
        assert_eq!(runs(""), 0);
        assert_eq!(runs(log), 4096);
        let end = "Done 5000 runs in 1 second(s)\nstat::number_of_executed_units: 5000\nstat::new_units_added: 7\n";
        assert_eq!(runs(&format!("{log}{end}")), 5000);
    }
}
