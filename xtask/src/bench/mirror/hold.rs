//! How long writes are held under 4 KiB random writes at 50 MB/s over 1 GiB, and how long by a flush, a freeze and a thaw alone
//! under the same.

use super::load::Load;
use super::scene::{HOT_MIB, Made, Scene};
use super::word;
use crate::bench::statistics::Summary;
use crate::interrupt::Interrupt;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};
use vss_linux::freeze;
use vss_model::{VssCode, VssError};

/// Issue: of the holds, in milliseconds.
const WANTED_P99: f64 = 500.0;
/// Holds of each kind in a pair: a 99th percentile of nine would be the worst alone.
const EACH: u32 = 3;
/// The writers write so long before each hold.
const WARM: Duration = Duration::from_millis(300);

/// Thaws what an interrupted measurement left frozen.
struct Thaw(File);

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = freeze::thaw(&self.0);
    }
}

/// Measures, and prints the table.
pub(super) fn run(scene: &Scene, pairs: u32, interrupt: &Interrupt) -> Result<(bool, Value)> {
    // Not a first copy under load: what is measured is the hold.
    scene.copy(interrupt)?;
    let sectors_before = sectors_written(scene)?;
    let began = Instant::now();
    let mut fio = Scene::fio(&scene.volume().path().join("hot"), HOT_MIB);
    fio.args(["--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--iodepth=16", "--rate=50000000", "--time_based"]);
    fio.args(["--runtime=3600", "--kb_base=1000"]).stdout(Stdio::null());
    let load = Load::start(&mut fio, interrupt)?;
    let (mut holds, mut reads, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let mut refused = 0_u32;
    for turn in 0..pairs * EACH * 2 {
        interrupt.sleep(WARM)?;
        // a b, b a, a b...
        if (turn % 2 == 0) == (turn / 2 % 2 == 0) {
            let Made { proof, .. } = match scene.copy(interrupt) {
                Ok(made) => made,
                // Too much to read, or not known what: nothing was copied, and the next one may do better.
                Err(error) if is_refusal(&error) => {
                    eprintln!("{error:#}");
                    refused += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            holds.push(Duration::from_micros(proof.hold_us()));
            let member = proof.members.first().context("a set has members")?;
            reads.push(Duration::from_micros(member.commit.took_us));
        } else {
            alone.push(freeze_and_thaw(scene)?);
        }
    }
    let written = (sectors_written(scene)? - sectors_before) as f64 * 512.0 / 1e6 / began.elapsed().as_secs_f64();
    drop(load);
    let [hold, read, bare] = [&holds, &reads, &alone].map(|series| Summary::of(series));
    println!(
        "{:<26}{:>9}{:>9}{:>9}{:>9}   ms, {} holds each, {written:.0} MB/s written",
        "",
        "p50",
        "p99",
        "least",
        "most",
        holds.len()
    );
    for (name, row) in [("hold", &hold), ("of it the last read", &read), ("freeze and thaw alone", &bare)] {
        println!("{name:<26}{:>9.1}{:>9.1}{:>9.1}{:>9.1}", row.p50, row.p99, row.least, row.most);
    }
    let wanted = bare.p50 + read.p50;
    let is_measured = !holds.is_empty();
    let (is_short, is_bounded) = (is_measured && hold.p50 <= wanted, is_measured && hold.p99 < WANTED_P99);
    println!("refused: {refused} of {}; wanted none: {}", pairs * EACH, word(refused == 0));
    println!("hold at p50: {:.1} ms; wanted at most {wanted:.1}: {}", hold.p50, word(is_short));
    println!("hold at p99: {:.1} ms; wanted less than {WANTED_P99}: {}", hold.p99, word(is_bounded));
    let row = json!({"hold": hold, "read": read, "freeze_and_thaw": bare, "megabytes_per_second": written,
        "refused": refused});
    Ok((is_short && is_bounded && refused == 0, row))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.downcast_ref::<VssError>().is_some_and(|error| error.code == VssCode::ProviderVeto)
}

/// From before FIFREEZE to after FITHAW, flushed before.
fn freeze_and_thaw(scene: &Scene) -> Result<Duration> {
    let directory = File::open(scene.volume().path())?;
    for _ in 0..2 {
        freeze::sync(&directory)?;
    }
    let thaw = Thaw(directory);
    let began = Instant::now();
    freeze::freeze(&thaw.0).context("FIFREEZE")?;
    freeze::thaw(&thaw.0).context("FITHAW")?;
    Ok(began.elapsed())
}

/// To the volume's device, since it was made.
fn sectors_written(scene: &Scene) -> Result<u64> {
    scene.sectors(6)
}
