//! Kills vssd, the guard, both, or the command line at random microseconds of the freeze window, with real copies of volumes
//! that programs write to, and looks at what is left: nothing frozen, no write failed, nothing damaged, nothing left over.
//!
//! The volumes are ext4 and XFS in images on an XFS that is no member (reflink copies) and a btrfs. `VSS_SEED` repeats the
//! random numbers of an earlier run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use vss_model::HoldProof;
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::scale::rounds;
use vss_tests::traces::{self, BusyVolume, LIMIT};
use vss_tests::turn::creation_turn;

/// No window is shorter.
const SHORTEST_US: u64 = 200;
/// Kills between two looks of the file systems' own checkers.
const ROUND: u32 = 10;
/// The rows in which a member may be frozen.
const HELD: [&str; 3] = ["hold", "commit", "release"];
/// The rows of the window, from the row at which the delay begins.
const WINDOW: [&str; 4] = ["flush_in_window", "hold", "commit", "release"];

/// Numbers that nobody foresees; xorshift64*.
struct Random(u64);

impl Random {
    fn new() -> anyhow::Result<Self> {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.subsec_nanos());
        let seed = match std::env::var("VSS_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => u64::from(now()?) | 1,
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

/// Whom a case kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Service,
    Guard,
    Requester,
    /// Guard and service at once: nobody is left who could thaw before the next start.
    Both,
}

impl Victim {
    const ALL: [Self; 4] = [Self::Service, Self::Guard, Self::Requester, Self::Both];

    /// As `VSS_FAULT` calls the deed.
    fn deed(self) -> &'static str {
        match self {
            Self::Service => "kill-service",
            Self::Guard => "kill-guard",
            Self::Requester => "kill-requester",
            Self::Both => "kill-both",
        }
    }

    fn ends_service(self) -> bool {
        matches!(self, Self::Service | Self::Both)
    }
}

/// How long a window takes here, in microseconds; other times, with another load, other lengths.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// From its second flush to the last FITHAW.
    window: u64,
    /// From the first FIFREEZE on.
    hold: u64,
}

impl Pace {
    /// The longest delay for a kill after the beginning of this row.
    fn of(&mut self, row: &str) -> &mut u64 {
        if row == "hold" { &mut self.hold } else { &mut self.window }
    }

    /// One in five kills comes too late, in the long run; so no part of the window is left out.
    fn learn(&mut self, row: &str, died_in: &str) {
        let span = self.of(row);
        *span = if WINDOW.contains(&died_in) { *span + *span / 16 } else { SHORTEST_US.max(*span - *span / 4) };
    }
}

/// An instance with its volumes, used for one case after another. Inner volumes go first.
struct Scene {
    instance: Instance,
    volumes: Vec<BusyVolume>,
    outside: LoopFs,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let outside = LoopFs::new(Kind::Xfs, 1200)?;
        let volumes = vec![
            BusyVolume::of(LoopFs::new_in(outside.path(), Kind::Ext4, 32)?)?,
            BusyVolume::of(LoopFs::new_in(outside.path(), Kind::Xfs, 320)?)?,
            BusyVolume::new(Kind::Btrfs, 256)?,
        ];
        Ok(Self { instance: Instance::new()?, volumes, outside })
    }

    /// Starts vssd; nothing may be left for it to put right.
    fn start(&mut self) -> anyhow::Result<()> {
        self.instance.start()?;
        let recovery = self.instance.management()?.status()?.recovery;
        ensure!(recovery.is_empty(), "something was left for this start: {recovery:?}");
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.volumes.iter().map(|volume| volume.path().as_os_str())
    }

    /// The middle of three windows in which nobody is killed.
    fn pace(&mut self) -> anyhow::Result<Pace> {
        self.instance.unset("VSS_FAULT");
        self.start()?;
        let mut paces = Vec::new();
        for _ in 0..3 {
            let _turn = creation_turn();
            let words = ["create", "--json"].map(OsStr::new).into_iter().chain(self.names());
            let set = self.instance.vss(words)?.json()?;
            let id = set["set_id"].as_str().context("a set")?;
            let proof = self.instance.management()?.set(id.parse()?)?.proof.context("a proof")?;
            let HoldProof { hold: Some(hold), flush_in_window: Some(flush), .. } = proof else { bail!("no hold") };
            let hold = hold.thawed_us;
            paces.push(Pace { window: hold.saturating_add_signed(-flush.from_us), hold });
            self.instance.vss(["delete", "--set", id])?;
        }
        self.instance.stop()?;
        paces.sort_by_key(|pace| pace.window);
        println!("windows where nobody is killed: {paces:?}");
        Ok(paces[1])
    }

    fn run(&self) -> anyhow::Result<Outcome> {
        let volumes = self.names().flat_map(|name| ["--volume".as_ref(), name]);
        self.instance.vss(std::iter::once("run".as_ref()).chain(volumes).chain(["--".as_ref(), "true".as_ref()]))
    }

    fn writes_flow(&self) -> anyhow::Result<Duration> {
        self.volumes.iter().try_fold(Duration::ZERO, |longest, volume| Ok(longest.max(volume.writes_flow()?)))
    }

    /// One case, from an instance that does not run to one that does not run. Says in which row the victim died, and the
    /// longest that a write took.
    fn case(&mut self, row: &str, victim: Victim, delay_us: u64) -> anyhow::Result<(String, Duration)> {
        self.instance.set("VSS_FAULT", format!("{row}:{}+{delay_us}", victim.deed()));
        let logged = self.instance.log().len();
        self.start()?;
        self.writes_flow()?;
        // Until the service has undone the set of a requester that is gone.
        let turn = creation_turn();
        let outcome = self.run()?;
        let ended = Instant::now();
        // It comes when the set is done, too.
        let said = || {
            let log = self.instance.log();
            let said = log.get(logged..)?.lines().find_map(|line| line.strip_prefix("fault: "))?;
            Some(said.rsplit_once(" in ")?.1.to_owned())
        };
        ensure!(wait_until(LIMIT, || said().is_some()), "nobody was killed: {outcome:?}");
        let died_in = said().context("it was there")?;
        check_end(&outcome, victim, &died_in)?;

        let mut stall = Duration::ZERO;
        if victim.ends_service() {
            let is_gone = wait_until(LIMIT, || self.instance.service_pid().is_none());
            ensure!(is_gone, "vssd lives");
            self.instance.kill()?;
            if victim == Victim::Service {
                // The guard sees to that by itself.
                stall = self.writes_flow()?;
            }
            self.instance.unset("VSS_FAULT");
            self.instance.start()?;
        } else {
            self.is_idle()?;
        }
        drop(turn);
        stall = stall.max(self.writes_flow()?);
        self.nothing_is_left()?;
        self.instance.stop()?;
        traces::has_no_processes(&self.instance)?;
        ensure!(ended.elapsed() < 3 * LIMIT, "it took {:?} until all was well", ended.elapsed());
        Ok((died_in, stall))
    }

    /// The living service has nothing under way.
    fn is_idle(&self) -> anyhow::Result<()> {
        let mut management = self.instance.management()?;
        let mut status = management.status()?;
        let is_idle = wait_until(LIMIT, || {
            let Ok(now) = management.status() else { return false };
            status = now;
            status.sessions.is_empty() && status.creating.is_none() && !status.holding && status.shadows == 0
        });
        ensure!(is_idle, "the service is not idle: {status:?}");
        Ok(())
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let shadows = self.instance.management()?.shadows()?;
        ensure!(shadows.is_empty(), "{shadows:?}");
        let mounts = self.instance.mounts();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        let btrfs = self.volumes.last().context("a scene has volumes")?;
        btrfs.has_no_copies()?;
        traces::has_no_stored_copies(btrfs.volume())?;
        traces::has_no_stored_copies(&self.outside)
    }

    /// The writing ends, and the file systems' own checkers look at them.
    fn check(mut self) -> anyhow::Result<Self> {
        let mut volumes = Vec::new();
        for volume in self.volumes {
            let volume = volume.stop()?;
            volume.check()?;
            volumes.push(BusyVolume::of(volume)?);
        }
        self.volumes = volumes;
        Ok(self)
    }
}

/// A command ends; with what, depends on when the victim died.
fn check_end(outcome: &Outcome, victim: Victim, died_in: &str) -> anyhow::Result<()> {
    let is_right = match (victim, outcome.code) {
        (Victim::Requester, None) => outcome.signal == Some(9),
        (Victim::Service | Victim::Both, Some(125)) => outcome.stderr.contains("VSS_E_UNEXPECTED"),
        (Victim::Guard, Some(125)) => outcome.stderr.contains("guard") && outcome.stderr.contains("VSS_E_"),
        // The guard had thawed by then.
        (Victim::Guard, Some(0)) => !["hold", "commit"].contains(&died_in),
        // It was too late.
        (_, Some(0)) => !WINDOW.contains(&died_in),
        _ => false,
    };
    ensure!(is_right, "{victim:?} died in {died_in}, and then: {outcome:?}");
    Ok(())
}

#[test]
fn whoever_dies_in_the_window_nothing_stays_frozen_or_is_left() -> anyhow::Result<()> {
    let name = "whoever_dies_in_the_window_nothing_stays_frozen_or_is_left";
    if LoopFs::skips(name, &[Kind::Ext4, Kind::Xfs, Kind::Btrfs]) {
        return Ok(());
    }
    let mut random = Random::new()?;
    let mut scene = Scene::new()?;
    let mut pace = scene.pace()?;
    let mut deaths = BTreeMap::<(Victim, String), u32>::new();
    let mut longest = Duration::ZERO;
    let kills = rounds(50, 500);
    for number in 0..kills {
        let victim = Victim::ALL[usize::try_from(random.below(4))?];
        // The hold is short beside the whole window: as many kills for it as for the rest.
        let (row, span) = if random.below(2) == 0 { ("flush_in_window", pace.window) } else { ("hold", pace.hold) };
        let delay_us = random.below(span);
        let case = format!("kill {number}: {row}:{}+{delay_us}", victim.deed());
        let started = Instant::now();
        let (died_in, stall) = scene
            .case(row, victim, delay_us)
            .with_context(|| format!("{case}, after {:?}: {}", started.elapsed(), scene.instance.log()))?;
        longest = longest.max(stall);
        pace.learn(row, &died_in);
        *deaths.entry((victim, died_in)).or_default() += 1;
        if (number + 1) % ROUND == 0 {
            scene = scene.check().context(case)?;
        }
    }
    // A start finds nothing of the case before it; this one nothing of the last.
    scene.instance.unset("VSS_FAULT");
    scene.start()?;
    scene.instance.stop()?;
    println!("{kills} kills; the longest write took {} ms", longest.as_millis());
    for ((victim, died_in), count) in &deaths {
        println!("  {victim:?} in {died_in}: {count}");
    }
    let held: u32 = deaths.iter().filter(|((_, row), _)| HELD.contains(&row.as_str())).map(|(_, count)| count).sum();
    ensure!(held * 3 > kills, "only {held} of {kills} died in a hold");
    let Scene { volumes, outside, .. } = scene;
    drop(volumes.into_iter().map(BusyVolume::stop).collect::<Result<Vec<_>, _>>()?);
    outside.check()
}
