//! `cargo xtask bench hold`: how long writes are held on 1, 8 and 32 members, half of them ext4 and half XFS, while programs
//! write to each.
//!
//! The guard as it is shipped is asked over its own protocol, as vssd asks it: two flushes, freeze, release at once. Its
//! answers have the times of the calls themselves. Beside it, in the same round and on the same mounts: two flushes,
//! `fsfreeze --freeze` for each mount, `fsfreeze --unfreeze` for each mount.

mod load;

use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use crate::volume::{Kind, Volume};
use crate::{house, packages};
use anyhow::{Context, Result, bail};
use load::{Load, Writing};
use serde_json::json;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_linux::hold::LEDGER_DIRECTORY;
use vss_linux::hold::channel::{self, Received};
use vss_linux::hold::protocol::{Answer, Request};
use vss_linux::{clock, freeze};

/// Issue: 32 members take less than so many times what one takes, at p50.
const WANTED_RATIO: f64 = 3.0;
const COUNTS: [usize; 3] = [1, 8, 32];
const LOADS: [Writing; 2] = [Writing::Buffered, Writing::Direct];
/// Smallest that mkfs.xfs makes; sparse.
const XFS_MIB: u64 = 300;
const EXT4_MIB: u64 = 64;
/// No answer of the guard takes longer.
const ANSWER: Duration = Duration::from_secs(15);
/// The writers write so long before each hold.
const WARM: Duration = Duration::from_millis(150);

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds; each has every load, every number of members and both ways
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// One line of the table.
struct Row {
    writing: Writing,
    count: usize,
    guard: Vec<Duration>,
    fsfreeze: Vec<Duration>,
}

/// True when the medians are what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::EXT4, packages::XFS, packages::UTIL_LINUX], interrupt)?;
    let programs = house::build_release_of(&["vss-guard"], interrupt)?;
    house::need_root("bench hold")?;
    let bench = Bench::set_up(programs.join("vss-guard"), interrupt)?;
    let mut rows: Vec<Row> = LOADS
        .into_iter()
        .flat_map(|writing| COUNTS.map(|count| Row { writing, count, guard: Vec::new(), fsfreeze: Vec::new() }))
        .collect();
    for round in 0..arguments.rounds as usize {
        // In turn, so that no row and neither way always meets what the same other one left.
        let lines = rows.len();
        for line in 0..lines {
            let row = &mut rows[(line + round) % lines];
            let members = bench.members(row.count, round);
            let load = Load::start(&members.iter().map(|volume| volume.path()).collect::<Vec<_>>(), row.writing)?;
            for way in 0..2 {
                interrupt.sleep(WARM)?;
                if (way + round) % 2 == 0 {
                    row.guard.push(bench.by_guard(&members, interrupt)?);
                } else {
                    row.fsfreeze.push(by_fsfreeze(&members, interrupt)?);
                }
            }
            load.finish()?;
        }
        eprintln!("round {} of {}", round + 1, arguments.rounds);
    }
    Ok(report(&rows, arguments))
}

fn report(rows: &[Row], arguments: &Arguments) -> bool {
    println!(
        "{:<10}{:>8}{:>10}{:>9}{:>9}   {:<10}{:>9}{:>9}  ms, {} rounds",
        "load", "members", "guard p50", "least", "most", "fsfreeze p50", "least", "most", arguments.rounds
    );
    let mut values = Vec::new();
    for row in rows {
        let (guard, bare) = (Summary::of(&row.guard), Summary::of(&row.fsfreeze));
        println!(
            "{:<10}{:>8}{:>10.2}{:>9.2}{:>9.2}   {:>12.2}{:>9.2}{:>9.2}",
            row.writing.name(),
            row.count,
            guard.p50,
            guard.least,
            guard.most,
            bare.p50,
            bare.least,
            bare.most
        );
        values.push(json!({"load": row.writing.name(), "members": row.count, "guard": guard, "fsfreeze": bare}));
    }
    let mut is_met = true;
    for writing in LOADS {
        let p50 = |count| {
            let row = rows.iter().find(|row| row.writing == writing && row.count == count);
            row.map(|row| Summary::of(&row.guard).p50).unwrap_or_default()
        };
        let ratio = p50(COUNTS[2]) / p50(COUNTS[0]);
        let met = ratio < WANTED_RATIO;
        is_met &= met;
        println!(
            "{} writes: 32 members take {ratio:.1} times one member at p50; wanted less than {WANTED_RATIO}: {}",
            writing.name(),
            if met { "met" } else { "MISSED" }
        );
    }
    if arguments.json {
        println!("{}", json!({"rounds": arguments.rounds, "rows": values}));
    }
    is_met
}

/// The volumes, and where the guard writes its ledger.
#[derive(Debug)]
struct Bench {
    guard: PathBuf,
    volumes: Vec<Volume>,
    directory: TempDir,
}

impl Bench {
    fn set_up(guard: PathBuf, interrupt: &Interrupt) -> Result<Self> {
        let directory = TempDir::with_prefix_in("vss-bench-", house::scratch())?;
        fs::create_dir(directory.path().join(LEDGER_DIRECTORY))?;
        let mut volumes = Vec::new();
        for number in 0..COUNTS[2] {
            let (kind, mib) = if number % 2 == 0 { (Kind::Ext4, EXT4_MIB) } else { (Kind::Xfs, XFS_MIB) };
            let place = directory.path().join(format!("volume-{number}"));
            volumes.push(Volume::create_of(kind, &place, mib, interrupt)?);
        }
        volumes.iter().try_for_each(Volume::settle)?;
        Ok(Self { guard, volumes, directory })
    }

    /// So many of the volumes; a single one is of either kind in turn.
    fn members(&self, count: usize, round: usize) -> Vec<&Volume> {
        self.volumes.iter().cycle().skip(round % 2).take(count).collect()
    }

    /// From the first FIFREEZE to the last FITHAW, by the guard's own clock.
    fn by_guard(&self, members: &[&Volume], interrupt: &Interrupt) -> Result<Duration> {
        let mut guard = Guard::start(&self.guard, &self.directory.path().join(LEDGER_DIRECTORY), members, interrupt)?;
        for _ in 0..2 {
            guard.ask(Request::Sync)?;
        }
        let began = guard.ask(Request::Freeze { level: 0 })?.called_ns;
        let ended = guard.ask(Request::Release)?.returned_ns;
        guard.finish()?;
        Ok(Duration::from_nanos(ended.saturating_sub(began)))
    }
}

/// A guard, asked directly. Dropping it closes its channel, and it thaws and ends.
struct Guard {
    channel: OwnedFd,
    child: Child,
    members: usize,
}

/// Of all members: the first call and the last return, in nanoseconds of CLOCK_BOOTTIME.
struct Span {
    called_ns: u64,
    returned_ns: u64,
}

impl Guard {
    fn start(program: &Path, ledgers: &Path, members: &[&Volume], interrupt: &Interrupt) -> Result<Self> {
        let (channel, theirs) = channel::pair()?;
        let mut command = Command::new(program);
        command.arg("--ledger").arg(ledgers.join("bench")).env_clear().env("MALLOC_ARENA_MAX", "1");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = interrupt.spawn(&mut command)?;
        // The command holds the guard's end of the channel.
        drop(command);
        let directories = members.iter().map(|member| File::open(member.path())).collect::<Result<Vec<_>, _>>()?;
        let members: Vec<_> = directories.iter().map(|directory| (directory.as_fd(), Some(0))).collect();
        channel::send_prepare(&channel, &members)?;
        let guard = Self { channel, child, members: members.len() };
        match guard.receive()? {
            Answer::Ready { .. } => Ok(guard),
            other => bail!("the guard is not ready: {other:?}"),
        }
    }

    fn receive(&self) -> Result<Answer> {
        let until = clock::boottime_ns() + u64::try_from(ANSWER.as_nanos())?;
        match channel::receive_answer(&self.channel, until)? {
            Received::Message(answer) => Ok(answer),
            other => bail!("no answer of the guard: {other:?}"),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Span> {
        channel::send_request(&self.channel, request)?;
        let mut span = Span { called_ns: u64::MAX, returned_ns: 0 };
        let mut awaited = self.members;
        while awaited > 0 {
            let call = match (request, self.receive()?) {
                (Request::Sync, Answer::Synced(call))
                | (Request::Freeze { .. }, Answer::Frozen(call))
                | (Request::Release, Answer::Thawed(call, _)) => call,
                // Said once, of the whole hold.
                (_, Answer::Expedited { .. }) => continue,
                (_, other) => bail!("{request:?} was answered by {other:?}"),
            };
            awaited -= 1;
            span.called_ns = span.called_ns.min(call.called_ns);
            span.returned_ns = span.returned_ns.max(call.returned_ns);
        }
        Ok(span)
    }

    fn finish(self) -> Result<()> {
        let Self { channel, mut child, .. } = self;
        drop(channel);
        let status = child.wait().context("the guard cannot be waited for")?;
        anyhow::ensure!(status.success(), "the guard ended with {status}");
        Ok(())
    }
}

/// From before the first `fsfreeze --freeze` to after the last `fsfreeze --unfreeze`.
fn by_fsfreeze(members: &[&Volume], interrupt: &Interrupt) -> Result<Duration> {
    let directories = members.iter().map(|member| File::open(member.path())).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..2 {
        directories.iter().try_for_each(freeze::sync)?;
    }
    let thaw = Thaw(directories);
    let began = Instant::now();
    for word in ["--freeze", "--unfreeze"] {
        for member in members {
            interrupt.check(Command::new("fsfreeze").arg(word).arg(member.path()))?;
        }
    }
    let took = began.elapsed();
    drop(thaw);
    Ok(took)
}

/// Thaws what an interrupted measurement left frozen; what is thawed already stays as it is.
struct Thaw(Vec<File>);

impl Drop for Thaw {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = freeze::thaw(directory);
        }
    }
}
