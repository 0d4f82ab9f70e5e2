//! The tasks of the house: `cargo xtask test`, `cargo xtask demo`, `cargo xtask bench`. One file per task.
//!
//! Each installs the Debian packages that it needs when it can, says what is missing when it cannot, and takes away
//! everything that it made when it ends, also after Ctrl-C.

mod bench;
mod bpf;
mod conformance;
mod demo;
mod fuzz;
mod house;
mod interrupt;
mod packages;
mod python;
mod rules;
mod test;
mod vm;
mod volume;

use crate::interrupt::Interrupt;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The tasks of the house", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo
  cargo xtask demo postgresql
  cargo xtask test
  cargo xtask test model guard
  cargo xtask soak postgresql
  cargo xtask test --vm
  cargo xtask conformance --all
  cargo xtask bench window --sets 50
  cargo xtask bench hold
  cargo xtask fuzz documents calls replies --seconds 3600
  cargo xtask vm -- lvm version

Run them as root: what needs it is refused or skipped otherwise.";

#[derive(Debug, Subcommand)]
enum Task {
    /// Run everything that can be checked here, part by part
    Test(test::Arguments),
    /// Run parts of the tests at their full numbers, which takes longer than every day allows
    Soak(test::SoakArguments),
    /// Show the contract of VSS row by row, and that the tests of it can fail
    Conformance(conformance::Arguments),
    /// Back up a program or a database that keeps writing, from a shadow copy and from the live files, and compare
    Demo(demo::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Compile the tracer's programs for the kernel again, with clang, into the object that is in the repository
    Bpf,
    /// Throw bytes that nobody thought of at what reads bytes from others
    Fuzz(fuzz::Arguments),
    /// Run a command in a virtual machine, on a kernel with device-mapper, LVM, ublk and NBD
    Vm(vm::Arguments),
    /// The program of the demo that keeps writing
    #[command(hide = true, name = demo::files::workload::SUBCOMMAND)]
    Workload(demo::files::workload::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before any thread exists: all of them must leave the signals to the descriptor.
    let done = match arguments.task {
        Task::Workload(arguments) => demo::files::workload::run(&arguments).map(|()| true),
        Task::Test(arguments) => Interrupt::catch().and_then(|interrupt| test::run(&arguments, &interrupt)),
        Task::Soak(arguments) => Interrupt::catch().and_then(|interrupt| test::soak(&arguments, &interrupt)),
        Task::Conformance(arguments) => {
            Interrupt::catch().and_then(|interrupt| conformance::run(&arguments, &interrupt))
        }
        Task::Demo(arguments) => Interrupt::catch().and_then(|interrupt| demo::run(&arguments, &interrupt)),
        Task::Bench(arguments) => Interrupt::catch().and_then(|interrupt| bench::run(&arguments, &interrupt)),
        Task::Bpf => Interrupt::catch().and_then(|interrupt| bpf::run(&interrupt)),
        Task::Fuzz(arguments) => Interrupt::catch().and_then(|interrupt| fuzz::run(&arguments, &interrupt)),
        Task::Vm(arguments) => match Interrupt::catch().and_then(|interrupt| vm::run(&arguments, &interrupt)) {
            Ok(status) => return ExitCode::from(status),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
