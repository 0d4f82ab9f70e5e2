//! What a program meets on a volume whose writes are held: the facts of docs/freeze-window.md, on ext4 and XFS.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use vss_linux::freeze::{self, FreezeError, Thaw};
use vss_linux::process::{PidFd, ProcessStat, Signal};
use vss_tests::instance::wait_until;
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};

/// What does not wait is done within this time.
const AT_ONCE: Duration = Duration::from_secs(5);
/// What has not happened after this time waits.
const LOOK: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(20);

type Act = fn(&Path) -> std::io::Result<()>;

const WORKS: [(&str, Act); 7] = [
    ("reading a file", |at| fs::read(at.join("file")).map(drop)),
    ("listing a directory", |at| fs::read_dir(at)?.try_for_each(|entry| entry.map(drop))),
    ("stat", |at| fs::metadata(at.join("file")).map(drop)),
    ("statfs", |at| vss_linux::statfs::of_path(at).map(drop)),
    ("opening an existing file for writing", |at| OpenOptions::new().write(true).open(at.join("file")).map(drop)),
    ("starting a program", |at| Command::new(at.join("true")).status().map(drop)),
    ("syncfs", |at| Ok(freeze::sync(File::open(at)?)?)),
];

const WAITS: [(&str, Act); 7] = [
    ("creating a file", |at| File::create_new(at.join("new")).map(drop)),
    ("write", |at| OpenOptions::new().write(true).open(at.join("file"))?.write_all_at(b"more", 0)),
    ("truncating", |at| OpenOptions::new().write(true).open(at.join("long"))?.set_len(1)),
    ("deleting", |at| fs::remove_file(at.join("old"))),
    ("making a directory", |at| fs::create_dir(at.join("directory"))),
    ("renaming", |at| fs::rename(at.join("one"), at.join("two"))),
    ("chmod", |at| fs::set_permissions(at.join("long"), Permissions::from_mode(0o640))),
];

/// Does it in a thread of its own.
fn start(act: Act, at: &Path) -> mpsc::Receiver<std::io::Result<()>> {
    let (tell, told) = mpsc::channel();
    let at = at.to_owned();
    thread::spawn(move || tell.send(act(&at)));
    told
}

fn frozen(test: &str, check: fn(&LoopFs) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if LoopFs::skips(test, &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    for (kind, size) in [(Kind::Ext4, 64), (Kind::Xfs, 320)] {
        let volume = LoopFs::new(kind, size)?;
        for name in ["file", "long", "old", "one"] {
            fs::write(volume.path().join(name), "text")?;
        }
        fs::copy("/bin/true", volume.path().join("true"))?;
        freeze::sync(volume.open()?)?;
        let _timer = thaw_timer(volume.open()?, Duration::from_secs(120));
        freeze::freeze(volume.open()?)?;
        check(&volume).with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

#[test]
fn what_reads_goes_on_and_what_writes_waits_for_the_thaw() -> anyhow::Result<()> {
    frozen("what_reads_goes_on_and_what_writes_waits_for_the_thaw", |volume| {
        for (what, act) in WORKS {
            start(act, volume.path()).recv_timeout(AT_ONCE).with_context(|| format!("{what} waits"))?.context(what)?;
        }
        let waiting = WAITS.map(|(what, act)| (what, start(act, volume.path())));
        thread::sleep(LOOK);
        for (what, told) in &waiting {
            ensure!(told.try_recv().is_err(), "{what} did not wait");
        }
        freeze::thaw(volume.open()?)?;
        for (what, told) in waiting {
            // No request of a program fails because of a hold.
            told.recv_timeout(LIMIT).with_context(|| format!("{what} waits still"))?.context(what)?;
        }
        Ok(())
    })
}

/// A store into a mapped page, as LMDB and journald make them.
#[test]
fn a_store_into_a_mapped_file_waits_and_no_signal_ends_it() -> anyhow::Result<()> {
    frozen("a_store_into_a_mapped_file_waits_and_no_signal_ends_it", |volume| {
        const SCRIPT: &str = "import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    pages = mmap.mmap(file.fileno(), 4)
assert pages[:4] == b'text'
pages[0] = 33";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(volume.path().join("file")).stdin(Stdio::null());
        let mut process = command.spawn()?;
        let (stat, pid) = (ProcessStat::open(process.id())?, PidFd::open(process.id())?);
        let waits = || {
            thread::sleep(LOOK);
            stat.is_uninterruptible()
        };
        ensure!(wait_until(LIMIT, waits), "the store does not wait");
        pid.signal(Signal::KILL)?;
        thread::sleep(LOOK);
        ensure!(!pid.is_gone(), "SIGKILL ended it");
        freeze::thaw(volume.open()?)?;
        ensure!(wait_until(LIMIT, || pid.is_gone()), "it lives on after the thaw");
        process.wait()?;
        Ok(())
    })
}

#[test]
fn a_second_freeze_is_busy_and_a_second_thaw_finds_nothing() -> anyhow::Result<()> {
    frozen("a_second_freeze_is_busy_and_a_second_thaw_finds_nothing", |volume| {
        ensure!(freeze::freeze(volume.open()?) == Err(FreezeError::AlreadyFrozen), "frozen twice");
        // Whoever has the right may: the kernel does not ask who froze it.
        ensure!(freeze::thaw(volume.open()?)? == Thaw::Thawed, "not thawed");
        ensure!(freeze::thaw(volume.open()?)? == Thaw::NotFrozen, "thawed twice");
        Ok(())
    })
}

/// FIFREEZE has flushed everything, the journal too: the image as it is needs no replay.
#[test]
fn what_is_copied_from_below_a_frozen_ext4_is_clean() -> anyhow::Result<()> {
    if LoopFs::skips("what_is_copied_from_below_a_frozen_ext4_is_clean", &[Kind::Ext4]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 64)?;
    let directory = tempfile::tempdir()?;
    let copy = |name: &str| -> anyhow::Result<bool> {
        let copy = directory.path().join(name);
        fs::copy(volume.image(), &copy)?;
        let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(copy).stdout(Stdio::null()).status()?;
        // The journal's own flag: e2fsck -n does not replay it, and says what is wrong without it.
        Ok(checked.success() && !needs_recovery(&directory.path().join(name))?)
    };
    let load = vss_tests::load::Load::start(volume.path())?;
    ensure!(wait_until(LIMIT, || load.writes() > 10), "nothing is written");
    ensure!(!copy("live")?, "a copy of the live volume is clean as well: this shows nothing");
    let _timer = thaw_timer(volume.open()?, Duration::from_secs(120));
    freeze::freeze(volume.open()?)?;
    let is_clean = copy("frozen");
    freeze::thaw(volume.open()?)?;
    ensure!(is_clean?, "the copy of the frozen volume is not clean");
    load.stop()?;
    Ok(())
}

/// EXT4_FEATURE_INCOMPAT_RECOVER in the superblock.
fn needs_recovery(image: &Path) -> anyhow::Result<bool> {
    let mut features = [0; 4];
    File::open(image)?.read_exact_at(&mut features, 1024 + 0x60)?;
    Ok(u32::from_le_bytes(features) & 4 != 0)
}
