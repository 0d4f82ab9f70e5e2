//! How long the phases take beside the bare ioctl. Ask for it: `cargo test -p vss-provider-btrfs --release --test measure
//! -- --ignored --nocapture`.

mod common;

use common::{Btrfs, begin, provider, volume};
use rustix::fs::OFlags;
use std::{
    ffi::OsStr,
    fs::File,
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use vss_lab::needs;
use vss_linux::{btrfs, mount};
use vss_model::Context;
use vss_provider::Provider;

const ROUNDS: usize = 200;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("{what:34} p50 {:7.2} ms   p99 {:7.2} ms", at(50), at(99));
}

fn time<T>(times: &mut Vec<Duration>, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = act();
    times.push(started.elapsed());
    result
}

#[test]
#[ignore = "a measurement, not a check"]
fn phases_beside_the_bare_ioctl() {
    needs!("phases_beside_the_bare_ioctl", "btrfs");
    for is_loaded in [false, true] {
        let mut fs = Btrfs::new(1024);
        fs.subvolume("vol");
        let point = fs.mount("vol", "subvol=vol");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            if is_loaded {
                scope.spawn(|| {
                    let mut file = File::create(point.join("log")).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        file.write_all(&[7; 4096]).unwrap();
                        file.sync_data().unwrap();
                    }
                });
            }
            measure(&fs, &point, if is_loaded { "with a fsync loop" } else { "idle" });
            stop.store(true, Ordering::Relaxed);
        });
    }
}

fn measure(fs: &Btrfs, point: &Path, load: &str) {
    println!("--- {load}, {ROUNDS} rounds");
    let volume = volume(point);
    let provider = provider();
    let (source, top) = (File::open(point).unwrap(), File::open(fs.top()).unwrap());
    let [mut bare, mut commit, mut prepare, mut mounted, mut finished, mut deleted] = [const { Vec::new() }; 6];
    std::fs::create_dir(fs.beside("shown")).unwrap();
    for _ in 0..ROUNDS {
        // In turns, so that both see the same load.
        time(&mut bare, || btrfs::snapshot(&source, &top, OsStr::new("bare")).unwrap());
        btrfs::destroy(&top, OsStr::new("bare")).unwrap();
        btrfs::commit_transaction(&top).unwrap();

        let (set_id, copies) = time(&mut prepare, || {
            let begun = begin(&provider, std::slice::from_ref(&volume), Context::AppRollback);
            provider.end_prepare(begun.0, &vss_provider::progress::Unwatched).unwrap();
            provider.pre_commit(begun.0).unwrap();
            begun
        });
        time(&mut commit, || provider.commit(set_id).unwrap());
        time(&mut finished, || {
            provider.post_commit(set_id).unwrap();
            provider.pre_final_commit(set_id).unwrap();
            provider.post_final_commit(set_id).unwrap();
        });
        time(&mut mounted, || {
            let trees = provider.mount(&copies[0], false).unwrap();
            let place =
                mount::open_beneath(File::open(fs.beside("")).unwrap(), Path::new("shown"), OFlags::PATH).unwrap();
            mount::attach(&trees[0].mount, &place).unwrap();
        });
        mount::unmount(&fs.beside("shown")).unwrap();
        time(&mut deleted, || provider.delete(&copies[0]).unwrap());
    }
    report("bare BTRFS_IOC_SNAP_CREATE_V2", bare);
    report("commit", commit);
    report("begin_prepare to pre_commit", prepare);
    report("post_commit to post_final_commit", finished);
    report("mount and attach", mounted);
    report("delete", deleted);
}
