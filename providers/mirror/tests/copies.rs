//! Copies of volumes: what is in them, what the second one reads, what is known to have changed, and where images lie.

mod common;

use common::{FileSystem, Instance, Seen, Writer, assert_same, fill, needs, stored, touch};
use std::{
    fs,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};
use vss_lab::providers::{
    after_power_cut, assert_clean, begin_with, create, create_with, cut, finish, held, request, shown,
};
use vss_model::{CreationOptions, VssCode};
use vss_provider::{Deletion, PrepareRequest, Provider, StoredCopy, blocks::Changes, progress::Work};

/// Every block in use that differs between two images must be among the changes.
#[track_caller]
fn assert_covers(provider: &dyn Provider, later: &StoredCopy, earlier: &StoredCopy) -> u64 {
    let blocks = provider.blocks().unwrap();
    let Changes::Known(changed) = blocks.changed(later, Some(earlier)).unwrap() else { panic!("not known") };
    let Changes::Known(used) = blocks.changed(later, None).unwrap() else { panic!("not known") };
    let (one, other) = (blocks.open(later).unwrap(), blocks.open(earlier).unwrap());
    let is_changed = |offset| changed.iter().any(|run| (run.offset..run.offset + run.length).contains(&offset));
    let (mut new, mut old) = ([0; 4096], [0; 4096]);
    let mut differing = 0;
    for run in used {
        for offset in (run.offset..run.offset + run.length).step_by(4096) {
            one.file.read_exact_at(&mut new, offset).unwrap();
            other.file.read_exact_at(&mut old, offset).unwrap();
            if new != old {
                differing += 1;
                assert!(is_changed(offset), "byte {offset} changed and nobody said so");
            }
        }
    }
    assert!(differing > 0);
    changed.iter().map(|run| run.length).sum()
}

#[test]
fn the_second_copy_reads_what_changed_and_knows_it() {
    needs!("the_second_copy_reads_what_changed_and_knows_it", "ext4", "xfs");
    for kind in ["ext4", "xfs"] {
        let (volume, storage) = (FileSystem::new(kind, 320, &[]), FileSystem::new("xfs", 900, &[]));
        let instance = Instance::with_storage(&storage);
        let volumes = [volume.volume()];
        fill(volume.path(), "file", 40);
        let before = fs::read(volume.path().join("file")).unwrap();
        let first = create(&instance.provider(), &volumes).remove(0);
        touch(volume.path(), "file", &[0, 7, 8, 5000], 0xaa);
        let after = fs::read(volume.path().join("file")).unwrap();
        // Another process has it now.
        let provider = instance.provider();
        let (set_id, mut copies) = begin_with(&provider, &volumes, &CreationOptions::default());
        let seen = Seen::default();
        provider.end_prepare(set_id, &seen).unwrap();
        let round = seen.all().first().copied().unwrap();
        assert_eq!(round.work, Work::Catching);
        assert!((16 << 10..10 << 20).contains(&round.bytes_total), "{round:?}");
        provider.pre_commit(set_id).unwrap();
        held(&volumes, || provider.commit(set_id)).unwrap();
        provider.post_commit(set_id).unwrap();
        provider.pre_final_commit(set_id).unwrap();
        // What is mended in the copy differs from the copy before.
        let mended = provider.mount(&copies[0], true).unwrap();
        shown(&mended, &storage.beside("mended"), |top| fs::write(top.join("mended"), vec![9; 300_000]).unwrap());
        drop(mended);
        provider.post_final_commit(set_id).unwrap();
        let second = copies.remove(0);
        assert_same(&provider, &first, &storage.beside("shown"), "file", &before);
        assert_same(&provider, &second, &storage.beside("shown"), "file", &after);
        for copy in [&first, &second] {
            assert_clean(kind, &storage.path().join(format!(".vss/{}.image", copy.shadow_id)));
        }
        let changed = assert_covers(&provider, &second, &first);
        assert!(changed < 20 << 20, "{changed} bytes");
        // Over a copy that is deleted.
        touch(volume.path(), "file", &[100], 0xbb);
        let third = create(&provider, &volumes).remove(0);
        assert_eq!(provider.delete(&second).unwrap(), Deletion::Deleted);
        assert_covers(&provider, &third, &first);
        assert_same(
            &provider,
            &third,
            &storage.beside("shown"),
            "file",
            &fs::read(volume.path().join("file")).unwrap(),
        );
        assert_eq!(
            provider.blocks().unwrap().changed(&third, Some(&second)).unwrap_err().code,
            VssCode::ObjectNotFound
        );
        provider.delete(&first).unwrap();
        provider.delete(&third).unwrap();
        assert_eq!(stored(storage.path()), Vec::<String>::new());
    }
}

#[test]
fn where_blocks_cannot_be_shared_a_volume_has_one_copy() {
    needs!("where_blocks_cannot_be_shared_a_volume_has_one_copy", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("ext4", 500, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    fill(volume.path(), "file", 20);
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    cut(&provider, set_id, &volumes);
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    let trees = provider.mount(&copies[0], true).unwrap();
    shown(&trees, &storage.beside("mended"), |top| {
        // Over the same blocks that the volume has.
        touch(top, "file", &[3, 4, 4000], 0xee);
        fs::write(top.join("mended"), vec![9; 3 << 20]).unwrap();
    });
    drop(trees);
    provider.post_final_commit(set_id).unwrap();
    let refused = provider.begin_prepare(&request(&volumes[0])).unwrap_err();
    assert_eq!(refused.code, VssCode::MaximumNumberOfSnapshotsReached);
    assert!(refused.message.contains(&copies[0].shadow_id.to_string()) && !refused.hint.is_empty(), "{refused}");
    let kept = provider.storage().unwrap();
    assert_eq!(kept.remove(&volumes[0].id).unwrap_err().code, VssCode::ProviderVeto);
    assert_eq!(kept.tend().unwrap(), []);
    assert_eq!(provider.delete(&copies[0]).unwrap(), Deletion::Deleted);
    assert_eq!(kept.list().unwrap()[0].full_compare, None);
    // What was mended in the mirror is no part of the next copy.
    touch(volume.path(), "file", &[9], 0x11);
    let next = create(&provider, &volumes).remove(0);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &next, &storage.beside("shown"), "file", &wanted);
    let trees = provider.mount(&next, false).unwrap();
    assert!(shown(&trees, &storage.beside("shown"), |top| !top.join("mended").exists()));
    drop(trees);
    assert_clean("ext4", &storage.path().join(format!(".vss/{}.image", next.shadow_id)));
    provider.delete(&next).unwrap();
}

#[test]
fn a_lent_mirror_whose_copy_fails_after_it_was_mended_lacks_nothing_later() {
    needs!("a_lent_mirror_whose_copy_fails_after_it_was_mended_lacks_nothing_later", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("ext4", 500, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    fill(volume.path(), "file", 20);
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    cut(&provider, set_id, &volumes);
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    let trees = provider.mount(&copies[0], true).unwrap();
    shown(&trees, &storage.beside("mended"), |top| touch(top, "file", &[3, 4, 4000], 0xee));
    drop(trees);
    // What was mended cannot be written down.
    let in_the_way = storage.path().join(format!(".vss/{}.changes.new", copies[0].shadow_id));
    fs::create_dir(&in_the_way).unwrap();
    let failed = provider.post_final_commit(set_id).unwrap_err();
    assert!(failed.message.contains(".changes cannot be written"), "{failed}");
    fs::remove_dir(in_the_way).unwrap();
    provider.abort(set_id).unwrap();
    let next = create(&provider, &volumes).remove(0);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &next, &storage.beside("shown"), "file", &wanted);
    provider.delete(&next).unwrap();
}

#[test]
fn without_a_tracer_everything_is_compared_in_the_hold() {
    needs!("without_a_tracer_everything_is_compared_in_the_hold", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 120, &[]), FileSystem::new("xfs", 600, &[]));
    let mut instance = Instance::with_storage(&storage);
    let references = storage.beside("references");
    instance.options.unused = Duration::from_secs(3600);
    let provider = instance.provider();
    fill(volume.path(), "file", 20);
    let volumes = [volume.volume()];
    let options = CreationOptions { full_compare: true, max_hold_ms: Some(8000), ..CreationOptions::default() };
    let first = create_with(&provider, &volumes, &options).remove(0);
    let pins = vss_trace::Pins::new(&instance.options.state_directory.to_string_lossy(), "x");
    assert!(!pins.directory().parent().unwrap().exists(), "something is traced");
    touch(volume.path(), "file", &[1, 2, 3000], 0x55);
    let (set_id, copies) = begin_with(&provider, &volumes, &options);
    let seen = Seen::default();
    provider.end_prepare(set_id, &seen).unwrap();
    assert!(seen.all().iter().all(|progress| progress.work == Work::Comparing), "{:?}", seen.all());
    provider.pre_commit(set_id).unwrap();
    // Written after everything was compared once.
    touch(volume.path(), "file", &[4, 5, 4000], 0x66);
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &copies[0], &references, "file", &wanted);
    assert!(matches!(provider.blocks().unwrap().changed(&copies[0], Some(&first)).unwrap(), Changes::Unknown(_)));
    // The next one that is traced compares too, and says why.
    let listed = provider.storage().unwrap().list().unwrap();
    assert!(listed[0].full_compare.as_ref().is_some_and(|why| why.contains("nothing was traced")), "{listed:?}");
    let options = CreationOptions { max_hold_ms: Some(1), ..options };
    let (set_id, _) = begin_with(&provider, &volumes, &options);
    let refused = provider.end_prepare(set_id, &Seen::default()).unwrap_err();
    assert!(refused.message.contains("Comparing all") && refused.hint.contains("--max-hold"), "{refused}");
    provider.abort(set_id).unwrap();
}

#[test]
fn an_abort_ends_the_copying_and_the_next_copy_is_whole() {
    needs!("an_abort_ends_the_copying_and_the_next_copy_is_whole", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    fill(volume.path(), "file", 60);
    let volumes = [volume.volume()];
    let slow = CreationOptions { max_rate: Some(4 << 20), ..CreationOptions::default() };
    // Of the first copy nothing stays; of a later one what was taken is marked again.
    for is_first in [true, false] {
        let (set_id, _) = begin_with(&provider, &volumes, &slow);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| provider.end_prepare(set_id, &Seen::default()));
            std::thread::sleep(Duration::from_millis(1500));
            provider.abort(set_id).unwrap();
            let refused = running.join().unwrap().unwrap_err();
            assert!(refused.message.contains("aborted"), "{refused}");
        });
        // The whole of it would take 15 s.
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        assert_eq!(stored(storage.path()), Vec::<String>::new());
        assert_eq!(provider.storage().unwrap().list().unwrap().is_empty(), is_first);
        let copy = create(&provider, &volumes).remove(0);
        assert_same(&provider, &copy, &storage.beside("shown"), "file", &fs::read(volume.path().join("file")).unwrap());
        provider.delete(&copy).unwrap();
        fill(volume.path(), "file", 61);
    }
    // After the cut, too.
    let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
    cut(&provider, set_id, &volumes);
    provider.abort(set_id).unwrap();
    touch(volume.path(), "file", &[0], 1);
    let copy = create(&provider, &volumes).remove(0);
    assert_same(&provider, &copy, &storage.beside("shown"), "file", &fs::read(volume.path().join("file")).unwrap());
}

#[test]
fn a_load_that_is_too_much_is_refused_before_anything_is_held() {
    needs!("a_load_that_is_too_much_is_refused_before_anything_is_held", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let _load = Writer::fio(
        volume.path(),
        &[
            "--filename=load",
            "--rw=randwrite",
            "--bs=4k",
            "--size=100m",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=32",
        ],
    );
    std::thread::sleep(Duration::from_secs(4));
    let options = CreationOptions { max_hold_ms: Some(1), ..CreationOptions::default() };
    let (set_id, _) = begin_with(&provider, &[volume.volume()], &options);
    let refused = provider.end_prepare(set_id, &Seen::default()).unwrap_err();
    assert_eq!(refused.code, VssCode::ProviderVeto);
    assert!(refused.message.contains("MiB/s") && refused.message.contains("1 ms is the most"), "{refused}");
    assert!(refused.hint.contains("--max-hold"), "{refused}");
    provider.abort(set_id).unwrap();
    assert_eq!(stored(storage.path()), Vec::<String>::new());
}

#[test]
fn a_place_without_room_is_refused_with_what_is_missing() {
    needs!("a_place_without_room_is_refused_with_what_is_missing", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("ext4", 60, &[]));
    let mut instance = Instance::with_storage(&storage);
    fill(volume.path(), "file", 100);
    let wished = request(&volume.volume());
    let refused = instance.provider().begin_prepare(&wished).unwrap_err();
    assert_eq!(refused.code, VssCode::InsufficientStorage);
    assert!(refused.message.contains("lacks") && refused.message.contains("MiB"), "{refused}");
    // Without a wish both places are told.
    instance.options.storage = None;
    instance.options.min_free_bytes = Some(1 << 50);
    let refused = instance.provider().begin_prepare(&wished).unwrap_err();
    assert_eq!(refused.code, VssCode::InsufficientStorage);
    assert_eq!(refused.message.matches("lacks").count(), 2, "{refused}");
    // The requester's wish goes before all.
    let options = CreationOptions { storage: Some("/proc".into()), ..CreationOptions::default() };
    let refused = instance.provider().begin_prepare(&PrepareRequest { options, ..wished }).unwrap_err();
    assert!(refused.code == VssCode::ProviderVeto && refused.message.contains("proc"), "{refused}");
}

#[test]
fn several_volumes_are_read_in_one_hold() {
    needs!("several_volumes_are_read_in_one_hold", "ext4", "xfs");
    let volumes = [FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 320, &[])];
    let storage = FileSystem::new("xfs", 900, &[]);
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    volumes.iter().for_each(|volume| fill(volume.path(), "file", 10));
    let copies = create(&provider, &volumes.each_ref().map(FileSystem::volume));
    for (volume, copy) in volumes.iter().zip(&copies) {
        let wanted = fs::read(volume.path().join("file")).unwrap();
        assert_same(&provider, copy, &storage.beside("shown"), "file", &wanted);
    }
}

#[test]
fn a_power_cut_brings_no_deleted_copy_back() {
    needs!("a_power_cut_brings_no_deleted_copy_back", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 64, &[]), FileSystem::new("xfs", 400, &[]));
    let mut instance = Instance::new();
    // Not at the top of its file system.
    let place = storage.path().join("deep/down");
    fs::create_dir_all(&place).unwrap();
    instance.options.storage = Some(place);
    let provider = instance.provider();
    let copies: Vec<StoredCopy> = (0..2).map(|_| create(&provider, &[volume.volume()]).remove(0)).collect();
    let are_there = || {
        after_power_cut("xfs", &storage.image(), &storage.beside("cut"), |top| {
            let is_there = |copy: &StoredCopy| top.join(format!("deep/down/.vss/{}.image", copy.shadow_id)).exists();
            copies.iter().map(is_there).collect::<Vec<_>>()
        })
    };
    assert_eq!(are_there(), [true, true]);
    assert_eq!(provider.delete(&copies[1]).unwrap(), Deletion::Deleted);
    assert_eq!(are_there(), [true, false]);
}
