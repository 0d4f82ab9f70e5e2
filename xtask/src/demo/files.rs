//! The first demo: a program keeps two files and a database in step. Its volume is backed up twice while it writes: by
//! restic from a shadow copy, and by a plain copy of the live files. The first must be consistent, and the second must not.

mod invariant;
mod table;
pub(crate) mod workload;

use crate::demo::backup;
use crate::demo::files::invariant::Image;
use crate::demo::files::table::Outcome;
use crate::demo::files::workload::{Pace, Workload};
use crate::demo::stage::{Stage, Writers, say};
use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Size of the volume; its file is sparse.
const VOLUME_GIB: u64 = 4;
/// Other files on the volume: a copy of them takes seconds.
const OTHER_FILES: u64 = 256;
/// Size of each of them.
const OTHER_FILE_BYTES: u64 = 4 << 20;
/// How long the program is watched before and after the backup.
const WATCH: Duration = Duration::from_secs(3);
/// Plain copies that are made until one is broken.
const TRIES: u32 = 3;

/// True when the shadow copy was consistent and the plain copy was not.
pub(super) fn run(interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::BTRFS, packages::RESTIC], interrupt)?;
    let started = Instant::now();
    say("The programs, as they are shipped");
    let programs = house::build_release(interrupt)?;
    house::need_root("demo")?;

    say("A btrfs volume in a file, with 1 GiB of files on it");
    let stage = Stage::set_up(&programs, VOLUME_GIB, Writers::None, interrupt)?;
    fill(stage.volume())?;
    // The backup should meet a disk at rest.
    stage.settle()?;

    say("A program that keeps two files and a SQLite database in step, with fsync after each step");
    let workload = Workload::start(stage.volume(), interrupt)?;
    let before = workload.watch(WATCH, interrupt)?;
    println!("It makes {:.0} durable writes a second.", before.per_second);

    say("Backed up by restic from a shadow copy, at its usual path, while it writes");
    stage.restic(&["init", "--quiet"], interrupt)?;
    let began = Instant::now();
    let set = backup::make(&stage, interrupt)?;
    let backup = Backup { set, during: workload.since(began)? };
    let after = workload.watch(WATCH, interrupt)?;

    say("What is in that backup");
    stage.restic(&["check", "--quiet"], interrupt)?;
    let with = Image::read(&backup::restore(&stage, interrupt)?)?;
    println!("{}", with.verdict());
    fs::remove_dir_all(stage.path(backup::RESTORED))?;

    say("The same without us: a plain copy of the live files, while the program writes");
    let copy = copy_live(&stage, &workload, interrupt)?;
    workload.stop()?;

    say("Compared");
    let outcome = Outcome { before, backup, after, with, copy };
    print!("{}", outcome.table());
    println!("\nTook {} s.", started.elapsed().as_secs());
    Ok(outcome.is_as_promised())
}

/// Files that no tool can make smaller, between the program's first file and its last one.
fn fill(volume: &Path) -> Result<()> {
    let directory = volume.join("other-files");
    fs::create_dir(&directory)?;
    let mut random = File::open("/dev/urandom")?;
    for number in 0..OTHER_FILES {
        let mut file = File::create_new(directory.join(format!("{number:03}")))?;
        io::copy(&mut random.by_ref().take(OTHER_FILE_BYTES), &mut file)?;
    }
    println!("{OTHER_FILES} files of {} MiB in {}", OTHER_FILE_BYTES >> 20, directory.display());
    Ok(())
}

/// What `vss run` did.
#[derive(Debug)]
struct Backup {
    /// The record of its set, as `vss show --json` has it.
    set: Value,
    /// How the program went on meanwhile.
    during: Pace,
}

/// The plain copy that was broken, or the last one that was made.
#[derive(Debug)]
struct PlainCopy {
    image: Image,
    /// How many were made.
    tries: u32,
    /// How the program went on meanwhile.
    during: Pace,
}

/// Copies the live files until a copy is broken.
fn copy_live(stage: &Stage, workload: &Workload, interrupt: &Interrupt) -> Result<PlainCopy> {
    let target = stage.path("copy");
    let mut tries = 0;
    loop {
        tries += 1;
        fs::create_dir(&target)?;
        // As `cp -a VOLUME/* TARGET` in a shell, which sorts the names.
        let mut names = fs::read_dir(stage.volume())?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        println!("$ cp -a {}/* {}", stage.volume().display(), target.display());
        let began = Instant::now();
        let status = interrupt.run(Command::new("cp").arg("-a").args(&names).arg(&target))?;
        ensure!(status.success(), "cp ended with {status}");
        let during = workload.since(began)?;
        let image = Image::read(&target)?;
        println!("{}", image.verdict());
        fs::remove_dir_all(&target)?;
        if !image.holds() || tries == TRIES {
            return Ok(PlainCopy { image, tries, during });
        }
    }
}
