//! What stays for copies to come: whether it can be trusted, how it ends, and putting a volume back.

mod common;

use common::{FileSystem, Instance, Seen, needs, stored};
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use vss_lab::providers::{assert_clean, begin_with, create, cut, finish, held, shown};
use vss_linux::mount;
use vss_model::CreationOptions;
use vss_provider::{Deletion, Provider, blocks::Changes, progress::Work, storage::Storage};
use vss_provider_mirror::MirrorProvider;
use vss_trace::{Pins, Tracer};

fn write(volume: &FileSystem, name: &str, byte: u8, mib: usize) {
    fs::write(volume.path().join(name), vec![byte; mib << 20]).unwrap();
}

#[test]
fn what_was_written_untraced_is_found_by_comparing() {
    needs!("what_was_written_untraced_is_found_by_comparing", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 30);
    let provider = instance.provider();
    let first = create(&provider, &volumes).remove(0);
    assert!(Tracer::remove(&instance.pins(&volume)).unwrap());
    write(&volume, "file", 2, 30);
    let forecast = provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap();
    assert!(forecast.full_compare.is_some_and(|why| why.contains("tracer was removed")));
    let listed = provider.storage().unwrap().list().unwrap();
    assert!(listed[0].full_compare.is_some() && listed[0].shadows == 1, "{listed:?}");
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    let seen = Seen::default();
    provider.end_prepare(set_id, &seen).unwrap();
    assert_eq!(seen.all()[0].work, Work::Comparing);
    assert!(seen.all()[0].bytes_total > 30 << 20);
    provider.pre_commit(set_id).unwrap();
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    let trees = provider.mount(&copies[0], false).unwrap();
    let found = shown(&trees, &storage.beside("shown"), |top| fs::read(top.join("file")).unwrap());
    assert!(found == vec![2; 30 << 20]);
    drop(trees);
    let changed = provider.blocks().unwrap().changed(&copies[0], Some(&first)).unwrap();
    assert!(matches!(&changed, Changes::Unknown(why) if why.contains("tracer was removed")), "{changed:?}");
    // And then it is trusted again, and less is left to be read: what ext4 itself writes after its making.
    let forecast = provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap();
    assert!(forecast.full_compare.is_none() && forecast.bytes_to_read < 25 << 20, "{forecast:?}");
    let next = create(&provider, &volumes).remove(0);
    assert!(matches!(provider.blocks().unwrap().changed(&next, Some(&copies[0])).unwrap(), Changes::Known(_)));
}

#[test]
fn a_device_that_was_taken_away_is_compared() {
    needs!("a_device_that_was_taken_away_is_compared", "ext4", "xfs");
    let (mut volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    write(&volume, "file", 1, 5);
    provider.delete(&create(&provider, &[volume.volume()])[0]).unwrap();
    // Nobody who traces the device sees what is done to its image.
    volume.take_away(|image| {
        let mut data = fs::read(image).unwrap();
        let at = data.windows(4096).step_by(1024).position(|block| block == [1; 4096]).unwrap() * 1024;
        data[at..at + 4096].fill(2);
        fs::write(image, data).unwrap();
    });
    let volumes = [volume.volume()];
    let why = provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap().full_compare;
    assert!(why.as_ref().is_some_and(|why| why.contains("taken away")), "{why:?}");
    let copy = create(&provider, &volumes).remove(0);
    let trees = provider.mount(&copy, false).unwrap();
    let found = shown(&trees, &storage.beside("shown"), |top| fs::read(top.join("file")).unwrap());
    assert!(found == fs::read(volume.path().join("file")).unwrap() && found.contains(&2));
    drop(trees);
}

#[test]
fn a_mirror_that_was_put_back_or_broken_off_is_not_trusted() {
    needs!("a_mirror_that_was_put_back_or_broken_off_is_not_trusted", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    let provider = instance.provider();
    let copies = create(&provider, &volumes);
    let key = volumes[0].id.as_str().replace(':', "-");
    let state = storage.path().join(format!(".vss/{key}.state"));
    let older = fs::read(&state).unwrap();
    let why = || provider.storage().unwrap().list().unwrap().remove(0).full_compare;
    assert_eq!(why(), None);
    provider.delete(&copies[0]).unwrap();
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    let newer = fs::read(&state).unwrap();
    fs::write(&state, older).unwrap();
    assert!(why().unwrap().contains("put back"));
    fs::write(&state, newer).unwrap();
    assert_eq!(why(), None);
    // As a file system leaves it on which everything lies, and which was put back as a whole.
    let files = [state, instance.options.state_directory.join(format!("mirror/{key}.json"))];
    let older = files.each_ref().map(|file| fs::read(file).unwrap());
    let image = File::open(storage.path().join(format!(".vss/{key}.mirror"))).unwrap();
    let written = image.metadata().unwrap().modified().unwrap();
    write(&volume, "file", 2, 5);
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    let newer = files.each_ref().map(|file| fs::read(file).unwrap());
    let written_later = image.metadata().unwrap().modified().unwrap();
    let put_back = |contents: &[Vec<u8>; 2], modified| {
        files.iter().zip(contents).for_each(|(file, content)| fs::write(file, content).unwrap());
        image.set_modified(modified).unwrap();
    };
    put_back(&older, written);
    assert!(why().is_some_and(|why| why.contains("put back")), "{:?}", why());
    put_back(&newer, written_later);
    assert_eq!(why(), None);
    // As a process that was killed in the middle of a set leaves it.
    let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    assert!(why().unwrap().contains("broken off"));
    provider.abort(set_id).unwrap();
    assert_eq!(why(), None);
}

/// Bytes in use on a file system, when all is written back.
fn in_use(storage: &FileSystem) -> u64 {
    rustix::fs::syncfs(File::open(storage.path()).unwrap()).unwrap();
    let space = rustix::fs::statvfs(storage.path()).unwrap();
    (space.f_blocks - space.f_bfree) * space.f_frsize
}

#[test]
fn a_comparison_that_was_broken_off_is_gone_on_with() {
    needs!("a_comparison_that_was_broken_off_is_gone_on_with", "ext4", "xfs");
    let volumes = [FileSystem::new("ext4", 200, &[]), FileSystem::new("ext4", 100, &[])];
    let storage = FileSystem::new("xfs", 900, &[]);
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let both = volumes.each_ref().map(FileSystem::volume);
    write(&volumes[0], "file", 1, 80);
    let mut earlier = create(&provider, &both).remove(0);
    let before = in_use(&storage);
    let end_prepare = |volumes: &[_], options: &CreationOptions| {
        let (set_id, copies) = begin_with(&provider, volumes, options);
        let seen = Seen::default();
        let prepared = provider.end_prepare(set_id, &seen);
        (set_id, copies, seen.all(), prepared)
    };
    let slow = CreationOptions { max_rate: Some(4 << 20), ..CreationOptions::default() };
    let quick = CreationOptions::default();
    for (way, most) in [("after it", 30), ("in its midst", 120), ("before it", 120)] {
        // What is written now nobody sees.
        assert!(Tracer::remove(&instance.pins(&volumes[0])).unwrap());
        let at = if way == "after it" { 5 << 20 } else { 6 << 20 };
        let file = File::options().write(true).open(volumes[0].path().join("file")).unwrap();
        file.write_all_at(&vec![way.len() as u8; 1 << 20], at).unwrap();
        file.sync_all().unwrap();
        match way {
            "after it" => {
                let (set_id, _, seen, prepared) = end_prepare(&both[..1], &quick);
                prepared.unwrap();
                assert!(seen[0].work == Work::Comparing && seen[0].bytes_total > 80 << 20, "{:?}", seen[0]);
                provider.abort(set_id).unwrap();
            }
            "in its midst" => {
                let (set_id, _) = begin_with(&provider, &both[..1], &slow);
                thread::scope(|scope| {
                    let running = scope.spawn(|| provider.end_prepare(set_id, &Seen::default()));
                    thread::sleep(Duration::from_millis(1500));
                    provider.abort(set_id).unwrap();
                    running.join().unwrap().unwrap_err();
                });
            }
            _ => {
                // Somebody has the mirror of the other volume.
                let key = both[1].id.as_str().replace(':', "-");
                let image = File::open(storage.path().join(format!(".vss/{key}.mirror"))).unwrap();
                rustix::fs::flock(&image, rustix::fs::FlockOperation::LockExclusive).unwrap();
                let (set_id, _, seen, prepared) = end_prepare(&both, &quick);
                assert!(prepared.unwrap_err().message.contains("in use") && seen.is_empty());
                provider.abort(set_id).unwrap();
            }
        }
        let why = provider.storage().unwrap().list().unwrap();
        let why = why.into_iter().find(|one| one.volume_id == both[0].id).unwrap().full_compare;
        let forecast = provider.forecast(&both[0], &quick).unwrap().copying.unwrap();
        assert_eq!((&forecast.full_compare, forecast.work), (&why, Work::Comparing), "{way}");
        let (set_id, mut copies, seen, prepared) = end_prepare(&both[..1], &quick);
        prepared.unwrap();
        assert!(seen[0].work == Work::Comparing && seen[0].bytes_total < most << 20, "{way}: {:?}", seen[0]);
        provider.pre_commit(set_id).unwrap();
        held(&both[..1], || provider.commit(set_id)).unwrap();
        finish(&provider, set_id);
        let later = copies.remove(0);
        let trees = provider.mount(&later, false).unwrap();
        let found = shown(&trees, &storage.beside("shown"), |top| fs::read(top.join("file")).unwrap());
        assert!(found == fs::read(volumes[0].path().join("file")).unwrap(), "{way}");
        drop(trees);
        let changed = provider.blocks().unwrap().changed(&later, Some(&earlier)).unwrap();
        assert!(matches!(&changed, Changes::Unknown(reason) if Some(reason) == why.as_ref()), "{way}: {changed:?}");
        // What is the same is shared still.
        let grown = in_use(&storage).saturating_sub(before) >> 20;
        assert!(grown < 25, "{way}: {grown} MiB more");
        earlier = later;
    }
    let next = create(&provider, &both[..1]).remove(0);
    assert!(matches!(provider.blocks().unwrap().changed(&next, Some(&earlier)).unwrap(), Changes::Known(_)));
}

#[test]
fn an_image_that_is_not_as_it_was_left_is_not_trusted() {
    needs!("an_image_that_is_not_as_it_was_left_is_not_trusted", "ext4", "xfs");
    /// Done to the image while nobody looks.
    type Deed = fn(&Path);
    let deeds: [(&str, Work, Deed); 3] = [
        ("was removed", Work::Copying, |image| fs::remove_file(image).unwrap()),
        ("another file", Work::Copying, |image| {
            let length = fs::metadata(image).unwrap().len();
            fs::remove_file(image).unwrap();
            File::create_new(image).unwrap().set_len(length).unwrap();
        }),
        ("written to", Work::Comparing, |image| {
            File::options().write(true).open(image).unwrap().write_all_at(&[0xee; 1 << 20], 4 << 20).unwrap();
        }),
    ];
    for kind in ["xfs", "ext4"] {
        let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new(kind, 600, &[]));
        let instance = Instance::with_storage(&storage);
        let provider = instance.provider();
        let volumes = [volume.volume()];
        let key = volumes[0].id.as_str().replace(':', "-");
        write(&volume, "file", 1, 20);
        provider.delete(&create(&provider, &volumes)[0]).unwrap();
        let full_compare = || {
            let forecast = provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap();
            let listed = provider.storage().unwrap().list().unwrap().remove(0).full_compare;
            assert_eq!(listed, forecast.full_compare);
            (listed, forecast.work)
        };
        assert_eq!(full_compare(), (None, Work::Catching));
        for (why, work, deed) in deeds {
            // The place's clock has its steps.
            thread::sleep(Duration::from_millis(20));
            deed(&storage.path().join(format!(".vss/{key}.mirror")));
            let found = full_compare();
            assert!(found.0.is_some_and(|reason| reason.contains(why)) && found.1 == work, "{kind}: {why}");
            let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
            let seen = Seen::default();
            provider.end_prepare(set_id, &seen).unwrap();
            assert_eq!(seen.all()[0].work, work, "{kind}: {why}");
            provider.pre_commit(set_id).unwrap();
            held(&volumes, || provider.commit(set_id)).unwrap();
            finish(&provider, set_id);
            let trees = provider.mount(&copies[0], false).unwrap();
            let file = shown(&trees, &storage.beside("shown"), |top| fs::read(top.join("file")).unwrap());
            assert!(file == vec![1; 20 << 20], "{kind}: {why}");
            drop(trees);
            // Neither the copy nor its end is a write to it by somebody else.
            assert_eq!(provider.storage().unwrap().list().unwrap().remove(0).full_compare, None, "{kind}: {why}");
            provider.delete(&copies[0]).unwrap();
            assert_eq!(full_compare(), (None, Work::Catching), "{kind}: {why}");
        }
    }
}

#[test]
fn mirrors_end_when_they_are_removed_unused_or_in_the_way() {
    needs!("mirrors_end_when_they_are_removed_unused_or_in_the_way", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let mut instance = Instance::with_storage(&storage);
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    for way in 0..4 {
        let provider = instance.provider();
        let copy = create(&provider, &volumes).remove(0);
        let kept = provider.storage().unwrap();
        let listed = kept.list().unwrap();
        assert_eq!((listed.len(), listed[0].shadows, &listed[0].volume_id), (1, 1, &volumes[0].id));
        assert!(listed[0].used_bytes > 5 << 20 && listed[0].volume_bytes == 100 << 20, "{listed:?}");
        assert_eq!(kept.tend().unwrap(), []);
        match way {
            0 => assert_eq!(kept.remove(&volumes[0].id).unwrap(), Deletion::Deleted),
            1 => {
                instance.options.unused = Duration::ZERO;
                assert_eq!(instance.provider().storage().unwrap().tend().unwrap().len(), 1);
                instance.options.unused = Duration::from_secs(3600);
            }
            2 => {
                instance.options.min_free_bytes = Some(1 << 50);
                assert_eq!(instance.provider().storage().unwrap().tend().unwrap().len(), 1);
                instance.options.min_free_bytes = None;
            }
            _ => {
                // Somebody removed the files by hand; the tracer is what is left.
                for name in ["mirror", "state"] {
                    let key = volumes[0].id.as_str().replace(':', "-");
                    fs::remove_file(storage.path().join(format!(".vss/{key}.{name}"))).unwrap();
                }
                kept.tend().unwrap();
            }
        }
        assert_eq!(kept.list().unwrap(), []);
        assert_eq!(kept.remove(&volumes[0].id).unwrap(), Deletion::WasGone);
        assert!(!instance.pins(&volume).directory().exists(), "the tracer is still there");
        // The copy stands by itself.
        let trees = provider.mount(&copy, false).unwrap();
        shown(&trees, &storage.beside("shown"), |top| assert!(top.join("file").exists()));
        drop(trees);
        provider.delete(&copy).unwrap();
        assert_eq!(stored(storage.path()), Vec::<String>::new());
        assert!(!storage.path().join(".vss").exists());
    }
}

#[test]
fn a_mirror_that_is_wanted_elsewhere_moves() {
    needs!("a_mirror_that_is_wanted_elsewhere_moves", "ext4", "xfs");
    let volume = FileSystem::new("ext4", 100, &[]);
    let places = [FileSystem::new("ext4", 300, &[]), FileSystem::new("xfs", 600, &[])];
    let mut instance = Instance::with_storage(&places[0]);
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    let there = create(&instance.provider(), &volumes).remove(0);
    instance.options.storage = Some(places[1].path().to_owned());
    let provider = instance.provider();
    let here = create(&provider, &volumes).remove(0);
    let listed = provider.storage().unwrap().list().unwrap();
    assert_eq!((listed.len(), listed[0].place.as_path()), (1, places[1].path()));
    for copy in [&there, &here] {
        let trees = provider.mount(copy, false).unwrap();
        shown(&trees, &volume.beside("shown"), |top| assert!(top.join("file").exists()));
        drop(trees);
        assert_eq!(provider.delete(copy).unwrap(), Deletion::Deleted);
    }
    assert!(
        !places[0].path().join(".vss").exists(),
        "{:?}",
        fs::read_dir(places[0].path().join(".vss")).map(Iterator::count)
    );
}

#[test]
fn a_mirror_whose_place_is_away_goes_when_that_is_there_again() {
    needs!("a_mirror_whose_place_is_away_goes_when_that_is_there_again", "ext4", "xfs");
    let volume = FileSystem::new("ext4", 64, &[]);
    let places = [FileSystem::new("xfs", 400, &[]), FileSystem::new("xfs", 400, &[])];
    let mut instance = Instance::new();
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    let pins = instance.pins(&volume);
    let mut provider_at = |place: usize| {
        instance.options.storage = Some(places[place].path().to_owned());
        instance.provider()
    };
    let is_at = |place: usize| {
        let entries = fs::read_dir(places[place].path().join(".vss")).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "mirror")).count()
    };
    let listed = |provider: &MirrorProvider| {
        let is_left = |one: &Storage| one.full_compare.as_ref().is_some_and(|why| why.contains("left behind"));
        let all = provider.storage().unwrap().list().unwrap();
        all.into_iter().map(|one| (is_left(&one), one.place)).collect::<Vec<_>>()
    };
    let (here, there) = (places[1].path().to_owned(), places[0].path().to_owned());
    let first = create(&provider_at(0), &volumes).remove(0);
    places[0].unmount();
    let provider = provider_at(1);
    let second = create(&provider, &volumes).remove(0);
    assert_eq!(listed(&provider), [(false, here.clone()), (true, there.clone())]);
    let kept = provider.storage().unwrap();
    assert_eq!(kept.tend().unwrap(), []);
    places[0].mount();
    assert_eq!(is_at(0), 1);
    assert_eq!(kept.tend().unwrap().len(), 1);
    assert_eq!((is_at(0), listed(&provider)), (0, vec![(false, here.clone())]));
    // The copies stand by themselves.
    for copy in [first, second] {
        let trees = provider.mount(&copy, false).unwrap();
        shown(&trees, &volume.beside("shown"), |top| assert!(top.join("file").exists()));
        drop(trees);
        assert_eq!(provider.delete(&copy).unwrap(), Deletion::Deleted);
    }
    // Also when somebody removes it while its place is away.
    places[1].unmount();
    assert_eq!(kept.remove(&volumes[0].id).unwrap(), Deletion::Deleted);
    assert!(!pins.directory().exists(), "the tracer is still there");
    assert_eq!(kept.remove(&volumes[0].id).unwrap(), Deletion::WasGone);
    assert_eq!(listed(&provider), [(true, here.clone())]);
    places[1].mount();
    assert_eq!(is_at(1), 1);
    assert_eq!(kept.remove(&volumes[0].id).unwrap(), Deletion::Deleted);
    assert_eq!((is_at(1), listed(&provider)), (0, Vec::new()));
    // One that is taken again is not removed.
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    places[1].unmount();
    let provider = provider_at(0);
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    places[1].mount();
    let provider = provider_at(1);
    provider.delete(&create(&provider, &volumes)[0]).unwrap();
    assert_eq!(provider.storage().unwrap().tend().unwrap(), []);
    assert_eq!((is_at(0), is_at(1), listed(&provider)), (0, 1, vec![(false, here)]));
}

#[test]
fn a_mirror_stays_when_its_place_is_mounted_elsewhere() {
    needs!("a_mirror_stays_when_its_place_is_mounted_elsewhere", "ext4", "xfs");
    /// Unmounted when it is dropped.
    struct Bound(PathBuf);
    impl Drop for Bound {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let mut instance = Instance::with_storage(&storage);
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    let here = create(&instance.provider(), &volumes).remove(0);
    let elsewhere = Bound(volume.beside("elsewhere"));
    rustix::mount::mount_bind(storage.path(), &elsewhere.0).unwrap();
    instance.options.storage = Some(elsewhere.0.clone());
    let provider = instance.provider();
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    let seen = Seen::default();
    provider.end_prepare(set_id, &seen).unwrap();
    assert_eq!(seen.all()[0].work, Work::Catching);
    provider.pre_commit(set_id).unwrap();
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    assert!(matches!(provider.blocks().unwrap().changed(&copies[0], Some(&here)).unwrap(), Changes::Known(_)));
}

#[test]
fn what_was_mended_untraced_is_put_back_too() {
    needs!("what_was_mended_untraced_is_put_back_too", "ext4", "xfs");
    for (kind, mib) in [("ext4", 100), ("xfs", 320)] {
        let (volume, storage) = (FileSystem::new(kind, mib, &[]), FileSystem::new("xfs", 900, &[]));
        let instance = Instance::with_storage(&storage);
        let provider = instance.provider();
        let volumes = [volume.volume()];
        write(&volume, "file", 1, 10);
        // Nothing is traced.
        let options = CreationOptions { full_compare: true, max_hold_ms: Some(8000), ..CreationOptions::default() };
        let (set_id, copies) = begin_with(&provider, &volumes, &options);
        cut(&provider, set_id, &volumes);
        provider.post_commit(set_id).unwrap();
        provider.pre_final_commit(set_id).unwrap();
        let trees = provider.mount(&copies[0], true).unwrap();
        shown(&trees, &storage.beside("mended"), |top| fs::write(top.join("mended"), vec![5; 3 << 20]).unwrap());
        drop(trees);
        provider.post_final_commit(set_id).unwrap();
        let Changes::Known(used) = provider.blocks().unwrap().changed(&copies[0], None).unwrap() else { panic!() };
        let used = used.iter().map(|run| run.length).sum::<u64>() >> 20;
        assert!((13..mib - 20).contains(&used), "{kind}: {used} MiB");
        volume.unmount();
        provider.revert().unwrap().revert(&copies[0], &Seen::default()).unwrap();
        assert_clean(kind, volume.device());
        volume.mount();
        assert!(fs::read(volume.path().join("mended")).unwrap() == vec![5; 3 << 20], "{kind}");
        assert!(fs::read(volume.path().join("file")).unwrap() == vec![1; 10 << 20], "{kind}");
    }
}

#[test]
fn a_device_that_grows_while_it_is_opened_fails_the_set() {
    needs!("a_device_that_grows_while_it_is_opened_fails_the_set", "ext4", "xfs");
    /// Lets a device grow, a block at a time, until it is dropped.
    struct Grows(Child);
    impl Drop for Grows {
        fn drop(&mut self) {
            // What it began it ends.
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }
    let (volume, storage) = (FileSystem::new("ext4", 64, &[]), FileSystem::new("xfs", 400, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    let script = "until read -t 0.001; [ $? -le 1 ]; do truncate -s +4096 \"$0\"; losetup -c \"$1\"; done";
    let mut grows = Command::new("bash");
    grows.args(["-c", script]).arg(volume.image()).arg(volume.device()).stdin(Stdio::piped());
    let grows = Grows(grows.spawn().unwrap());
    // It may also grow before or afterwards.
    let refused = (0..60).find_map(|_| {
        let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
        let prepared = provider.end_prepare(set_id, &Seen::default());
        provider.abort(set_id).unwrap();
        prepared.err()
    });
    drop(grows);
    let refused = refused.expect("none of 60 sets was refused");
    assert!(refused.message.contains("changed its size") && !refused.hint.is_empty(), "{refused}");
    create(&provider, &volumes);
}

#[test]
fn what_is_written_past_the_file_system_in_the_hold_fails_the_set() {
    needs!("what_is_written_past_the_file_system_in_the_hold_fails_the_set", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    // The last block, again and again, as it is.
    let device = volume.device().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    // On a busy machine a short hold may pass without a write: that cut is right.
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().read(true).write(true).open(&device).unwrap();
            let (at, mut block) = (SeekFrom::Start((100 << 20) - 4096), [0; 4096]);
            file.seek(at).unwrap();
            file.read_exact(&mut block).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all_at(&block, (100 << 20) - 4096).unwrap();
                file.sync_data().unwrap();
            }
            file.flush().unwrap();
        });
        let refused = (0..20).find_map(|_| {
            let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
            provider.end_prepare(set_id, &Seen::default()).unwrap();
            provider.pre_commit(set_id).unwrap();
            let result = held(&volumes, || provider.commit(set_id));
            provider.abort(set_id).unwrap();
            result.err()
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        refused.expect("none of 20 cuts was refused")
    });
    assert!(refused.message.contains("cannot be trusted") && !refused.hint.is_empty(), "{refused}");
    assert_eq!(stored(storage.path()), Vec::<String>::new());
    let copy = create(&provider, &volumes).remove(0);
    let trees = provider.mount(&copy, false).unwrap();
    shown(&trees, &storage.beside("shown"), |top| assert!(top.join("file").exists()));
    drop(trees);
}

#[test]
fn a_copy_that_cannot_be_opened_for_mending_leaves_no_tracer() {
    needs!("a_copy_that_cannot_be_opened_for_mending_leaves_no_tracer", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 64, &[]), FileSystem::new("xfs", 400, &[]));
    let instance = Instance::with_storage(&storage);
    let volumes = [volume.volume()];
    let provider = instance.provider();
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    cut(&provider, set_id, &volumes);
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    let image = storage.path().join(format!(".vss/{}.image", copies[0].shadow_id));
    File::options().write(true).open(image).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    let is_traced = || {
        let instance = instance.options.state_directory.to_string_lossy();
        Pins::new(&instance, &copies[0].shadow_id.to_string()).directory().exists()
    };
    provider.mount(&copies[0], true).unwrap_err();
    assert!(is_traced(), "until it is tried again, or undone");
    thread::scope(|scope| {
        scope.spawn(|| {
            // No loop device can be had here.
            mount::unshare_namespace().unwrap();
            rustix::mount::mount_bind("/dev/null", "/dev/loop-control").unwrap();
            let refused = provider.mount(&copies[0], true).unwrap_err();
            assert!(refused.message.contains("cannot be attached"), "{refused}");
        });
    });
    assert!(!is_traced());
    provider.abort(set_id).unwrap();
    assert_eq!(stored(storage.path()), Vec::<String>::new());
}
