//! How long each phase takes, and round one against dd. Ask for it: `cargo test -p vss-provider-mirror --release --test
//! measure -- --ignored --nocapture`.

mod common;

use common::{FileSystem, Instance, needs};
use std::{
    fs,
    time::{Duration, Instant},
};
use vss_lab::providers::{begin_with, finish, held, run};
use vss_model::CreationOptions;
use vss_provider::{Provider, progress::Unwatched};

const ROUNDS: usize = 5;

#[test]
#[ignore = "a measurement, not a check"]
fn the_phases_of_a_first_and_a_second_copy() {
    needs!("the_phases_of_a_first_and_a_second_copy", "ext4", "xfs");
    println!("volume  place  copy  used MB  prepare ms  pre-commit ms  freeze..thaw ms  commit ms  after ms  dd ms");
    for kind in ["ext4", "xfs"] {
        for place in ["xfs", "ext4"] {
            let volume = FileSystem::new(kind, 1200, &[]);
            let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for file in 0..70 {
                fs::write(volume.path().join(format!("{file}")), data.repeat(10)).unwrap();
            }
            let volumes = [volume.volume()];
            for _ in 0..ROUNDS {
                let storage = FileSystem::new(place, 3000, &[]);
                let instance = Instance::with_storage(&storage);
                let provider = instance.provider();
                for copy in 1..=2 {
                    let began = Instant::now();
                    run("dd", |command| {
                        command.arg(format!("if={}", volume.device().display()));
                        command.args(["of=/dev/null", "bs=1M", "iflag=direct", "count=750"]);
                    });
                    let dd = began.elapsed();
                    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
                    let prepare = timed(|| provider.end_prepare(set_id, &Unwatched).unwrap());
                    let pre_commit = timed(|| provider.pre_commit(set_id).unwrap());
                    let mut commit = Duration::ZERO;
                    let hold = timed(|| held(&volumes, || commit = timed(|| provider.commit(set_id).unwrap())));
                    let after = timed(|| drop(finish(&provider, set_id)));
                    provider.delete(&copies[0]).unwrap();
                    let used = vss_linux::statfs::of_path(volume.path()).map(|space| (space.total - space.free) >> 20);
                    println!(
                        "{kind:6}  {place:5}  {copy:4}  {:7}  {:10.1}  {:13.1}  {:15.1}  {:9.1}  {:8.1}  {:5.0}",
                        used.unwrap(),
                        ms(prepare),
                        ms(pre_commit),
                        ms(hold),
                        ms(commit),
                        ms(after),
                        ms(dd)
                    );
                }
            }
        }
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
