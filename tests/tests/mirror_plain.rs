//! A plain mounted ext4 that nothing was prepared for: backed up by a program that knows nothing of shadow copies; and copied
//! where the kernel lets nobody trace.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use vss_tests::instance::Instance;
use vss_tests::load::Load;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::mirror::{Scene, Storage, Volume};
use vss_tests::tracing::{self, run};
use vss_tests::turn::creation_turn;

/// Refuses bpf(2), and nothing else, to the program behind it.
const WITHOUT_BPF: &str = r#"
import ctypes, os, platform, struct, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
# Load the number of the call; is it bpf? EPERM : allowed.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn fill(place: &Path) -> anyhow::Result<()> {
    for directory in 0..20 {
        let directory = place.join(format!("directory-{directory}"));
        fs::create_dir(&directory)?;
        for file in 0..20 {
            fs::write(directory.join(format!("{file}")), format!("{file} ").repeat(5000))?;
        }
    }
    Ok(())
}

#[test]
fn restic_backs_up_a_plain_ext4() -> anyhow::Result<()> {
    let test = "restic_backs_up_a_plain_ext4";
    if tracing::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    if Command::new("restic").arg("version").output().is_err() {
        println!("SKIPPED: {test}: needs restic");
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Ext4, 256)?;
    let files = volume.path().join("files");
    fs::create_dir(&files)?;
    fill(&files)?;
    let mut instance = Instance::new()?;
    let place = |name: &str| instance.path().join(name).to_string_lossy().into_owned();
    let variables = [
        ("RESTIC_REPOSITORY", place("repository")),
        ("RESTIC_CACHE_DIR", place("cache")),
        ("RESTIC_PASSWORD", "a".into()),
    ];
    let restored = instance.path().join("restored");
    for (name, value) in &variables {
        instance.set(name, value.clone());
    }
    let restic = |words: &[&str]| run(Command::new("restic").args(words).envs(variables.clone()));
    restic(&["init"])?;
    // Goes on writing, beside what is backed up.
    let load = Load::start(volume.path())?;
    let (path, turn) = (volume.path().to_string_lossy().into_owned(), creation_turn());
    let made = instance.vss(["run", "--volume", &path, "--", "restic", "backup", &path])?;
    drop(turn);
    println!("$ vss run --volume {path} -- restic backup {path}\n{}{}", made.stderr, made.stdout);
    ensure!(made.is_success(), "{made:?}");
    load.stop()?;
    restic(&["check", "--read-data"])?;
    restic(&["restore", "latest", "--target", &restored.to_string_lossy()])?;
    let inside = restored.join(files.strip_prefix("/")?);
    run(Command::new("diff").arg("-r").args([&files, &inside]))?;
    // What stays is said, and can be removed.
    ensure!(made.stderr.contains("vss storage remove"), "it does not say what stays: {}", made.stderr);
    ensure!(instance.vss(["storage", "remove", &path])?.is_success());
    ensure!(instance.tracers().is_empty(), "{:?}", instance.tracers());
    Ok(())
}

#[test]
fn without_bpf_it_is_refused_and_can_be_compared() -> anyhow::Result<()> {
    let test = "without_bpf_it_is_refused_and_can_be_compared";
    if tracing::skips(test, &[Kind::Ext4, Kind::Xfs]) || tracing::lacks(test, "python3") {
        return Ok(());
    }
    for storage in [Storage::Other(Kind::Xfs), Storage::Other(Kind::Ext4)] {
        let mut scene = Scene::new(Volume::whole(Kind::Ext4, 64)?, storage)?;
        fill(scene.volume().path())?;
        let load = Load::start(scene.volume().path())?;
        scene.instance.set("VSS_FAULT", "pre_final:stop-service");
        scene.instance.start_by(&["python3", "-c", WITHOUT_BPF])?;
        let turn = creation_turn();
        let refused = scene.instance.vss(scene.create())?;
        drop(turn);
        println!("{}", refused.stderr);
        let words = ["cannot be traced", "bpf(2)", "seccomp", "Operation not permitted", "--full-compare"];
        let is_clear = words.iter().all(|word| refused.stderr.contains(word));
        ensure!(refused.code == Some(1) && is_clear, "{refused:?}");
        ensure!(scene.stored().is_none(), "{:?}", scene.stored());
        scene.wishes = vec!["--full-compare"];
        for _ in 0..2 {
            let judged = scene.judged()?;
            println!("{} chunks written, held for {} ms", judged.written, judged.hold_ms);
            ensure!(judged.wrong.is_empty(), "{judged:?}");
        }
        load.stop()?;
        scene.end()?;
    }
    Ok(())
}
