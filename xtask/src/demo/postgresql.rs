//! `cargo xtask demo postgresql`: a cluster under pgbench's load is backed up by restic from a shadow copy, restored, and
//! started as a second server, which must have the sums of one instant and every transaction that was acknowledged before the
//! backup. Beside it stands a copy of the live files, slow as one of a large cluster is, which has not.

mod table;

use crate::demo::backup;
use crate::demo::postgresql::table::{Outcome, Span};
use crate::demo::stage::{Stage, Writers, say};
use crate::interrupt::Interrupt;
use crate::{house, packages};
use anyhow::{Result, ensure};
use std::fs;
use std::time::{Duration, Instant};
use vss_lab::postgresql::load::{self, Load};
use vss_lab::postgresql::verify::{Restored, judge};
use vss_lab::postgresql::{Cluster, Stop, copies};

/// Size of the volume; its file is sparse.
const VOLUME_GIB: u64 = 4;
/// pgbench's scale: a million accounts, 150 MB.
const SCALE: u32 = 10;
/// Clients of pgbench.
const CLIENTS: u32 = 8;
/// How long the load is watched before and after the backup.
const WATCH: Duration = Duration::from_secs(4);

/// True when the restored server was whole and the plain copy was not.
pub(super) fn run(interrupt: &Interrupt) -> Result<bool> {
    packages::need(&[packages::BTRFS, packages::RESTIC, packages::POSTGRESQL], interrupt)?;
    let started = Instant::now();
    say("The programs, as they are shipped");
    let programs = house::build_release(interrupt)?;
    house::need_root("demo postgresql")?;
    if let Some(why) = vss_lab::postgresql::missing() {
        anyhow::bail!("no cluster can be made here: {why}");
    }

    say("A PostgreSQL cluster on a btrfs volume in a file, with a million accounts");
    let stage = Stage::set_up(&programs, VOLUME_GIB, Writers::Postgresql, interrupt)?;
    let data = stage.volume().join("postgresql");
    let mut cluster = Cluster::create(&data, &load::SETTINGS)?;
    cluster.start()?;
    load::prepare(&cluster, SCALE, None)?;
    stage.settle()?;
    interrupt.sleep(Duration::ZERO)?;

    say("pgbench with 8 clients: every transaction adds to an account, a teller, a branch and the history");
    let load = Load::start(&cluster, CLIENTS)?;
    let before = Span::of(|| interrupt.sleep(WATCH))?;

    say("Backed up by restic from a shadow copy, at its usual path, under this load");
    stage.restic(&["init", "--quiet"], interrupt)?;
    let during = Span::of(|| backup::make(&stage, interrupt))?;
    let after = Span::of(|| interrupt.sleep(WATCH))?;

    say("The same without us: a copy of the live files, so slow that a checkpoint passes");
    let copy = stage.path("copy");
    println!("$ (copy {} to {}, the tables first and global/pg_control last)", data.display(), copy.display());
    let copying = Span::of(|| copies::slowed(&cluster, &copy))?;
    println!("{:.1} s", copying.value.as_secs_f64());
    let log = load.finish()?;
    cluster.stop(Stop::Fast)?;
    interrupt.sleep(Duration::ZERO)?;

    say("A second server on what was restored");
    let restored = backup::restore(&stage, interrupt)?.join("postgresql");
    ensure!(!restored.join("postmaster.pid").exists(), "the lock of the live server is in the backup");
    let with = judge(&Restored { data: &restored, moved: &[], remove_lock: false }, SCALE)?;
    println!("{with}");
    fs::remove_dir_all(stage.path(backup::RESTORED))?;
    interrupt.sleep(Duration::ZERO)?;

    say("A second server on the copy of the live files");
    let without = judge(&Restored { data: &copy, moved: &[], remove_lock: true }, SCALE)?;
    println!("{without}");

    say("Compared");
    let outcome = Outcome { log, before, during, after, copying, with, without };
    print!("{}", outcome.table());
    println!("\nTook {} s.", started.elapsed().as_secs());
    Ok(outcome.is_as_promised())
}
