//! Putting a volume back to a copy: all of it, on its own device, and gone on with when it was broken off.

mod common;

use common::{Breaks, FileSystem, Instance, Seen, needs};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};
use vss_lab::providers::{assert_clean, create, make, request, shown};
use vss_linux::loop_device::{AttachOptions, LoopDevice};
use vss_model::{CreationOptions, VssCode};
use vss_provider::{
    Provider, StoredCopy,
    blocks::Changes,
    progress::{Progress, Watcher, Work},
    revert::Left,
};
use vss_provider_mirror::MirrorProvider;

fn write(volume: &FileSystem, name: &str, byte: u8, mib: usize) {
    fs::write(volume.path().join(name), vec![byte; mib << 20]).unwrap();
}

fn attach(image: &Path) -> LoopDevice {
    LoopDevice::attach(image, AttachOptions { autoclear: true, ..Default::default() }).unwrap()
}

/// Attaches this image until the device of this name shows it; returns all that do.
fn attach_as(name: &Path, image: &Path) -> Vec<LoopDevice> {
    let mut attached: Vec<LoopDevice> = Vec::new();
    while !attached.iter().any(|device| device.path() == name) {
        assert!(attached.len() < 16, "{} is not free", name.display());
        attached.push(attach(image));
    }
    attached
}

/// The first block of a device or an image.
fn first_of(device: &Path) -> [u8; 4096] {
    let mut block = [0; 4096];
    File::open(device).unwrap().read_exact_at(&mut block, 0).unwrap();
    block
}

/// Writes it.
fn put(device: &Path, block: &[u8; 4096]) {
    let device = File::options().write(true).open(device).unwrap();
    device.write_all_at(block, 0).unwrap();
    device.sync_all().unwrap();
}

/// Breaks a revert off before anything is written.
struct BreaksAtOnce;

impl Watcher for BreaksAtOnce {
    fn progress(&self, _progress: Progress) {
        panic!("broken off");
    }
}

/// Begins a revert that is broken off in the middle.
fn begin(provider: &MirrorProvider, copy: &StoredCopy) {
    begin_until(provider, copy, &Breaks);
}

fn begin_until(provider: &MirrorProvider, copy: &StoredCopy, breaks: &dyn Watcher) {
    let revert = provider.revert().unwrap();
    catch_unwind(AssertUnwindSafe(|| revert.revert(copy, breaks))).unwrap_err();
}

#[test]
fn a_volume_is_put_back_also_when_that_was_broken_off() {
    needs!("a_volume_is_put_back_also_when_that_was_broken_off", "ext4", "xfs");
    for (kind, partition) in [("ext4", false), ("xfs", false), ("ext4", true)] {
        let volume = if partition { FileSystem::on_partition(kind, 240) } else { FileSystem::new(kind, 320, &[]) };
        let storage = FileSystem::new("xfs", 900, &[]);
        let instance = Instance::with_storage(&storage);
        let provider = instance.provider();
        let volumes = [volume.volume()];
        write(&volume, "file", 1, 20);
        write(&volume, "gone", 2, 5);
        let copy = create(&provider, &volumes).remove(0);
        write(&volume, "file", 3, 20);
        fs::remove_file(volume.path().join("gone")).unwrap();
        write(&volume, "new", 4, 5);
        let revert = provider.revert().unwrap();
        let refused = revert.revert(&copy, &Seen::default()).unwrap_err();
        assert!(refused.code == VssCode::ProviderVeto && refused.message.contains("mounted at"), "{refused}");
        volume.unmount();
        begin(&provider, &copy);
        // Whatever process asks then.
        let provider = instance.provider();
        let codes = [
            provider.is_volume_supported(&volumes[0]).unwrap_err().code,
            provider.begin_prepare(&request(&volumes[0])).unwrap_err().code,
        ];
        assert_eq!(codes, [VssCode::RevertInProgress; 2]);
        let seen = Seen::default();
        let reverted = provider.revert().unwrap().revert(&copy, &seen).unwrap();
        assert!(reverted.compared_bytes > 25 << 20 && reverted.written_bytes <= 60 << 20, "{reverted:?}");
        assert!(seen.all().iter().all(|progress| progress.work == Work::Reverting));
        // Nothing is left to be done.
        assert_eq!(provider.revert().unwrap().revert(&copy, &seen).unwrap().written_bytes, 0);
        assert_clean(kind, volume.device());
        volume.mount();
        assert!(fs::read(volume.path().join("file")).unwrap() == vec![1; 20 << 20]);
        assert!(fs::read(volume.path().join("gone")).unwrap() == vec![2; 5 << 20]);
        assert!(!volume.path().join("new").exists());
        // The tracer saw it: the next copy is right, and reads little.
        let volumes = [volume.volume()];
        assert_eq!(
            provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap().full_compare,
            None
        );
        let next = create(&provider, &volumes).remove(0);
        let trees = provider.mount(&next, false).unwrap();
        let found = shown(&trees, &storage.beside("shown"), |top| fs::read(top.join("file")).unwrap());
        assert!(found == vec![1; 20 << 20]);
        drop(trees);
    }
}

#[test]
fn a_volume_is_put_back_when_its_device_has_another_name() {
    needs!("a_volume_is_put_back_when_its_device_has_another_name", "ext4", "xfs");
    let (mut volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let revert = provider.revert().unwrap();
    write(&volume, "file", 1, 5);
    let copy = create(&provider, &[volume.volume()]).remove(0);
    write(&volume, "file", 2, 5);
    let before = volume.device().to_owned();
    let (mut others, mut clone) = (Vec::new(), None);
    volume.take_away(|image| {
        // Its old name goes to something else.
        let other = storage.beside("other").join("image");
        File::create(&other).unwrap().set_len(1 << 20).unwrap();
        others = attach_as(&before, &other);
        let copied = storage.beside("clone").join("image");
        fs::copy(image, &copied).unwrap();
        clone = Some(attach(&copied));
    });
    assert_ne!(volume.device(), before);
    volume.unmount();
    let clone = clone.unwrap();
    let refused = revert.revert(&copy, &Seen::default()).unwrap_err();
    let names = [volume.device(), clone.path()].map(|device| device.to_str().unwrap().to_owned());
    assert!(
        refused.code == VssCode::ProviderVeto && names.iter().all(|name| refused.message.contains(name)),
        "{refused}"
    );
    clone.detach().unwrap();
    assert!(revert.revert(&copy, &Seen::default()).unwrap().written_bytes > 0);
    volume.mount();
    assert!(fs::read(volume.path().join("file")).unwrap() == vec![1; 5 << 20]);
}

#[test]
fn a_device_that_grew_is_not_put_back() {
    needs!("a_device_that_grew_is_not_put_back", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 5);
    let first = create(&provider, &volumes).remove(0);
    volume.unmount();
    volume.grow(140);
    let refused = provider.revert().unwrap().revert(&first, &Seen::default()).unwrap_err();
    assert!(refused.code == VssCode::ProviderVeto && refused.message.contains("bytes"), "{refused}");
    volume.mount();
    let volumes = [volume.volume()];
    let forecast = provider.forecast(&volumes[0], &CreationOptions::default()).unwrap().copying.unwrap();
    assert!(forecast.full_compare.is_some_and(|why| why.contains("another size")));
    let second = create(&provider, &volumes).remove(0);
    let changed = provider.blocks().unwrap().changed(&second, Some(&first)).unwrap();
    assert!(matches!(changed, Changes::Unknown(_)), "{changed:?}");
}

#[test]
fn a_revert_goes_on_on_its_own_disk_and_on_no_other() {
    needs!("a_revert_goes_on_on_its_own_disk_and_on_no_other", "ext4", "xfs");
    let (mut volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    write(&volume, "file", 1, 20);
    let copy = create(&instance.provider(), &[volume.volume()]).remove(0);
    write(&volume, "file", 3, 20);
    let other = storage.beside("other").join("image");
    File::create(&other).unwrap().set_len(100 << 20).unwrap();
    make("ext4", &other, &[]);
    let precious = fs::read(&other).unwrap();
    volume.unmount();
    begin_until(&instance.provider(), &copy, &BreaksAtOnce);
    let revert = || instance.provider().revert().unwrap().revert(&copy, &Seen::default());
    // The other disk has its name from now on.
    let before = volume.device().to_owned();
    let mut others = Vec::new();
    volume.attach_anew(|image| {
        others = attach_as(&before, &other);
        // It is not there at all.
        let first = first_of(image);
        put(image, &[0; 4096]);
        let refused = revert().unwrap_err();
        assert_eq!(refused.code, VssCode::ObjectNotFound, "{refused}");
        put(image, &first);
    });
    assert_ne!(volume.device(), before);
    assert!(revert().unwrap().written_bytes > 0);
    assert!(fs::read(&other).unwrap() == precious, "the other disk was written to");
    assert_clean("ext4", volume.device());
    volume.mount();
    assert!(fs::read(volume.path().join("file")).unwrap() == vec![1; 20 << 20]);
}

#[test]
fn a_device_whose_superblock_is_lost_is_only_taken_when_nothing_else_can_be_there() {
    needs!("a_device_whose_superblock_is_lost_is_only_taken_when_nothing_else_can_be_there", "ext4", "xfs");
    let (mut volume, storage) = (FileSystem::new("ext4", 320, &[]), FileSystem::new("xfs", 900, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    write(&volume, "file", 1, 20);
    let copy = create(&provider, &[volume.volume()]).remove(0);
    write(&volume, "file", 3, 20);
    let revert = || provider.revert().unwrap().revert(&copy, &Seen::default());
    let not_found = || assert_eq!(revert().unwrap_err().code, VssCode::ObjectNotFound);
    volume.unmount();
    let first = first_of(volume.device());
    put(volume.device(), &[0; 4096]);
    not_found();
    // One that was begun, on the same disk in the same boot.
    put(volume.device(), &first);
    begin(&provider, &copy);
    put(volume.device(), &[0; 4096]);
    assert!(revert().unwrap().written_bytes >= 4096);
    // Attached anew, and nothing says that it is the same.
    begin(&provider, &copy);
    volume.attach_anew(|_| ());
    put(volume.device(), &[0; 4096]);
    not_found();
    // Somebody has made another file system there.
    put(volume.device(), &first);
    begin(&provider, &copy);
    make("xfs", volume.device(), &[]);
    not_found();
}

/// What a device has when its revert is told of for the first time.
struct AtFirst {
    device: PathBuf,
    content: Mutex<Option<Vec<u8>>>,
}

impl Watcher for AtFirst {
    fn progress(&self, _progress: Progress) {
        self.content.lock().unwrap().get_or_insert_with(|| fs::read(&self.device).unwrap());
    }
}

#[test]
fn who_watches_a_revert_hears_of_it_before_anything_is_written() {
    needs!("who_watches_a_revert_hears_of_it_before_anything_is_written", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    write(&volume, "file", 1, 40);
    let copy = create(&provider, &[volume.volume()]).remove(0);
    // Where it lies.
    let file = File::options().write(true).open(volume.path().join("file")).unwrap();
    file.write_all_at(&vec![3; 40 << 20], 0).unwrap();
    drop(file);
    volume.unmount();
    let before = fs::read(volume.device()).unwrap();
    let watcher = AtFirst { device: volume.device().to_owned(), content: Mutex::default() };
    assert!(provider.revert().unwrap().revert(&copy, &watcher).unwrap().written_bytes >= 40 << 20);
    assert!(watcher.content.lock().unwrap().as_ref().unwrap() == &before, "it was written to before");
}

#[test]
fn a_revert_that_is_given_up_is_in_the_way_of_nothing() {
    needs!("a_revert_that_is_given_up_is_in_the_way_of_nothing", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    write(&volume, "file", 1, 20);
    let first = create(&provider, &volumes).remove(0);
    write(&volume, "file", 2, 20);
    let second = create(&provider, &volumes).remove(0);
    write(&volume, "file", 3, 20);
    let revert = provider.revert().unwrap();
    volume.unmount();
    let note = || {
        let mut entries = fs::read_dir(instance.options.state_directory.join("mirror")).unwrap();
        entries.find_map(|entry| entry.ok().filter(|entry| entry.path().extension().is_some_and(|is| is == "revert")))
    };
    for is_damaged in [false, true] {
        begin(&provider, &first);
        let refused = [
            provider.is_volume_supported(&volumes[0]).unwrap_err(),
            revert.revert(&second, &Seen::default()).unwrap_err(),
        ];
        for refused in refused {
            assert!(refused.code == VssCode::RevertInProgress && refused.hint.contains("--give-up"), "{refused}");
        }
        // Of another one.
        revert.give_up(&second).unwrap();
        assert!(note().is_some());
        if is_damaged {
            fs::write(note().unwrap().path(), "").unwrap();
        }
        revert.give_up(&first).unwrap();
        assert!(note().is_none());
        revert.give_up(&first).unwrap();
    }
    revert.revert(&second, &Seen::default()).unwrap();
    volume.mount();
    assert!(fs::read(volume.path().join("file")).unwrap() == vec![2; 20 << 20]);
    create(&provider, &[volume.volume()]);
}

#[test]
fn what_is_left_of_a_revert_is_told_and_whether_the_volume_was_used_since() {
    needs!("what_is_left_of_a_revert_is_told_and_whether_the_volume_was_used_since", "ext4", "xfs");
    for kind in ["ext4", "xfs"] {
        let (mut volume, storage) = (FileSystem::new(kind, 320, &[]), FileSystem::new("xfs", 900, &[]));
        let instance = Instance::with_storage(&storage);
        let provider = instance.provider();
        write(&volume, "file", 1, 20);
        let copy = create(&provider, &[volume.volume()]).remove(0);
        write(&volume, "file", 2, 20);
        volume.unmount();
        let revert = provider.revert().unwrap();
        let left = || revert.left(&copy).unwrap();
        assert_eq!(left(), Left::Nothing);
        begin(&provider, &copy);
        assert_eq!(left(), Left::Untouched);
        // And when the superblock is the copy's already.
        let image = storage.path().join(format!(".vss/{}.image", copy.shadow_id));
        put(volume.device(), &first_of(&image));
        assert_eq!(left(), Left::Untouched);
        let attached_anew = |volume: &mut FileSystem| {
            volume.attach_anew(|_| ());
            left()
        };
        match (kind, attached_anew(&mut volume)) {
            ("ext4", left) => assert_eq!(left, Left::Untouched),
            (_, Left::Touched(why)) => assert!(why.contains("cannot be told"), "{why}"),
            (_, left) => panic!("{left:?}"),
        }
        revert.revert(&copy, &Seen::default()).unwrap();
        assert_eq!(left(), Left::Nothing);

        // Used in between, as nearly nothing as can be.
        volume.mount();
        write(&volume, "file", 2, 20);
        volume.unmount();
        begin_until(&provider, &copy, &BreaksAtOnce);
        assert_eq!(left(), Left::Untouched);
        volume.mount();
        File::create(volume.path().join("precious")).unwrap();
        volume.unmount();
        assert!(matches!(left(), Left::Touched(why) if why.contains("mounted")));
        // Who says so has it ended, and that may break off too.
        begin(&provider, &copy);
        assert_eq!(left(), Left::Untouched);
        revert.revert(&copy, &Seen::default()).unwrap();
        assert_eq!(left(), Left::Nothing);
        assert_clean(kind, volume.device());
        volume.mount();
        assert!(fs::read(volume.path().join("file")).unwrap() == vec![1; 20 << 20]);
        assert!(!volume.path().join("precious").exists());
    }
}
