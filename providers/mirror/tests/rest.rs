//! Moments at which no write is under way: where one is found before the hold, and what is read again in the hold where none is.

mod common;

use common::{FileSystem, Instance, Seen, assert_same, fill, needs, touch};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};
use vss_lab::providers::{begin_with, create, finish, held};
use vss_model::CreationOptions;
use vss_provider::Provider;
use vss_trace::{Counters, Tracer};

/// What the tracer takes for the counts of the last moment of rest.
fn base(instance: &Instance, volume: &FileSystem) -> Option<Counters> {
    Tracer::open(&instance.pins(volume)).unwrap().unwrap().balanced_at()
}

/// Has the kernel not count requests to the volume that are under way, until it is dropped.
struct Uncounted(String);

impl Uncounted {
    fn new(volume: &FileSystem) -> Self {
        let name = volume.device().file_name().unwrap().to_str().unwrap();
        let attribute = format!("/sys/block/{name}/queue/iostats");
        fs::write(&attribute, "0").unwrap();
        Self(attribute)
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        // The device is another file system's after this test.
        let _ = fs::write(&self.0, "1");
    }
}

/// Puts into the mirror what it has when a block was read before a write to it ended whose end was not traced.
fn forget(volume: &FileSystem, storage: &FileSystem, name: &str, block: u64) {
    let pieces = vss_linux::fiemap::pieces(File::open(volume.path().join(name)).unwrap()).unwrap();
    let piece = pieces.iter().find(|piece| piece.logical.contains(&(block * 4096))).unwrap();
    let offset = piece.physical.as_ref().unwrap().start + block * 4096 - piece.logical.start;
    let key = volume.volume().id.as_str().replace(':', "-");
    let mirror = File::options().write(true).open(storage.path().join(format!(".vss/{key}.mirror"))).unwrap();
    mirror.write_all_at(&[0xee; 4096], offset).unwrap();
}

#[test]
fn there_is_no_rest_before_the_hold_where_the_kernel_does_not_count_what_is_under_way() {
    needs!("there_is_no_rest_before_the_hold_where_the_kernel_does_not_count_what_is_under_way", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    for counts in [false, true] {
        let instance = Instance::with_storage(&storage);
        let provider = instance.provider();
        let volumes = [volume.volume()];
        let _uncounted = (!counts).then(|| Uncounted::new(&volume));
        let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
        provider.end_prepare(set_id, &Seen::default()).unwrap();
        assert_eq!(base(&instance, &volume).is_some(), counts);
        provider.pre_commit(set_id).unwrap();
        held(&volumes, || provider.commit(set_id)).unwrap();
        assert!(base(&instance, &volume).is_some(), "the hold is no moment of rest");
        finish(&provider, set_id);
        provider.delete(&copies[0]).unwrap();
        provider.storage().unwrap().remove(&volumes[0].id).unwrap();
    }
}

#[test]
fn what_the_counts_lack_before_the_hold_is_read_again_in_it() {
    needs!("what_the_counts_lack_before_the_hold_is_read_again_in_it", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    fill(volume.path(), "file", 10);
    create(&provider, &volumes);
    // As when the end of a write of 8 sectors was not traced.
    let tracer = Tracer::open(&instance.pins(&volume)).unwrap().unwrap();
    let rest = tracer.balanced_at().unwrap();
    let lacking = Counters { completed: rest.completed + 8, ..rest };
    tracer.set_balanced(&lacking);
    touch(volume.path(), "file", &[7], 0x77);
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    assert_eq!(base(&instance, &volume), Some(lacking), "before the hold it may as well be under way");
    provider.pre_commit(set_id).unwrap();
    forget(&volume, &storage, "file", 7);
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &copies[0], &storage.beside("shown"), "file", &wanted);
}

#[test]
fn what_was_read_before_the_first_rest_is_read_again_in_the_hold() {
    needs!("what_was_read_before_the_first_rest_is_read_again_in_the_hold", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let volumes = [volume.volume()];
    let _uncounted = Uncounted::new(&volume);
    // In memory only: it is written when the first round begins, and traced.
    fill(volume.path(), "file", 60);
    let short = CreationOptions { max_hold_ms: Some(1), ..CreationOptions::default() };
    let (set_id, _) = begin_with(&provider, &volumes, &short);
    let refused = provider.end_prepare(set_id, &Seen::default()).unwrap_err();
    assert!(refused.message.contains("are left to be read") && refused.hint.contains("queue/iostats"), "{refused}");
    provider.abort(set_id).unwrap();
    touch(volume.path(), "file", &[7], 0x77);
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    provider.pre_commit(set_id).unwrap();
    forget(&volume, &storage, "file", 7);
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &copies[0], &storage.beside("shown"), "file", &wanted);
}
