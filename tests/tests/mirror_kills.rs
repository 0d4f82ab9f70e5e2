//! Kills vssd, which is the copier too, at every row of the creation and at every place of the mirror provider that matters,
//! and at moments that nobody foresees, while a program writes to the volume. Afterwards nothing is frozen, the next start
//! leaves of the broken creation nothing but the mirror itself, and the next copy is right, block for block.

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use vss_service::sagas::create_set::TABLE;
use vss_tests::instance::wait_until;
use vss_tests::load::Load;
use vss_tests::loopfs::Kind;
use vss_tests::mirror::{Loads, Scene, Storage, Volume};
use vss_tests::postgresql::load_turn;
use vss_tests::scale::rounds;
use vss_tests::tracing;
use vss_tests::turn::creation_turn;

/// Whatever happened, so long after it nothing is frozen.
const LIMIT: Duration = Duration::from_secs(10);

/// The places in the provider, in their order.
const PLACES: [&str; 18] = [
    "state_saved",
    "traced",
    "first_round",
    "after_first_round",
    "later_round",
    "after_later_round",
    "taken_in_hold",
    "read_in_hold",
    "before_write_out",
    "written_out",
    "changes_saved",
    "shared",
    "lending",
    "lent",
    "mending",
    "mended",
    "sealed",
    "undoing",
];

/// So many of them, the first, do not know how images lie.
const COMMON: usize = 9;

/// One kill.
#[derive(Debug, Clone)]
struct Case {
    /// `VSS_MIRROR_FAULT`.
    place: Option<&'static str>,
    /// `VSS_FAULT`.
    fault: Option<String>,
    /// Before it there was no mirror.
    is_first: bool,
}

impl Case {
    fn place(place: &'static str, is_first: bool) -> Self {
        // Undone is what failed.
        let fault = (place == "undoing").then(|| "thaw:fail".to_owned());
        Self { place: Some(place), fault, is_first }
    }

    fn fault(row: &str, deed: &str) -> Self {
        Self { place: None, fault: Some(format!("{row}:{deed}")), is_first: false }
    }
}

/// True when a mirror whose images lie there comes by this place.
fn is_met(place: &str, shares: bool, is_first: bool) -> bool {
    match place {
        "shared" => shares,
        "lending" | "lent" => !shares,
        // The tracer of a mirror that is whole is there.
        "traced" => is_first,
        _ => true,
    }
}

/// All of them in a soak. Every day each place where it matters how images lie, half of the others for each way, and each on
/// the way to a first copy or to a later one.
fn cases(shares: bool) -> Vec<Case> {
    let is_soak = rounds(0, 1) == 1;
    let mut cases = Vec::new();
    for is_first in [true, false] {
        for (number, place) in PLACES.into_iter().enumerate() {
            let is_common = number < COMMON;
            let is_its_turn = !is_common || (number % 2 == 0) == shares;
            let is_its_way = is_met(place, shares, !is_first) == is_met(place, shares, is_first);
            let is_today = is_its_turn && (!is_its_way || (number / 2 % 2 == 0) == is_first);
            if is_met(place, shares, is_first) && (is_soak || is_today) {
                cases.push(Case::place(place, is_first));
            }
        }
    }
    // By the provider's places each phase of it is met already.
    let daily: &[&str] = if shares { &["record_intent", "hold"] } else { &["pre_commit", "release", "record"] };
    let rows = TABLE.iter().filter(|row| is_soak || daily.contains(&row.name));
    cases.extend(rows.map(|row| Case::fault(row.name, "kill-service")));
    cases.extend(["commit", "release"].into_iter().filter(|row| is_soak || (*row == "commit") == shares).map(|row| {
        // Nobody is left who could thaw before the next start.
        Case::fault(row, "kill-both")
    }));
    cases
}

/// A volume under load, and the service that is killed.
struct Killed {
    load: Load,
    /// So much that a slow round leaves another one to be done.
    more: Loads,
    /// Deleted while it is open: each copy has to be mended.
    _deleted: File,
    scene: Scene,
}

impl Killed {
    fn new(storage: Storage) -> anyhow::Result<Self> {
        let scene = Scene::new(Volume::whole(Kind::Ext4, 128)?, storage)?;
        let path = scene.volume().path();
        let deleted = path.join("deleted");
        let open = File::create(&deleted)?;
        fs::remove_file(&deleted)?;
        Ok(Self { load: Load::start(path)?, more: Loads::buffered(&path.join("more"), 24, 8)?, _deleted: open, scene })
    }

    fn writes_flow(&self) -> anyhow::Result<()> {
        let before = self.load.writes();
        ensure!(wait_until(LIMIT, || self.load.writes() >= before + 2), "it is frozen still after {LIMIT:?}");
        Ok(())
    }

    fn case(&mut self, case: &Case) -> anyhow::Result<()> {
        if case.is_first {
            self.scene.instance.unset("VSS_FAULT");
            self.scene.end()?;
            self.scene.instance.kill()?;
        } else if self.scene.stored().is_none() {
            ensure!(self.scene.judged()?.wrong.is_empty());
            self.scene.instance.kill()?;
        }
        self.scene.instance.unset("VSS_FAULT");
        if let Some(fault) = &case.fault {
            self.scene.instance.set("VSS_FAULT", fault.clone());
        }
        if let Some(place) = case.place {
            self.scene.instance.set("VSS_MIRROR_FAULT", place);
            if place.contains("later_round") {
                self.scene.wishes = vec!["--max-rate", "6M"];
            }
        }
        self.scene.instance.start()?;
        let turn = creation_turn();
        let outcome = self.scene.instance.vss(self.scene.create())?;
        self.scene.wishes.clear();
        let is_gone = wait_until(LIMIT, || self.scene.instance.service_pid().is_none());
        ensure!(is_gone && !outcome.is_success(), "vssd lives: the fault did not happen: {outcome:?}");
        if !case.fault.as_ref().is_some_and(|fault| fault.ends_with("kill-both")) {
            // The guard sees to that by itself.
            self.writes_flow()?;
        }
        self.scene.instance.unset("VSS_FAULT");
        self.scene.instance.unset("VSS_MIRROR_FAULT");
        self.scene.instance.kill()?;
        self.scene.instance.start()?;
        drop(turn);
        self.writes_flow()?;
        self.nothing_is_left()?;
        self.next_is_right()
    }

    /// After the next start: no copy, no part of one, no mount, and of the mirror what has to be there.
    fn nothing_is_left(&mut self) -> anyhow::Result<()> {
        vss_tests::traces::has_no_shadows(&self.scene.instance)?;
        let stored = self.scene.stored();
        let is_mirror = |names: &[String]| {
            names.iter().map(|name| name.rsplit_once('.').map(|(_, kind)| kind)).eq([Some("mirror"), Some("state")])
        };
        ensure!(stored.as_deref().is_none_or(is_mirror), "files are left: {stored:?}");
        let tracers = self.scene.instance.tracers();
        ensure!(tracers.len() <= usize::from(stored.is_some()), "tracers of nobody are left: {tracers:?}");
        Ok(())
    }

    fn next_is_right(&mut self) -> anyhow::Result<()> {
        self.scene.instance.kill()?;
        let judged = self.scene.judged()?;
        ensure!(judged.wrong.is_empty(), "the next copy is wrong: {judged:?}");
        self.scene.instance.kill()
    }

    fn finish(mut self) -> anyhow::Result<()> {
        drop(self.more);
        self.load.stop()?;
        self.scene.instance.unset("VSS_FAULT");
        self.scene.end()
    }
}

fn skips(test: &str) -> bool {
    tracing::skips(test, &[Kind::Ext4, Kind::Xfs]) || tracing::lacks(test, "fio")
}

fn matrix(name: &str, storage: Storage) -> anyhow::Result<()> {
    let _turn = load_turn();
    let mut killed = Killed::new(storage)?;
    let only = std::env::var("VSS_CASE").ok();
    let mut failures = Vec::new();
    for case in cases(storage == Storage::Other(Kind::Xfs)) {
        let line = format!("{name} {case:?}");
        if only.as_ref().is_some_and(|only| !line.contains(only.as_str())) {
            continue;
        }
        let began = Instant::now();
        match killed.case(&case) {
            Ok(()) => println!("{line}: {} ms", began.elapsed().as_millis()),
            Err(error) => {
                println!("{line}: FAILED: {error:#}\n{}", killed.scene.instance.log());
                failures.push(line);
                // What the case left must not fail the next one.
                killed = Killed::new(storage)?;
            }
        }
    }
    if !failures.is_empty() {
        bail!("{} cases failed: {failures:#?}", failures.len());
    }
    killed.finish()
}

#[test]
fn killed_with_images_that_share_blocks() -> anyhow::Result<()> {
    if skips("killed_with_images_that_share_blocks") {
        return Ok(());
    }
    matrix("shared", Storage::Other(Kind::Xfs))
}

#[test]
fn killed_with_an_image_that_is_lent() -> anyhow::Result<()> {
    if skips("killed_with_an_image_that_is_lent") {
        return Ok(());
    }
    matrix("lent", Storage::Other(Kind::Ext4))
}

#[test]
fn killed_while_the_mirror_is_taken_back() -> anyhow::Result<()> {
    if skips("killed_while_the_mirror_is_taken_back") {
        return Ok(());
    }
    let mut killed = Killed::new(Storage::Other(Kind::Ext4))?;
    killed.scene.instance.set("VSS_MIRROR_FAULT", "taking_back");
    killed.scene.instance.start()?;
    let set = {
        let _turn = creation_turn();
        killed.scene.instance.vss(killed.scene.create())?.json()?
    };
    let id = set["shadows"][0]["id"].as_str().context("an id")?.to_owned();
    ensure!(!killed.scene.instance.vss(["delete", &id])?.is_success(), "the fault did not happen");
    killed.scene.instance.unset("VSS_MIRROR_FAULT");
    killed.scene.instance.kill()?;
    killed.scene.instance.start()?;
    // It is deleted by the start, or can be deleted now.
    let listed = killed.scene.instance.vss(["list", "shadows", "--json"])?.json()?;
    if listed["shadows"].as_array().is_some_and(|shadows| !shadows.is_empty()) {
        let deleted = killed.scene.instance.vss(["delete", &id])?;
        ensure!(deleted.is_success(), "{deleted:?}");
    }
    killed.nothing_is_left()?;
    killed.next_is_right()?;
    killed.finish()
}

/// Numbers that nobody foresees; xorshift64*. `VSS_SEED` repeats them.
struct Random(u64);

impl Random {
    fn new() -> anyhow::Result<Self> {
        let seed = match std::env::var("VSS_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos()) | 1,
        };
        println!("VSS_SEED={seed}");
        Ok(Self(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }
}

#[test]
fn killed_at_any_moment() -> anyhow::Result<()> {
    if skips("killed_at_any_moment") {
        return Ok(());
    }
    let mut random = Random::new()?;
    for storage in [Storage::Other(Kind::Xfs), Storage::Other(Kind::Ext4)] {
        let mut killed = Killed::new(storage)?;
        let began = Instant::now();
        ensure!(killed.scene.judged()?.wrong.is_empty());
        let mut span = u64::try_from(began.elapsed().as_micros())?;
        for round in 0..rounds(5, 100) {
            let delay = random.below(span);
            if round % 4 == 0 {
                killed.scene.instance.unset("VSS_FAULT");
                killed.scene.end()?;
            }
            killed.scene.instance.kill()?;
            let logged = killed.scene.instance.log().len();
            killed.scene.instance.set("VSS_FAULT", format!("end_prepare:kill-service+{delay}"));
            killed.scene.instance.start()?;
            let turn = creation_turn();
            let outcome = killed.scene.instance.vss(killed.scene.create())?;
            let limit = LIMIT + Duration::from_micros(delay);
            let is_gone = wait_until(limit, || killed.scene.instance.service_pid().is_none());
            ensure!(is_gone, "the fault did not happen: {outcome:?}");
            killed.writes_flow()?;
            killed.scene.instance.unset("VSS_FAULT");
            killed.scene.instance.kill()?;
            killed.scene.instance.start()?;
            drop(turn);
            if outcome.is_success() {
                // It came too late; the copy is whole.
                let deleted = killed.scene.instance.vss(["delete", "--all"])?;
                ensure!(deleted.is_success(), "{deleted:?}");
                span = span * 3 / 4;
            } else {
                span += span / 16;
            }
            killed.writes_flow()?;
            killed.nothing_is_left()?;
            killed.next_is_right()?;
            let log = killed.scene.instance.log();
            let said = log.get(logged..).unwrap_or_default();
            println!("{round}: {:?}", said.lines().find(|line| line.starts_with("fault:")));
        }
        killed.finish()?;
    }
    Ok(())
}
