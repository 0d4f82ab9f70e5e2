//! Trouble: no space, two sets at once, a file system that somebody froze.

mod common;

use common::{Btrfs, begin, create, cut, end_prepare, provider, volume};
use std::{
    fs::{self, File},
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use vss_lab::needs;
use vss_linux::freeze;
use vss_model::{Context, SetId, ShadowId, VssCode};
use vss_provider::{PrepareRequest, Provider};
use vss_provider_btrfs::{BtrfsOptions, BtrfsProvider};

#[test]
fn a_full_file_system_is_refused_with_numbers() {
    needs!("a_full_file_system_is_refused_with_numbers", "btrfs");
    let fs = Btrfs::new(128);
    let provider = provider();
    let (copies, _) = create(&provider, &[volume(&fs.top())]);
    provider.delete(&copies[0]).unwrap();

    let mut file = File::create(fs.top().join("filler")).unwrap();
    let block = vec![0x5a; 1 << 20];
    while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
    let request = PrepareRequest {
        set_id: SetId::random(),
        shadow_id: ShadowId::random(),
        volume: volume(&fs.top()),
        context: Context::Backup,
        options: vss_model::CreationOptions::default(),
    };
    let error = provider.begin_prepare(&request).unwrap_err();
    assert_eq!(error.code, VssCode::InsufficientStorage);
    assert!(error.message.contains("16 MiB"), "{error}");
    assert_eq!(provider.forecast(&request.volume, &request.options).unwrap_err(), error, "the forecast says the same");

    // Without the guard: whatever the kernel says, nothing is left.
    let provider = BtrfsProvider::new(BtrfsOptions { min_free_bytes: Some(0) });
    for _ in 0..8 {
        let (set_id, _) = begin(&provider, &[volume(&fs.top())], Context::Backup);
        let phases = [end_prepare, Provider::pre_commit, Provider::commit];
        if let Err(error) = phases.iter().try_for_each(|phase| phase(&provider, set_id)) {
            assert_eq!(error.code, VssCode::InsufficientStorage, "{error}");
        }
        provider.abort(set_id).unwrap();
        fs.assert_nothing_left();
    }
}

#[test]
fn two_sets_share_the_directory_without_losing_it() {
    needs!("two_sets_share_the_directory_without_losing_it", "btrfs");
    let fs = Btrfs::new(160);
    let volume = volume(&fs.top());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Each with a provider of its own, as two instances of the service have.
                let provider = provider();
                for _ in 0..20 {
                    let (copies, _) = create(&provider, std::slice::from_ref(&volume));
                    provider.delete(&copies[0]).unwrap();
                }
            });
        }
    });
    fs.assert_nothing_left();
}

#[test]
fn an_abort_while_the_cut_hangs_returns_and_is_done_later() {
    needs!("an_abort_while_the_cut_hangs_returns_and_is_done_later", "btrfs");
    let fs = Btrfs::new(160);
    let root = File::open(fs.top()).unwrap();
    let (over, is_over) = mpsc::channel::<()>();
    let thaw_late = {
        let root = root.try_clone().unwrap();
        move || {
            // Also when the test has failed.
            let _ = is_over.recv_timeout(Duration::from_secs(60));
            let _ = freeze::thaw(&root);
        }
    };
    let provider = provider();
    let (set_id, _) = begin(&provider, &[volume(&fs.top())], Context::Backup);
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    thread::scope(|scope| {
        scope.spawn(thaw_late);
        freeze::freeze(&root).unwrap();
        let (begins, has_begun) = mpsc::channel();
        let cut = scope.spawn({
            let provider = &provider;
            move || {
                let _ = begins.send(());
                provider.commit(set_id)
            }
        });
        has_begun.recv().unwrap();
        thread::sleep(Duration::from_millis(500));
        let error = provider.abort(set_id).unwrap_err();
        assert_eq!(error.code, VssCode::ProviderVeto, "{error}");
        assert!(!cut.is_finished(), "the cut did not hang");
        // The next set need not wait for it.
        let other = Btrfs::new(160);
        let (copies, _) = create(&provider, &[volume(&other.top())]);
        provider.delete(&copies[0]).unwrap();
        assert!(!cut.is_finished(), "it waited for the cut");
        drop(over);
        assert!(cut.join().unwrap().is_err());
    });
    fs.assert_nothing_left();
}

#[test]
fn sixty_four_file_systems_are_cut_in_less_than_a_second() {
    needs!("sixty_four_file_systems_are_cut_in_less_than_a_second", "btrfs");
    let file_systems: Vec<Btrfs> = (0..64).map(|_| Btrfs::new(128)).collect();
    let volumes: Vec<_> = file_systems.iter().map(|fs| volume(&fs.top())).collect();
    for fs in &file_systems {
        fs::write(fs.top().join("file"), "x").unwrap();
    }
    let provider = provider();
    let (set_id, _) = begin(&provider, &volumes, Context::Backup);
    provider.end_prepare(set_id, &vss_provider::progress::Unwatched).unwrap();
    provider.pre_commit(set_id).unwrap();
    let started = Instant::now();
    provider.commit(set_id).unwrap();
    let took = started.elapsed();
    let committed = provider.post_commit(set_id).unwrap();
    println!("64 file systems cut in {took:?}");
    assert_eq!(committed.len(), 64);
    provider.abort(set_id).unwrap();
    file_systems.iter().for_each(Btrfs::assert_nothing_left);
    assert!(took < Duration::from_secs(10), "64 file systems took {took:?}");
}

#[test]
fn the_same_set_can_be_cut_twice_only_after_it_began_again() {
    needs!("the_same_set_can_be_cut_twice_only_after_it_began_again", "btrfs");
    let fs = Btrfs::new(160);
    let provider = provider();
    let (set_id, copies) = begin(&provider, &[volume(&fs.top())], Context::Backup);
    cut(&provider, set_id);
    let request = PrepareRequest {
        set_id,
        shadow_id: copies[0].shadow_id,
        volume: copies[0].volume.clone(),
        context: Context::Backup,
        options: vss_model::CreationOptions::default(),
    };
    provider.begin_prepare(&request).unwrap();
    fs.assert_nothing_left();
    cut(&provider, set_id);
    provider.abort(set_id).unwrap();
    fs.assert_nothing_left();
}
