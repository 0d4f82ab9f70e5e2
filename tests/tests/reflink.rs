//! Volumes in image files on XFS and btrfs, copied by sharing the image's blocks while they are held: from `vss create` to
//! `vss delete`, with a real service and a real guard.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::fs::Mode;
use serde_json::Value;
use vss_api::writer::{Identify, Identity, Register};
use vss_lab::providers::strays;
use vss_model::{Component, VssError, WriterClassId};
use vss_provider::store;
use vss_tests::instance::{Instance, Outcome, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_writer::{Answer, Call, Monitor, Notice, Options, Stop, Stopper, Writer, done, run};

/// NO_AUTORECOVERY among the attributes of a copy.
const NO_AUTORECOVERY: u64 = 0x2;

fn name(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// What lies in the store of an outer file system.
fn stored(outer: &Path) -> Vec<String> {
    let entries = fs::read_dir(outer.join(".vss")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_clean(instance: &Instance, outer: &Path) -> anyhow::Result<()> {
    traces::has_no_shadows(instance)?;
    ensure!(!outer.join(".vss").exists(), "left in {}: {:?}", outer.display(), stored(outer));
    // The blocks of a copy whose file is gone would stay with its loop device.
    let strays = strays(&[outer])?;
    ensure!(strays.is_empty(), "loop devices are left: {strays:?}");
    Ok(())
}

fn create(instance: &Instance, words: &[&str]) -> anyhow::Result<Value> {
    let _turn = creation_turn();
    instance.vss([&["create", "--json"], words].concat())?.json()
}

fn fails(outcome: &Outcome, words: &[&str]) -> anyhow::Result<()> {
    let has_words = words.iter().all(|word| outcome.stderr.contains(word));
    ensure!(outcome.code == Some(1) && has_words, "expected {words:?}, got {outcome:?}");
    Ok(())
}

#[test]
fn a_volume_in_an_image_is_created_run_exposed_and_deleted() -> anyhow::Result<()> {
    let test = "a_volume_in_an_image_is_created_run_exposed_and_deleted";
    if LoopFs::skips(test, &[Kind::Xfs, Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    for (outer, outer_mib, inner, inner_mib) in
        [(Kind::Xfs, 400, Kind::Ext4, 64), (Kind::Xfs, 900, Kind::Xfs, 300), (Kind::Btrfs, 400, Kind::Ext4, 64)]
    {
        let outer = LoopFs::new(outer, outer_mib)?;
        {
            let inner = BusyVolume::of(LoopFs::new_in(outer.path(), inner, inner_mib)?)?;
            whole_life(&Instance::new()?, &outer, &inner)?;
        }
    }
    Ok(())
}

fn whole_life(instance: &Instance, outer: &LoopFs, inner: &BusyVolume) -> anyhow::Result<()> {
    let volume = name(inner.path());
    let file = inner.path().join("file");
    fs::write(&file, "old")?;
    inner.writes_flow()?;

    let forecast = instance.vss(["check", "--json", volume])?.json()?;
    ensure!(forecast["volumes"][0]["provider"] == "reflink", "{forecast}");
    ensure!(forecast["atomic"] == true && forecast["consistency"] == "file-system", "{forecast}");
    ensure!(stored(outer.path()).is_empty(), "a check makes something");

    let set = create(instance, &["--persistent", volume])?;
    ensure!(set["atomic"] == true && set["consistency"] == "file-system", "{set}");
    ensure!(set["hold_ms"].as_u64().is_some_and(|ms| ms > 0 && ms < 10_000), "not held: {set}");
    let shadow = &set["shadows"][0];
    ensure!(shadow["provider"] == "reflink" && shadow["volume"] == volume, "{set}");
    let id = shadow["id"].as_str().context("an id")?;
    ensure!(stored(outer.path()) == [format!("{id}.image")], "{:?}", stored(outer.path()));
    let stall = inner.writes_flow()?;
    println!("{volume}: held for {} ms, longest write {stall:?}", set["hold_ms"]);

    fs::write(&file, "new")?;
    let place = instance.path().join("shown");
    fs::create_dir_all(&place)?;
    ensure!(instance.vss(["expose", id, name(&place)])?.is_success(), "not exposed");
    ensure!(fs::read_to_string(place.join("file"))? == "old", "what is shown is not the copy");
    ensure!(fs::write(place.join("new"), "x").is_err(), "a copy can be written to");
    // A copy is no volume of its own, and does not stand for the live one.
    let volumes = instance.vss(["list", "volumes", "--json"])?.json()?;
    let listed = volumes["volumes"].as_array().context("a list")?;
    ensure!(listed.iter().all(|listed| listed["volume"] != name(&place)), "{volumes}");
    ensure!(listed.iter().any(|listed| listed["volume"] == volume && listed["provider"] == "reflink"), "{volumes}");
    let turn = creation_turn();
    fails(&instance.vss(["create", name(&place)])?, &["it is a shadow copy itself", "VSS_E_VOLUME_NOT_SUPPORTED"])?;
    drop(turn);

    // Somebody else's mount of the copy keeps it; the service's own is taken away.
    let other = instance.path().join("other");
    let bound = vss_tests::volume::Mounted::bind(&place, &other)?;
    fails(&instance.vss(["delete", id])?, &["is mounted at", name(&other), "VSS_E_PROVIDER_VETO"])?;
    ensure!(stored(outer.path()).len() == 1 && fs::read_to_string(other.join("file"))? == "old", "it is damaged");
    drop(bound);
    ensure!(instance.vss(["expose", id, name(&place)])?.is_success(), "not exposed again");
    ensure!(instance.vss(["delete", id])?.is_success(), "not deleted");
    ensure!(!place.join("file").exists(), "it is still shown");

    // A command sees the copy, and the copy is gone with it.
    let turn = creation_turn();
    let script = format!("cat {0}; echo newer > {0}.live 2>/dev/null || echo , read-only", file.display());
    let outcome = instance.vss(["run", "--volume", volume, "--", "sh", "-c", &script])?;
    drop(turn);
    ensure!(outcome.is_success() && outcome.stdout == "new, read-only\n", "{outcome:?}");
    inner.writes_flow()?;
    is_clean(instance, outer.path())?;
    traces::has_no_processes(instance)
}

#[test]
fn a_copy_outlives_the_service_and_is_exposed_again() -> anyhow::Result<()> {
    if LoopFs::skips("a_copy_outlives_the_service_and_is_exposed_again", &[Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Xfs, 400)?;
    {
        let inner = LoopFs::new_in(outer.path(), Kind::Ext4, 64)?;
        fs::write(inner.path().join("file"), "old")?;
        let mut instance = Instance::new()?;
        instance.start()?;
        let set = create(&instance, &["--persistent", name(inner.path())])?;
        let id = set["shadows"][0]["id"].as_str().context("an id")?.to_owned();
        instance.kill()?;
        instance.start()?;
        let recovery = instance.management()?.status()?.recovery;
        ensure!(recovery.is_empty(), "{recovery:?}");
        let place = instance.path().join("shown");
        fs::create_dir(&place)?;
        ensure!(instance.vss(["expose", &id, name(&place)])?.is_success(), "not exposed");
        ensure!(fs::read_to_string(place.join("file"))? == "old");
        // Somebody deletes it behind our back: the next start forgets it.
        ensure!(instance.vss(["unexpose", &id])?.is_success());
        instance.stop()?;
        let copy = outer.path().join(format!(".vss/{id}.image"));
        store::set_immutable(fs::File::open(&copy)?, false)?;
        fs::remove_file(&copy)?;
        fs::remove_dir(outer.path().join(".vss"))?;
        instance.start()?;
        let recovery = instance.management()?.status()?.recovery;
        ensure!(recovery.len() == 1 && recovery[0].contains("it is gone from its volume"), "{recovery:?}");
        is_clean(&instance, outer.path())?;
        instance.stop()?;
    }
    Ok(())
}

#[test]
fn a_set_whose_cut_would_write_to_a_held_volume_is_refused_unfrozen() -> anyhow::Result<()> {
    let test = "a_set_whose_cut_would_write_to_a_held_volume_is_refused_unfrozen";
    if LoopFs::skips(test, &[Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Xfs, 1200)?;
    {
        let middle = LoopFs::new_in(outer.path(), Kind::Xfs, 500)?;
        {
            let inner = BusyVolume::of(LoopFs::new_in(middle.path(), Kind::Ext4, 64)?)?;
            let instance = Instance::new()?;
            inner.writes_flow()?;
            let both = [name(middle.path()), name(inner.path())];
            let refusal = ["VSS_E_NESTED_VOLUME_LIMIT", name(inner.path()), "two sets"];
            let turn = creation_turn();
            fails(&instance.vss([&["create"], &both[..]].concat())?, &refusal)?;
            drop(turn);
            // The check says the same beforehand.
            let forecast = instance.vss([&["check", "--json"], &both[..]].concat())?;
            ensure!(forecast.code == Some(1), "{forecast:?}");
            ensure!(forecast.stdout.contains(refusal[0]) && forecast.stdout.contains(refusal[1]), "{forecast:?}");
            let stall = inner.writes_flow()?;
            ensure!(stall < Duration::from_secs(1), "something was frozen for {stall:?}");
            is_clean(&instance, outer.path())?;
            is_clean(&instance, middle.path())?;
            // Each alone is no trouble.
            for volume in both {
                let set = create(&instance, &[volume])?;
                ensure!(set["shadows"][0]["provider"] == "reflink" && set["atomic"] == true, "{set}");
            }
            ensure!(instance.vss(["delete", "--all"])?.is_success());
            is_clean(&instance, outer.path())?;
            is_clean(&instance, middle.path())?;
        }
    }
    Ok(())
}

#[test]
fn a_btrfs_volume_is_cut_while_a_volume_in_an_image_is_held() -> anyhow::Result<()> {
    let test = "a_btrfs_volume_is_cut_while_a_volume_in_an_image_is_held";
    if LoopFs::skips(test, &[Kind::Xfs, Kind::Ext4, Kind::Btrfs]) {
        return Ok(());
    }
    let (outer, beside) = (LoopFs::new(Kind::Xfs, 400)?, Volume::new()?);
    {
        let inner = BusyVolume::of(LoopFs::new_in(outer.path(), Kind::Ext4, 64)?)?;
        let instance = Instance::new()?;
        inner.writes_flow()?;
        beside.write("file", "btrfs")?;
        fs::write(inner.path().join("file"), "ext4")?;
        let set = create(&instance, &[beside.name(), name(inner.path())])?;
        ensure!(set["atomic"] == true && set["consistency"] == "file-system", "{set}");
        let providers: Vec<_> =
            set["shadows"].as_array().context("a list")?.iter().map(|one| &one["provider"]).collect();
        ensure!(providers == ["btrfs", "reflink"], "{set}");
        for (index, text) in [(0, "btrfs"), (1, "ext4")] {
            let place = instance.path().join(text);
            fs::create_dir(&place)?;
            let id = set["shadows"][index]["id"].as_str().context("an id")?;
            ensure!(instance.vss(["expose", id, name(&place)])?.is_success(), "{text} is not exposed");
            ensure!(fs::read_to_string(place.join("file"))? == text);
        }
        ensure!(instance.vss(["delete", "--all"])?.is_success());
        beside.is_clean()?;
        is_clean(&instance, outer.path())?;
    }
    Ok(())
}

/// A writer that mends its copy: it takes `scratch` away and leaves `label`.
struct Mender {
    directory: std::path::PathBuf,
    /// What came of it.
    said: Arc<Mutex<Vec<Result<(), VssError>>>>,
}

impl Writer for Mender {
    fn registration(&self) -> Register {
        Register::new(WriterClassId::from_u128(0x5f1d_0001), "mender")
    }

    fn identify(&mut self, _identify: &Identify) -> Result<Identity, VssError> {
        Ok(Identity::of([Component::file_group("data").files_below(&self.directory).build()?]))
    }

    fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer {
        call.must_have(&self.directory)?;
        done()
    }

    fn freeze(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    fn thaw(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    fn abort(&mut self, _call: &Call<'_>) -> Answer {
        done()
    }

    fn post_snapshot(&mut self, call: &Call<'_>) -> Answer {
        let mended = call.in_copy(&self.directory).and_then(|copy| {
            copy.join("scratch")?.remove_file().map_err(cannot_mend)?;
            copy.join("label")?.create(Mode::RUSR | Mode::WUSR).map(drop).map_err(cannot_mend)
        });
        self.said.lock().unwrap().push(mended.clone());
        mended?;
        done()
    }
}

fn cannot_mend(error: std::io::Error) -> VssError {
    VssError::new(vss_model::VssCode::WriterErrorRecoveryFailed, error.to_string())
}

struct Joined(mpsc::Sender<()>);

impl Monitor for Joined {
    fn notice(&self, notice: &Notice<'_>) {
        if matches!(notice, Notice::Registered { .. }) {
            let _ = self.0.send(());
        }
    }
}

/// Registers the writer, which ends with what is returned.
fn join(instance: &Instance, mut writer: Mender) -> anyhow::Result<(Stopper, thread::JoinHandle<()>)> {
    let (stopper, stop) = Stop::new()?;
    let (tell, told) = mpsc::channel();
    let socket = instance.writer_socket();
    let thread = thread::spawn(move || {
        let monitor = Joined(tell);
        let _ = run(&socket, &mut writer, &Options { stop: Some(&stop), reconnect: false, monitor: &monitor });
    });
    told.recv_timeout(Duration::from_secs(30)).context("the service does not take the writer")?;
    Ok((stopper, thread))
}

#[test]
fn writers_mend_a_copy_where_its_provider_lets_them() -> anyhow::Result<()> {
    if LoopFs::skips("writers_mend_a_copy_where_its_provider_lets_them", &[Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Xfs, 400)?;
    {
        let inner = LoopFs::new_in(outer.path(), Kind::Ext4, 64)?;
        let scratch = inner.path().join("scratch");
        let mut instance = Instance::new()?;
        let fake = serde_json::json!({"store": traces::fake_store(&instance), "policy": "needs_hold",
            "writable_phase": false});
        instance.set("VSS_FAKE", fake.to_string());
        instance.start()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let mender = Mender { directory: inner.path().to_owned(), said: Arc::clone(&said) };
        let (stopper, thread) = join(&instance, mender)?;
        fs::write(&scratch, "x")?;

        let providers = instance.vss(["list", "providers", "--json"])?.json()?;
        let mendable = |provider: &str| {
            let listed = providers["providers"].as_array()?.iter().find(|one| one["name"] == provider)?;
            listed["writable_phase"].as_bool()
        };
        ensure!(mendable("reflink") == Some(true) && mendable("fake") == Some(false), "{providers}");
        ensure!(instance.vss(["list", "providers"])?.stdout.contains("MENDABLE"));

        let volume = name(inner.path());
        let set = create(&instance, &["--persistent", "--provider", "reflink", volume])?;
        ensure!(set["consistency"] == "application", "{set}");
        ensure!(said.lock().unwrap().as_slice() == [Ok(())], "{said:?}");
        ensure!(scratch.exists() && !inner.path().join("label").exists(), "the live volume was mended");
        let place = instance.path().join("shown");
        fs::create_dir(&place)?;
        let id = set["shadows"][0]["id"].as_str().context("an id")?;
        ensure!(instance.vss(["expose", id, name(&place)])?.is_success(), "not exposed");
        ensure!(!place.join("scratch").exists() && place.join("label").exists(), "the copy is not mended");
        ensure!(instance.vss(["delete", id])?.is_success());

        // Without a writable phase the writer has no directory, and says so; the set fails by its code.
        said.lock().unwrap().clear();
        let turn = creation_turn();
        let words = ["mender", "FAILED_AT_POST_SNAPSHOT", "cannot be written to", "VSS_E_WRITERERROR_RECOVERY_FAILED"];
        fails(&instance.vss(["create", "--provider", "fake", volume])?, &words)?;
        drop(turn);
        ensure!(matches!(said.lock().unwrap().as_slice(), [Err(_)]), "{said:?}");
        traces::has_no_markers(&instance)?;
        traces::has_no_shadows(&instance)?;
        // Whoever takes less gets it, and sees that nobody mended it.
        let set = create(&instance, &["--provider", "fake", "--allow-degraded", volume])?;
        ensure!(set["consistency"] == "file-system", "{set}");
        let listed = instance.vss(["list", "shadows", "--json"])?.json()?;
        let attributes = listed["shadows"][0]["attributes"].as_u64();
        ensure!(attributes.is_some_and(|bits| bits & NO_AUTORECOVERY != 0), "{listed}");
        ensure!(instance.vss(["delete", "--all"])?.is_success());
        is_clean(&instance, outer.path())?;
        drop(stopper);
        ensure!(wait_until(Duration::from_secs(30), || thread.is_finished()), "the writer does not end");
        instance.stop()?;
    }
    Ok(())
}

#[test]
fn the_administrator_says_how_much_must_be_free() -> anyhow::Result<()> {
    if LoopFs::skips("the_administrator_says_how_much_must_be_free", &[Kind::Xfs, Kind::Ext4]) {
        return Ok(());
    }
    let outer = LoopFs::new(Kind::Xfs, 400)?;
    {
        let inner = LoopFs::new_in(outer.path(), Kind::Ext4, 64)?;
        let instance = Instance::new()?;
        instance.settings("[providers.reflink]\nmin_free_bytes = 1099511627776")?;
        let _turn = creation_turn();
        let words = ["1048576 MiB", "VSS_E_INSUFFICIENT_STORAGE"];
        fails(&instance.vss(["create", name(inner.path())])?, &words)?;
        is_clean(&instance, outer.path())?;
    }
    Ok(())
}
