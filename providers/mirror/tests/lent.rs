//! Where files cannot share blocks the one copy is the mirror itself: who reads it keeps what he reads, whatever becomes of it.

mod common;

use common::{FileSystem, Instance, Seen, needs, stored};
use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};
use vss_lab::providers::{begin_with, create, cut, finish, held, shown};
use vss_linux::mount;
use vss_model::{CreationOptions, SetId};
use vss_provider::{Deletion, Provider, StoredCopy, progress::Work};

const FILE: usize = 20 << 20;

/// Overwrites the file of a volume.
fn write(volume: &FileSystem, byte: u8) {
    let file = File::options().write(true).create(true).truncate(false).open(volume.path().join("file")).unwrap();
    file.write_all_at(&vec![byte; FILE], 0).unwrap();
    file.sync_all().unwrap();
}

#[track_caller]
fn assert_is(provider: &dyn Provider, copy: &StoredCopy, place: &FileSystem, byte: u8) {
    let trees = provider.mount(copy, false).unwrap();
    let found = shown(&trees, &place.beside("shown"), |top| fs::read(top.join("file")).unwrap());
    assert!(found == vec![byte; FILE], "{} bytes are right", found.iter().filter(|found| **found == byte).count());
}

/// Makes a copy; how its first round began.
fn next(provider: &dyn Provider, volume: &FileSystem) -> (StoredCopy, Work) {
    let volumes = [volume.volume()];
    let (set_id, mut copies) = begin_with(provider, &volumes, &CreationOptions::default());
    let seen = Seen::default();
    provider.end_prepare(set_id, &seen).unwrap();
    provider.pre_commit(set_id).unwrap();
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(provider, set_id);
    (copies.remove(0), seen.all()[0].work)
}

#[test]
fn who_reads_a_copy_that_is_deleted_reads_it_to_its_end() {
    needs!("who_reads_a_copy_that_is_deleted_reads_it_to_its_end", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("ext4", 500, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    write(&volume, 1);
    let copy = create(&provider, &[volume.volume()]).remove(0);
    // As an export does.
    let image = provider.blocks().unwrap().open(&copy).unwrap();
    let content = || {
        let mut content = vec![0; usize::try_from(image.size).unwrap()];
        image.file.read_exact_at(&mut content, 0).map(|()| content)
    };
    let before = content().unwrap();
    assert_eq!(provider.delete(&copy).unwrap(), Deletion::Deleted);
    assert_eq!((stored(storage.path()), provider.storage().unwrap().list().unwrap()), (Vec::new(), Vec::new()));
    write(&volume, 2);
    let (copy, work) = next(&provider, &volume);
    assert_eq!(work, Work::Copying);
    assert!(content().unwrap() == before, "the image changed under who reads it");
    assert_is(&provider, &copy, &storage, 2);
    drop(image);

    // As a mount in another mount namespace does: nobody sees it in the service's mount table.
    let trees = provider.mount(&copy, false).unwrap();
    let file =
        mount::open_beneath(&trees[0].mount, "file".as_ref(), rustix::fs::OFlags::RDONLY).map(File::from).unwrap();
    assert_eq!(provider.delete(&copy).unwrap(), Deletion::Deleted);
    write(&volume, 3);
    let (copy, work) = next(&provider, &volume);
    assert_eq!(work, Work::Copying);
    let mut found = vec![0; FILE];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found == vec![2; FILE], "the file changed under who reads it");
    assert_is(&provider, &copy, &storage, 3);
    drop((file, trees));

    // Who has ended costs nothing.
    drop(provider.blocks().unwrap().open(&copy).unwrap());
    assert_eq!(provider.delete(&copy).unwrap(), Deletion::Deleted);
    write(&volume, 4);
    let (copy, work) = next(&provider, &volume);
    assert_eq!(work, Work::Catching);
    assert_is(&provider, &copy, &storage, 4);
    provider.delete(&copy).unwrap();
}

/// Begins a set and lets a writer mend its copy; with the file of the copy that the writer has open.
fn mended(provider: &dyn Provider, volume: &FileSystem, place: &FileSystem) -> (SetId, StoredCopy, File) {
    let volumes = [volume.volume()];
    let (set_id, mut copies) = begin_with(provider, &volumes, &CreationOptions::default());
    cut(provider, set_id, &volumes);
    provider.post_commit(set_id).unwrap();
    provider.pre_final_commit(set_id).unwrap();
    let trees = provider.mount(&copies[0], true).unwrap();
    let open = |top: &Path| File::options().read(true).write(true).open(top.join("file")).unwrap();
    let file = shown(&trees, &place.beside("mended"), open);
    (set_id, copies.remove(0), file)
}

#[test]
fn a_writer_that_keeps_the_copy_of_a_set_that_failed_writes_into_no_other() {
    needs!("a_writer_that_keeps_the_copy_of_a_set_that_failed_writes_into_no_other", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("ext4", 500, &[]));
    let instance = Instance::with_storage(&storage);
    for is_killed in [false, true] {
        let provider = instance.provider();
        write(&volume, 1);
        provider.delete(&create(&provider, &[volume.volume()])[0]).unwrap();
        let (set_id, copy, file) = mended(&provider, &volume, &storage);
        if is_killed {
            drop(provider);
            instance.provider().delete(&copy).unwrap();
        } else {
            provider.abort(set_id).unwrap();
        }
        assert_eq!(stored(storage.path()), Vec::<String>::new());
        let provider = instance.provider();
        let volumes = [volume.volume()];
        let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
        provider.end_prepare(set_id, &Seen::default()).unwrap();
        // Only now he goes on.
        file.write_all_at(&[0xee; 8192], 8192).unwrap();
        file.sync_all().unwrap();
        provider.pre_commit(set_id).unwrap();
        held(&volumes, || provider.commit(set_id)).unwrap();
        finish(&provider, set_id);
        assert_is(&provider, &copies[0], &storage, 1);
        drop(file);
        provider.delete(&copies[0]).unwrap();
    }
}

#[test]
fn a_set_that_failed_costs_the_mirror_only_when_somebody_keeps_its_copy() {
    needs!("a_set_that_failed_costs_the_mirror_only_when_somebody_keeps_its_copy", "ext4");
    let (volume, storage) = (FileSystem::new("ext4", 100, &[]), FileSystem::new("ext4", 500, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    write(&volume, 1);
    for (keeps, wanted) in [(false, Work::Comparing), (true, Work::Copying)] {
        provider.delete(&create(&provider, &[volume.volume()])[0]).unwrap();
        let (set_id, _, file) = mended(&provider, &volume, &storage);
        // He reads alone, and nothing is written to it any more.
        let reader = keeps.then(|| File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap());
        drop(file);
        provider.abort(set_id).unwrap();
        let (copy, work) = next(&provider, &volume);
        assert_eq!(work, wanted);
        assert_is(&provider, &copy, &storage, 1);
        drop(reader);
        provider.delete(&copy).unwrap();
    }
}
