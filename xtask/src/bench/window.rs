//! `cargo xtask bench window`: how long writers are held, and what else `vss create` costs.
//!
//! Three idle writers, one of each level, are connected to a service of the benchmark's own. Each round makes, on the same
//! btrfs volume, one snapshot by the bare ioctl and one set by `vss create`, and removes both. The window is measured in the
//! writers: from the first Freeze handler's begin to the last Thaw handler's begin.

use crate::bench::service::Service;
use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use crate::volume::Volume;
use crate::{house, packages};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vss_api::writer::EventKind;
use vss_linux::btrfs;
use vss_model::AppLevel;
use vss_writer::fake::{FakeHandle, FakeWriter};
use vss_writer::{Options, RunError, Silent, Stop, Stopper};

/// Issue: at most so much more than the bare ioctl, at p50, in milliseconds.
const WANTED_OVER_IOCTL: f64 = 10.0;
/// Issue: everything else that `vss create` does, at p50, in milliseconds.
const WANTED_REST: f64 = 100.0;
/// One idle writer of each.
const LEVELS: [AppLevel; 3] = [AppLevel::FrontEnd, AppLevel::BackEnd, AppLevel::System];
/// Files on the volume, so that it is not an empty one.
const FILES: u32 = 1000;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many sets
    #[arg(long, default_value_t = 200)]
    sets: usize,
    /// Print one JSON document as well
    #[arg(long)]
    json: bool,
}

/// The series of one run.
#[derive(Debug, Default)]
struct Series {
    ioctl: Vec<Duration>,
    window: Vec<Duration>,
    rest: Vec<Duration>,
    whole: Vec<Duration>,
}

/// True when the medians are what was wanted.
pub(super) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::BTRFS], interrupt)?;
    let programs = house::build_release(interrupt)?;
    house::need_root("bench window")?;
    let bench = Bench::set_up(&programs, interrupt)?;
    let mut series = Series::default();
    for round in 0..arguments.sets {
        // In turn, so that neither always meets what the other left.
        if round % 2 == 0 {
            bench.bare_ioctl(&mut series)?;
            bench.create(&mut series, interrupt)?;
        } else {
            bench.create(&mut series, interrupt)?;
            bench.bare_ioctl(&mut series)?;
        }
    }
    bench.tear_down()?;
    Ok(report(&series, arguments.json))
}

fn report(series: &Series, as_json: bool) -> bool {
    let rows = [
        ("bare snapshot ioctl", Summary::of(&series.ioctl)),
        ("freeze to thaw", Summary::of(&series.window)),
        ("the rest of vss create", Summary::of(&series.rest)),
        ("vss create in all", Summary::of(&series.whole)),
    ];
    println!("{:<26}{:>9}{:>9}{:>9}{:>9}  ms, {} sets", "", "p50", "p99", "least", "most", series.window.len());
    for (name, Summary { p50, p99, least, most }) in &rows {
        println!("{name:<26}{p50:>9.2}{p99:>9.2}{least:>9.2}{most:>9.2}");
    }
    let [(_, ioctl), (_, window), (_, rest), _] = &rows;
    let over = window.p50 - ioctl.p50;
    let (window_met, rest_met) = (over <= WANTED_OVER_IOCTL, rest.p50 < WANTED_REST);
    let word = |met| if met { "met" } else { "MISSED" };
    println!(
        "freeze to thaw is {over:.2} ms over the ioctl at p50; wanted at most {WANTED_OVER_IOCTL}: {}",
        word(window_met)
    );
    println!("the rest is {:.2} ms at p50; wanted less than {WANTED_REST}: {}", rest.p50, word(rest_met));
    if as_json {
        let [ioctl, window, rest, whole] = rows.map(|(_, summary)| summary);
        println!(
            "{}",
            json!({"sets": series.window.len(), "ioctl": ioctl, "window": window, "rest": rest, "whole": whole})
        );
    }
    window_met && rest_met
}

/// A service, three writers and a volume.
#[derive(Debug)]
struct Bench {
    writers: Vec<IdleWriter>,
    service: Service,
    volume: Volume,
    directory: TempDir,
}

impl Bench {
    fn set_up(programs: &Path, interrupt: &Interrupt) -> Result<Self> {
        let directory = TempDir::with_prefix_in("vss-bench-", house::scratch())?;
        let volume = Volume::create(&directory.path().join("volume"), 1, interrupt)?;
        for number in 0..FILES {
            fs::write(volume.path().join(format!("file-{number}")), format!("{number}\n").repeat(1000))?;
        }
        fs::create_dir(volume.path().join("bare"))?;
        volume.settle()?;
        let service = Service::start(programs, directory.path(), interrupt)?;
        let socket = service.writer_socket();
        let writers =
            LEVELS.map(|level| IdleWriter::start(level, volume.path(), &socket)).into_iter().collect::<Result<_>>()?;
        for level in LEVELS {
            service.wait_for_writer(&name(level), interrupt)?;
        }
        Ok(Self { writers, service, volume, directory })
    }

    fn bare_ioctl(&self, series: &mut Series) -> Result<()> {
        self.touch("bare-round")?;
        let (source, bare) = (File::open(self.volume.path())?, File::open(self.volume.path().join("bare"))?);
        let name = OsStr::new("snapshot");
        let began = Instant::now();
        btrfs::snapshot(&source, &bare, name).context("the bare ioctl failed")?;
        series.ioctl.push(began.elapsed());
        btrfs::destroy(&bare, name)?;
        Ok(btrfs::commit_transaction(&source)?)
    }

    fn create(&self, series: &mut Series, interrupt: &Interrupt) -> Result<()> {
        self.touch("set-round")?;
        for writer in &self.writers {
            writer.handle.forget();
        }
        let began = Instant::now();
        let set = self.service.create(self.volume.path(), interrupt)?;
        let whole = began.elapsed();
        let window = self.window(&set)?;
        series.whole.push(whole);
        series.window.push(window);
        series.rest.push(whole.saturating_sub(window));
        let id = set["set_id"].as_str().context("vss create says no set_id")?;
        interrupt.output(&mut self.service.vss(&["delete", "--set", id]))?;
        Ok(btrfs::commit_transaction(File::open(self.volume.path())?)?)
    }

    /// The same small change before every snapshot: a volume without any would have nothing to commit.
    fn touch(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.volume.path().join(name), "changed\n")?)
    }

    /// From the first Freeze to the last Thaw.
    fn window(&self, set: &Value) -> Result<Duration> {
        let records: Vec<_> = self.writers.iter().flat_map(|writer| writer.handle.records()).collect();
        let of = |kind| records.iter().filter(move |record| record.kind == kind).map(|record| record.at);
        for kind in [EventKind::Freeze, EventKind::Thaw] {
            if of(kind).count() != self.writers.len() {
                bail!("{} writers got {kind:?} instead of {}: {set}", of(kind).count(), self.writers.len());
            }
        }
        let (freeze, thaw) = (of(EventKind::Freeze).min(), of(EventKind::Thaw).max());
        Ok(thaw.context("no Thaw")?.duration_since(freeze.context("no Freeze")?))
    }

    fn tear_down(self) -> Result<()> {
        let Self { writers, mut service, volume, directory, .. } = self;
        for writer in writers {
            writer.finish()?;
        }
        service.end()?;
        drop(volume);
        Ok(directory.close()?)
    }
}

/// What the writer of a level is called.
fn name(level: AppLevel) -> String {
    format!("idle {level:?}")
}

/// A writer that answers at once, on a thread of this process.
#[derive(Debug)]
struct IdleWriter {
    handle: FakeHandle,
    stopper: Stopper,
    thread: JoinHandle<Result<(), RunError>>,
}

impl IdleWriter {
    fn start(level: AppLevel, volume: &Path, socket: &Path) -> Result<Self> {
        let mut writer = FakeWriter::new(&name(level), volume).at_level(level);
        let handle = writer.handle();
        let (stopper, stop) = Stop::new()?;
        let socket = socket.to_path_buf();
        let thread = thread::spawn(move || {
            vss_writer::run(&socket, &mut writer, &Options { stop: Some(&stop), reconnect: false, monitor: &Silent })
        });
        Ok(Self { handle, stopper, thread })
    }

    fn finish(self) -> Result<()> {
        drop(self.stopper);
        match self.thread.join() {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("a writer panicked"),
        }
    }
}
