//! How long the cut takes, against the pieces that the image lies in. Ask for it: `cargo test -p vss-provider-reflink
//! --release --test measure -- --ignored --nocapture`.

mod common;

use common::{FileSystem, provider};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};
use vss_lab::{
    needs,
    providers::{begin, held},
};
use vss_linux::fiemap;
use vss_provider::Provider;
use vss_provider_reflink::forecast;

const ROUNDS: usize = 5;

#[test]
#[ignore = "a measurement, not a check"]
fn the_cut_against_the_pieces_of_the_image() {
    needs!("the_cut_against_the_pieces_of_the_image", "xfs", "btrfs", "ext4");
    println!("outer   pieces   hold p50 ms  hold most ms  commit p50 ms  commit most ms  foreseen ms");
    for kind in ["xfs", "btrfs"] {
        for wanted in [0, 1_000, 10_000, 40_000] {
            measure(kind, wanted);
        }
    }
}

/// Makes the image lie in many pieces: every other block of one file of the volume is written in an order that no allocator
/// can put together, each beside a block of another file.
fn fragment(outer: &FileSystem, inner: &FileSystem, pieces: u64) {
    let (image, other) = (File::options().write(true).open(&inner.image).unwrap(), outer.path().join("other"));
    let other = File::create(other).unwrap();
    let first = 64 << 20;
    for piece in 0..pieces {
        image.write_all_at(&[1; 4096], first + piece * 8192).unwrap();
        other.write_all_at(&[2; 4096], piece * 8192).unwrap();
        if piece % 256 == 0 {
            image.sync_data().unwrap();
            other.sync_data().unwrap();
        }
    }
    image.sync_data().unwrap();
    drop(other);
    fs::remove_file(outer.path().join("other")).unwrap();
}

fn measure(kind: &'static str, wanted: u64) {
    let outer = FileSystem::outer(kind, 3000);
    // What is beyond the first 64 MiB is not used by the empty volume.
    let inner = outer.inner("ext4", "one", 64);
    let grown = File::options().write(true).open(&inner.image).unwrap();
    grown.set_len((64 << 20) + wanted * 8192 + 8192).unwrap();
    fragment(&outer, &inner, wanted);
    let pieces = fiemap::count(&grown).unwrap();
    let provider = provider();
    let volumes = [inner.volume()];
    let [mut holds, mut commits] = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        fs::write(inner.path().join("file"), vec![round as u8; 1 << 20]).unwrap();
        let (set_id, _) = begin(&provider, &volumes);
        provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
        provider.pre_commit(set_id).unwrap();
        let held_from = Instant::now();
        let commit = held(&volumes, || {
            let started = Instant::now();
            provider.commit(set_id).unwrap();
            started.elapsed()
        });
        holds.push(held_from.elapsed());
        commits.push(commit);
        provider.abort(set_id).unwrap();
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let of = |times: &mut Vec<Duration>| {
        times.sort();
        (ms(times[times.len() / 2]), ms(times[times.len() - 1]))
    };
    let ((hold, hold_most), (commit, commit_most)) = (of(&mut holds), of(&mut commits));
    let foreseen = ms(forecast(u64::from(pieces)));
    println!("{kind:6} {pieces:7}   {hold:11.1}  {hold_most:12.1}  {commit:13.1}  {commit_most:14.1}  {foreseen:11.1}");
}
