//! What is foretold of a copy, held against what is made then.

mod common;

use common::{FileSystem, Instance, Seen, needs};
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vss_lab::providers::{begin_with, create, create_with, held, request};
use vss_model::{CreationOptions, Volume, VssCode, Work};
use vss_provider::{Forecast, Provider};
use vss_provider_mirror::MirrorProvider;

const MIB: u64 = 1 << 20;

/// Forecast and fact may differ by this factor: what is foretold is measured for a second, on a machine that others use too.
const FACTOR: u64 = 5;

#[track_caller]
fn assert_near(what: &str, foretold: u64, fact: u64) {
    assert!(
        foretold <= fact * FACTOR && fact <= foretold * FACTOR,
        "{what}: {foretold} was foretold, {fact} came, and {FACTOR} is the factor that they may differ by"
    );
}

/// Writes to one block after another, past the page cache, so many MiB a second, until it is dropped.
struct Pouring {
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pouring {
    fn into(directory: &Path, mib_a_second: u32, file_mib: u64) -> Self {
        let path = directory.join("poured");
        fs::write(&path, vec![1; (file_mib * MIB) as usize]).unwrap();
        let file = File::options().write(true).custom_flags(libc_direct()).open(&path).unwrap();
        rustix::fs::syncfs(&file).unwrap();
        let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, sum) = (Arc::clone(&is_over), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let page = vss_linux::pages::Pages::new(MIB as usize, false).unwrap();
            let began = Instant::now();
            for number in 0_u32.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                file.write_all_at(&page, u64::from(number) % file_mib * MIB).unwrap();
                sum.fetch_add(MIB, Ordering::Relaxed);
                let due = Duration::from_secs(1) * (number + 1) / mib_a_second;
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
        });
        Self { is_over, written, thread: Some(thread) }
    }

    /// Does this, and says how many bytes a second were written meanwhile: no more than was asked for, and less on a busy disk.
    fn during<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let (before, began) = (self.written.load(Ordering::Relaxed), Instant::now());
        let done = work();
        let written = self.written.load(Ordering::Relaxed) - before;
        (done, (written as f64 / began.elapsed().as_secs_f64()) as u64)
    }
}

impl Drop for Pouring {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// O_DIRECT as the standard library takes it.
fn libc_direct() -> i32 {
    rustix::fs::OFlags::DIRECT.bits().cast_signed()
}

fn foretold(provider: &MirrorProvider, volume: &Volume, options: &CreationOptions) -> Forecast {
    provider.forecast(volume, options).unwrap()
}

/// What one EndPrepare did: bytes of all rounds, rounds, and how long it took.
fn prepared(provider: &MirrorProvider, volume: &Volume, options: &CreationOptions) -> (u64, u32, Duration) {
    let (set_id, _) = begin_with(provider, std::slice::from_ref(volume), options);
    let seen = Seen::default();
    let began = Instant::now();
    provider.end_prepare(set_id, &seen).unwrap();
    let took = began.elapsed();
    let all = seen.all();
    let rounds = all.iter().map(|progress| progress.round).max().unwrap_or(1);
    let bytes = |round| all.iter().filter(|told| told.round == round).map(|told| told.bytes_total).max().unwrap_or(0);
    let read = (1..=rounds).map(bytes).sum();
    provider.abort(set_id).unwrap();
    (read, rounds, took)
}

#[test]
fn a_first_copy_comes_as_foretold() {
    needs!("a_first_copy_comes_as_foretold", "ext4", "xfs");
    // ext4 leaves its journal out of its size, and the journal is copied too.
    let (volume, storage) = (FileSystem::new("ext4", 200, &["-J", "size=64"]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    fs::write(volume.path().join("file"), vec![1; 60 << 20]).unwrap();
    rustix::fs::syncfs(File::open(volume.path()).unwrap()).unwrap();
    // Nothing was ever read: then nobody knows how fast, and that is said.
    let plain = foretold(&provider, &volume.volume(), &CreationOptions::default());
    let copying = plain.copying.unwrap();
    assert_eq!((copying.work, copying.copy_rate, copying.read_ms, copying.rounds), (Work::Copying, None, None, None));
    // The file system itself may still be writing.
    assert!(plain.hold_ms.is_none() && plain.refusal.is_none() && copying.dirty_rate.is_some());
    assert_eq!(copying.storage.as_deref(), Some(storage.path()));
    assert!(copying.places.len() == 1 && copying.places[0].bytes_available > copying.places[0].bytes_needed);
    // With a wish it is known.
    let slow = CreationOptions { max_rate: Some(20 * MIB), ..CreationOptions::default() };
    let copying = foretold(&provider, &volume.volume(), &slow).copying.unwrap();
    let (read, _, took) = prepared(&provider, &volume.volume(), &slow);
    assert_near("bytes", copying.bytes_to_read, read);
    assert!(read > 124 * MIB && copying.bytes_to_read > 124 * MIB, "{read}: {copying:?}");
    assert!(copying.places[0].bytes_needed >= read, "{read}: {copying:?}");
    assert_near("milliseconds", copying.read_ms.unwrap(), took.as_millis() as u64);
}

#[test]
fn what_is_written_meanwhile_is_foretold() {
    needs!("what_is_written_meanwhile_is_foretold", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 300, &[]), FileSystem::new("xfs", 800, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let pouring = Pouring::into(volume.path(), 10, 150);
    create(&provider, &[volume.volume()]);
    let slow = CreationOptions { max_rate: Some(40 * MIB), max_hold_ms: Some(8000), ..CreationOptions::default() };
    let (forecast, poured) = pouring.during(|| foretold(&provider, &volume.volume(), &slow));
    let copying = forecast.copying.unwrap();
    assert_eq!((copying.work, &copying.full_compare), (Work::Catching, &None));
    assert_eq!((&forecast.refusal, &forecast.doubt), (&None, &None));
    assert_near("bytes a second", copying.dirty_rate.unwrap(), poured);
    let (read, rounds, _) = prepared(&provider, &volume.volume(), &slow);
    assert_near("bytes", copying.bytes_to_read, read);
    assert_near("rounds", u64::from(copying.rounds.unwrap()), u64::from(rounds));
    assert!(forecast.hold_ms.is_some_and(|hold| hold <= 8000), "{:?}", forecast.hold_ms);
    // No more is read than is written: that does not become less, unless they stop.
    let hopeless = CreationOptions { max_rate: Some(5 * MIB), max_hold_ms: Some(1), ..CreationOptions::default() };
    let forecast = foretold(&provider, &volume.volume(), &hopeless);
    drop(pouring);
    let doubt = forecast.doubt.unwrap();
    assert_eq!((forecast.refusal, doubt.code), (None, VssCode::ProviderVeto), "{doubt}");
    assert!(doubt.message.contains("by the rates of now: After") && doubt.hint.contains("--max-hold"), "{doubt}");
}

#[test]
fn a_comparison_that_takes_too_long_is_refused_as_foretold() {
    needs!("a_comparison_that_takes_too_long_is_refused_as_foretold", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    fs::write(volume.path().join("file"), vec![1; 60 << 20]).unwrap();
    let compare = |max_hold_ms| CreationOptions {
        full_compare: true,
        max_hold_ms: Some(max_hold_ms),
        ..CreationOptions::default()
    };
    create_with(&provider, &[volume.volume()], &compare(8000));
    let forecast = foretold(&provider, &volume.volume(), &compare(1));
    let copying = forecast.copying.unwrap();
    assert_eq!((copying.work, copying.rounds, copying.dirty_rate), (Work::Comparing, Some(2), None));
    assert!(copying.full_compare.is_some() && copying.bytes_to_read > 120 * MIB, "{copying:?}");
    let (set_id, _) = begin_with(&provider, &[volume.volume()], &compare(1));
    let refused = provider.end_prepare(set_id, &Seen::default()).unwrap_err();
    provider.abort(set_id).unwrap();
    let refusal = forecast.refusal.unwrap();
    assert_eq!((refused.code, &refused.hint), (refusal.code, &refusal.hint));
    assert!(refused.message.starts_with("Comparing all") && refusal.message.contains(": Comparing all"), "{refusal}");
    // And with a longer hold both let it pass.
    assert_eq!(foretold(&provider, &volume.volume(), &compare(8000)).refusal, None);
    let (set_id, _) = begin_with(&provider, &[volume.volume()], &compare(8000));
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    provider.pre_commit(set_id).unwrap();
    held(&[volume.volume()], || provider.commit(set_id)).unwrap();
    provider.abort(set_id).unwrap();
}

#[test]
fn a_place_without_room_is_told_with_what_it_lacks_and_nothing_is_left() {
    needs!("a_place_without_room_is_told_with_what_it_lacks_and_nothing_is_left", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 600, &[]), FileSystem::new("xfs", 320, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    fs::write(volume.path().join("file"), vec![1; 400 << 20]).unwrap();
    rustix::fs::syncfs(File::open(volume.path()).unwrap()).unwrap();
    let forecast = foretold(&provider, &volume.volume(), &CreationOptions::default());
    let refused = provider.begin_prepare(&request(&volume.volume())).unwrap_err();
    assert_eq!((forecast.refusal.as_ref(), refused.code), (Some(&refused), VssCode::InsufficientStorage));
    let copying = forecast.copying.unwrap();
    assert_eq!(copying.storage, None);
    assert!(copying.places[0].bytes_needed > copying.places[0].bytes_available, "{copying:?}");
    // Another place that is wished for has room.
    let wish = CreationOptions { storage: Some(volume.beside("images")), ..CreationOptions::default() };
    let copying = foretold(&provider, &volume.volume(), &wish).copying.unwrap();
    assert_eq!(copying.storage, wish.storage);
    let pins = vss_trace::Pins::new(&instance.options.state_directory.to_string_lossy(), "x");
    assert!(!pins.directory().parent().unwrap().exists(), "a tracer is left");
}
