//! `/` as a held member, the most usual volume of a server: a root file system of the test's own, with our programs, their
//! libraries, the catalogue and the settings on it, and /run in memory. Commands run in it by chroot(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use vss_linux::process::{PidFd, Signal};
use vss_tests::instance::{Outcome, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::turn::creation_turn;
use vss_tests::volume::Mounted;

/// What has to happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the fake provider takes to cut.
const CUT: Duration = Duration::from_secs(4);
const PROGRAMS: [&str; 4] = ["vss", "vssd", "vss-guard", "vss-writers"];

/// A root file system. What is mounted below it goes first.
struct Root {
    _mounts: Vec<Mounted>,
    volume: LoopFs,
}

impl Root {
    fn new() -> anyhow::Result<Self> {
        let volume = LoopFs::new(Kind::Ext4, 1024)?;
        let root = volume.path();
        for directory in ["usr/libexec/vss", "etc/vss", "var/lib/vss", "tmp", "bin"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let ours = PROGRAMS.map(|name| (program(name), Path::new("usr/libexec/vss").join(name)));
        // A fault of the tests kills by a shell.
        for (program, place) in ours.into_iter().chain([("/bin/sh".into(), "bin/sh".into())]) {
            fs::copy(&program, root.join(place))?;
            for library in libraries(&program)? {
                let place = root.join(library.strip_prefix("/")?);
                fs::create_dir_all(place.parent().context("a library lies in a directory")?)?;
                fs::copy(&library, place)?;
            }
        }
        fs::write(root.join("etc/vss/vss.toml"), "[writers]\npostgresql = false\n")?;
        let mounts = vec![
            Mounted::bind(Path::new("/proc"), &root.join("proc"))?,
            Mounted::bind(Path::new("/sys"), &root.join("sys"))?,
            Mounted::bind(Path::new("/dev"), &root.join("dev"))?,
            Mounted::memory(&root.join("run"))?,
        ];
        Ok(Self { _mounts: mounts, volume })
    }

    fn start(&self, fault: Option<&str>, words: &[&str]) -> anyhow::Result<Running> {
        let cut = u64::try_from(CUT.as_millis())?;
        let fake = json!({"store": "/run/store", "policy": "needs_hold", "commit_delay_ms": cut});
        let mut command = Command::new("chroot");
        command.arg(self.volume.path()).arg("/usr/libexec/vss/vss").args(words);
        command.env("VSS_FAKE", fake.to_string()).stdin(Stdio::null());
        command.envs(fault.map(|fault| ("VSS_FAULT", fault)));
        Running::start(command)
    }

    fn vss(&self, words: &[&str]) -> anyhow::Result<Outcome> {
        self.start(None, words)?.finish()
    }

    /// Waits until a write does not get through.
    fn is_held(&self) -> bool {
        wait_until(LIMIT, || self.volume.is_frozen())
    }

    /// Everything that runs with it as its root.
    fn processes(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root == self.volume.path()))
            .collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What is left when a test failed; LoopFs thaws.
        let _ = wait_until(LIMIT, || {
            let processes = self.processes();
            for pid in &processes {
                let _ = PidFd::open(*pid).and_then(|process| process.signal(Signal::KILL));
            }
            processes.is_empty()
        });
    }
}

/// The shared libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let said = String::from_utf8(output.stdout)?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(said.lines().filter_map(path).collect())
}

#[test]
fn the_root_is_held_with_all_that_runs_on_it() -> anyhow::Result<()> {
    if LoopFs::skips("the_root_is_held_with_all_that_runs_on_it", &[Kind::Ext4]) {
        return Ok(());
    }
    let root = Root::new()?;
    let checked = root.vss(&["check", "/", "--json"])?.json()?;
    ensure!(checked["possible"] == true && checked["atomic"] == true, "{checked}");
    let _turn = creation_turn();
    for _ in 0..3 {
        let creation = root.start(None, &["create", "/", "--json"])?;
        ensure!(root.is_held(), "nothing was held: {}", creation.stderr()?);
        // The service answers in the hold, and its programs can be started from the frozen volume.
        let asked = Instant::now();
        let answer = root.vss(&["list", "volumes", "--json"])?;
        let answered = asked.elapsed();
        ensure!(root.volume.is_frozen(), "the hold was over before the question");
        let volumes = answer.json()?;
        ensure!(volumes["volumes"].as_array().is_some_and(|volumes| !volumes.is_empty()), "{volumes}");
        let set = creation.finish()?.json()?;
        let held = Duration::from_millis(set["hold_ms"].as_u64().context("hold_ms")?);
        println!("/ held for {held:?}; `vss list volumes` in the hold took {answered:?}");
        ensure!(set["atomic"] == true && set["shadows"][0]["volume"] == "/", "{set}");
        // Not as long as the guard would wait for the end of it.
        ensure!(held >= CUT && held < Duration::from_secs(10), "{set}");
        ensure!(root.volume.start_write().finish(LIMIT).is_some(), "frozen still");
    }
    ensure!(root.vss(&["delete", "--all"])?.is_success());
    ensure!(wait_until(LIMIT, || root.processes().is_empty()), "{:?} are left", root.processes());
    Ok(())
}

/// The rescue of the manual: both are killed, and the next command is started from the frozen volume itself.
#[test]
fn a_root_that_stays_frozen_is_thawed_by_the_next_command_on_it() -> anyhow::Result<()> {
    if LoopFs::skips("a_root_that_stays_frozen_is_thawed_by_the_next_command_on_it", &[Kind::Ext4]) {
        return Ok(());
    }
    let root = Root::new()?;
    let _turn = creation_turn();
    let outcome = root.start(Some("release:kill-both"), &["create", "/"])?.finish()?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(root.volume.is_frozen(), "nobody is left who could have thawed it");
    let started = Instant::now();
    let listed = root.vss(&["list", "shadows", "--json"])?;
    ensure!(listed.json()?["shadows"].as_array().is_some_and(Vec::is_empty), "{listed:?}");
    ensure!(root.volume.start_write().finish(LIMIT).is_some(), "frozen still");
    println!("thawed and answered after {:?}", started.elapsed());
    ensure!(wait_until(LIMIT, || root.processes().is_empty()), "{:?} are left", root.processes());
    Ok(())
}

/// Where there is no /run of its own, the ledger would lie on what is to be frozen.
#[test]
fn a_root_that_holds_the_runtime_directory_is_refused_beforehand() -> anyhow::Result<()> {
    if LoopFs::skips("a_root_that_holds_the_runtime_directory_is_refused_beforehand", &[Kind::Ext4]) {
        return Ok(());
    }
    let root = Root::new()?;
    let words = ["/", "--runtime-dir", "/var/vss"];
    let checked = root.vss(&[&["check", "--json"], &words[..]].concat())?;
    ensure!(checked.code == Some(1) && checked.stdout.contains("VSS_E_NESTED_VOLUME_LIMIT"), "{checked:?}");
    let _turn = creation_turn();
    let refused = root.vss(&[&["create"], &words[..]].concat())?;
    let words = ["/var/vss lies on /,", "VSS_E_NESTED_VOLUME_LIMIT", "--runtime-dir"];
    ensure!(refused.code == Some(1) && words.iter().all(|word| refused.stderr.contains(word)), "{refused:?}");
    // The same words, and nothing was frozen.
    let message = refused.stderr.trim_start_matches("vss: ").split(" (VSS_E").next().context("a message")?;
    ensure!(checked.stdout.contains(message), "{checked:?}");
    ensure!(root.volume.start_write().finish(LIMIT).is_some(), "frozen");
    ensure!(wait_until(LIMIT, || root.processes().is_empty()), "{:?} are left", root.processes());
    Ok(())
}
