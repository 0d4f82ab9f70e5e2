//! The race that the tracer is made for: a write is queued, its mark is taken, its block is copied, and only then does it reach
//! the medium. On a disk whose writes take 2 to 30 ms and are half done in the middle of that.
//!
//! The same copier with marks at the queue only has to lose blocks: a test that it passes shows nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use vss_linux::freeze;
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};
use vss_tests::scale::rounds;
use vss_tests::stalling::StallingDisk;
use vss_tests::tracing::{self, Direct, RawLoop, Traced, changed, fio_command, lacks, set_direct, target_of};
use vss_trace::{Bitmap, Distrust, Marks, Tracer};

/// Writes under way at once.
const WRITERS: usize = 16;
/// Blocks that are written in a trial, each once: a loss is not made good by a later write.
const BLOCKS: usize = 600;
/// Between two rounds: less than a write takes.
const PAUSE: Duration = Duration::from_millis(2);
const MIB: u64 = 48;

/// True (and says so) when a test cannot run here.
fn skips(test: &str, kinds: &[Kind]) -> bool {
    if tracing::skips(test, kinds) {
        return true;
    }
    let missing = StallingDisk::missing();
    if let Some(why) = &missing {
        println!("SKIPPED: {test}: {why}");
    }
    missing.is_some()
}

/// What is read again at rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// What is marked.
    Marked,
    /// And, when the sectors don't add up, everything that was queued since they did.
    Balanced,
    /// And everything that was queued, in any case.
    Queued,
}

/// Copies a disk while it is written to, as a mirror does, and returns how many blocks of the copy are wrong.
fn wrong_blocks(disk: &RawLoop, device: &Direct, trial: u32, marks: Marks, last: Last) -> anyhow::Result<u64> {
    let pins = tracing::own_pins();
    let traced = Traced::of(Tracer::attach_with(&pins, &target_of(disk.path())?, marks)?, pins);
    let mut copy = device.read()?;
    traced.tracer().set_balanced(&traced.tracer().counters());
    let next = AtomicUsize::new(0);
    // Another order in each trial: odd steps through a number of blocks that is a power of two meet each once.
    let step = 2 * (u64::from(trial) * 947 + 3001) + 1;
    let fill = trial as u8 | 1;
    thread::scope(|scope| -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= BLOCKS {
                    return Ok(());
                }
                device.fill(number as u64 * step % 8192, fill)?;
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            device.read_chunks(&traced.taken(), &mut copy)?;
            thread::sleep(PAUSE);
        }
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    // At rest, as in a hold.
    finish(&traced, device, &mut copy, last)?;
    Ok(changed(&copy, &device.read()?).count())
}

/// The last round, with nothing under way.
fn finish(traced: &Traced, device: &Direct, copy: &mut [u8], last: Last) -> anyhow::Result<()> {
    let tracer = traced.tracer();
    let mut left = Bitmap::new(tracer.chunks());
    tracer.take(&mut left);
    let base = tracer.balanced_at().unwrap_or_default();
    let distrust = tracer.counters().distrust_at_rest(&base);
    match distrust {
        None => {}
        // By a kernel that does not deliver each completion.
        Some(Distrust::MissedEnds(_)) => println!("the tracer missed ends of writes"),
        Some(Distrust::Unbalanced(sectors)) if sectors > 0 => {
            println!("the completion of {sectors} sectors was not traced");
        }
        Some(reason) => anyhow::bail!("{reason}"),
    }
    if last == Last::Queued || last == Last::Balanced && distrust.is_some() {
        tracer.queued_since_balance(&mut left);
    }
    device.read_chunks(&left, copy)
}

/// How many blocks of each copy are wrong, in so many trials, or up to the first of which some are.
fn wrong_in(trials: u32, marks: Marks, last: Last) -> anyhow::Result<Vec<u64>> {
    let disk = StallingDisk::new(MIB)?;
    let raw = RawLoop::on(&disk.image())?;
    set_direct(raw.path())?;
    let device = Direct::open(raw.path())?;
    let mut all = Vec::new();
    for trial in 0..trials {
        disk.set_slow(true)?;
        let wrong = wrong_blocks(&raw, &device, trial, marks, last);
        disk.set_slow(false)?;
        all.push(wrong?);
        if all.last() > Some(&0) {
            break;
        }
    }
    Ok(all)
}

#[test]
fn a_write_that_lands_after_its_block_was_copied_is_copied_again() -> anyhow::Result<()> {
    if skips("a_write_that_lands_after_its_block_was_copied_is_copied_again", &[]) {
        return Ok(());
    }
    let wrong = wrong_in(rounds(4, 100), Marks { queue: true, issue: true, completion: true }, Last::Balanced)?;
    println!("wrong blocks of {BLOCKS} written in each trial: {wrong:?}");
    ensure!(wrong.iter().all(|wrong| *wrong == 0), "{wrong:?}");
    Ok(())
}

#[test]
fn without_marks_at_the_completion_blocks_are_lost() -> anyhow::Result<()> {
    if skips("without_marks_at_the_completion_blocks_are_lost", &[]) {
        return Ok(());
    }
    for issue in [false, true] {
        // The first one, unless the machine is busy.
        let wrong = wrong_in(20, Marks { queue: true, issue, completion: false }, Last::Marked)?;
        println!("wrong blocks of {BLOCKS} written in each trial: {wrong:?}");
        ensure!(wrong.last() > Some(&0), "the race is not met, so that the other test shows nothing");
    }
    Ok(())
}

#[test]
fn reading_again_what_was_queued_makes_good_for_lost_completions() -> anyhow::Result<()> {
    if skips("reading_again_what_was_queued_makes_good_for_lost_completions", &[]) {
        return Ok(());
    }
    // As if no completion at all had been traced.
    let wrong = wrong_in(2, Marks { queue: true, issue: true, completion: false }, Last::Queued)?;
    ensure!(wrong.iter().all(|wrong| *wrong == 0), "{wrong:?}");
    Ok(())
}

#[test]
fn a_frozen_file_system_equals_its_copy() -> anyhow::Result<()> {
    let test = "a_frozen_file_system_equals_its_copy";
    if skips(test, &[Kind::Ext4]) || lacks(test, "fio") {
        return Ok(());
    }
    let disk = StallingDisk::new(MIB)?;
    let fs = LoopFs::new_on(&disk.image(), Kind::Ext4)?;
    set_direct(fs.device())?;
    let device = Direct::open(fs.device())?;
    for trial in 0..rounds(2, 50) {
        // Nothing is under way: the sectors add up from here on.
        rustix::fs::syncfs(fs.open()?)?;
        let traced = Traced::new(fs.device())?;
        let mut copy = device.read()?;
        disk.set_slow(true)?;
        let mut loads = Vec::new();
        for (name, direct) in [("direct", true), ("buffered", false)] {
            loads.push(fio_command(&fs.path().join(name), 8, direct, 3.0).stdout(std::process::Stdio::null()).spawn()?);
        }
        for _ in 0..12 {
            thread::sleep(PAUSE * 10);
            device.read_chunks(&traced.taken(), &mut copy)?;
        }
        let timer = thaw_timer(fs.open()?, Duration::from_secs(120));
        freeze::freeze(fs.open()?)?;
        let finished = finish(&traced, &device, &mut copy, Last::Balanced);
        let live = device.read();
        freeze::thaw(fs.open()?)?;
        drop(timer);
        disk.set_slow(false)?;
        for mut load in loads {
            ensure!(load.wait()?.success(), "fio failed");
        }
        finished?;
        let wrong = changed(&copy, &live?);
        println!("trial {trial}: {wrong:?} blocks are wrong; {:?}", traced.tracer().counters());
        ensure!(wrong.is_empty(), "{:?}", wrong.runs().collect::<Vec<_>>());
    }
    fs.check()
}
