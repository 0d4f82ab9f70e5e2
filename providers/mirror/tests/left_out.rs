//! What is left out of a copy, and what is not: images on the volume itself, blocks that a file shares with them, swap files.

mod common;

use common::{FileSystem, Instance, Seen, Writer, assert_same, fill, needs, touch};
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};
use vss_lab::providers::{assert_clean, begin_with, create, finish, held, request, run, shown};
use vss_model::{CreationOptions, VssCode};
use vss_provider::Provider;
use vss_trace::Tracer;

/// Options of mkfs.xfs: whether the file system knows whose each block is.
const RMAPBT: [&str; 2] = ["-m", "rmapbt=1"];
const NO_RMAPBT: [&str; 2] = ["-m", "rmapbt=0"];

#[test]
fn an_image_on_the_volume_itself_is_no_part_of_it() {
    needs!("an_image_on_the_volume_itself_is_no_part_of_it", "ext4", "xfs");
    // Where nobody tells which images share a block, there is one.
    let kinds: [(&str, &[&str], u64, &str, u32); 4] = [
        ("ext4", &[], 300, "", 1),
        ("xfs", &RMAPBT, 600, "", 2),
        ("xfs", &RMAPBT, 600, "deep/images", 2),
        ("xfs", &NO_RMAPBT, 600, "", 1),
    ];
    for (kind, options, mib, below, times) in kinds {
        let volume = FileSystem::new(kind, mib, options);
        let mut instance = Instance::new();
        fs::create_dir_all(volume.path().join(below)).unwrap();
        instance.options.storage = Some(volume.path().join(below));
        let provider = instance.provider();
        let volumes = [volume.volume()];
        fill(volume.path(), "file", 30);
        let _load = Writer::fio(
            volume.path(),
            &["--filename=load", "--rw=randwrite", "--bs=4k", "--size=16m", "--ioengine=psync", "--rate=2m"],
        );
        for _ in 0..times {
            let copy = create(&provider, &volumes).remove(0);
            let trees = provider.mount(&copy, false).unwrap();
            let wanted = fs::read(volume.path().join("file")).unwrap();
            shown(&trees, &volume.beside("shown"), |top| {
                assert!(fs::read(top.join("file")).unwrap() == wanted);
                assert!(!top.join(below).join(".vss").exists(), "the store is seen in the copy");
            });
            drop(trees);
            let image = volume.path().join(below).join(format!(".vss/{}.image", copy.shadow_id));
            assert_clean(kind, &image);
        }
        let refused = provider.begin_prepare(&request(&volumes[0])).map_err(|error| error.code);
        assert_eq!(refused.err(), (times == 1).then_some(VssCode::MaximumNumberOfSnapshotsReached));
    }
}

/// The running mirror on the volume itself.
fn mirror_on(volume: &FileSystem) -> PathBuf {
    let entries = fs::read_dir(volume.path().join(".vss")).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "mirror")).unwrap()
}

/// Makes the file share the blocks of the mirror on its own volume that have the same content, as deduplication does.
#[track_caller]
fn deduplicate(volume: &FileSystem, name: &str) {
    let file = volume.path().join(name);
    for piece in vss_linux::fiemap::pieces(File::open(&file).unwrap()).unwrap() {
        let (of_volume, of_file) = (piece.physical.unwrap(), piece.logical);
        let length = of_file.end - of_file.start;
        let command = format!("dedupe {} {} {} {length}", mirror_on(volume).display(), of_volume.start, of_file.start);
        let done = run("xfs_io", |xfs_io| {
            xfs_io.arg("-c").arg(&command).arg(&file);
        });
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains(&format!("deduped {length}/{length}")), "{command}: {said}");
    }
    run("sync", |command| {
        command.arg("-f").arg(volume.path());
    });
}

#[test]
fn blocks_that_a_file_shares_with_an_image_are_copied_and_images_are_not() {
    needs!("blocks_that_a_file_shares_with_an_image_are_copied_and_images_are_not", "xfs");
    for (options, keeps) in [(RMAPBT, true), (RMAPBT, false), (NO_RMAPBT, false)] {
        let volume = FileSystem::new("xfs", 900, &options);
        let instance = Instance::in_memory();
        let provider = instance.provider();
        let volumes = [volume.volume()];
        fill(volume.path(), "file", 40);
        let wanted = fs::read(volume.path().join("file")).unwrap();
        let used = |name: &Path| fs::metadata(name).unwrap().blocks() * 512;
        let mut copies = vec![create(&provider, &volumes).remove(0)];
        if !keeps {
            provider.delete(&copies.remove(0)).unwrap();
        }
        let alone = used(&mirror_on(&volume));
        // Nobody has written to these blocks since the tracer of the next copy was attached.
        Tracer::remove(&instance.pins(&volume)).unwrap();
        touch(volume.path(), "other", &[0, 1], 0x77);
        for deletes_before in [false, true] {
            let copy = create(&provider, &volumes).remove(0);
            copies.push(copy);
            if deletes_before || !keeps {
                // Its blocks are freed in the background.
                provider.delete(&copies.remove(0)).unwrap();
            }
        }
        let grown = used(&mirror_on(&volume)).saturating_sub(alone);
        assert!(grown < 8 << 20, "{options:?}: the images have {grown} bytes of images");
        deduplicate(&volume, "file");
        assert!(fs::read(volume.path().join("file")).unwrap() == wanted);
        let copy = create(&provider, &volumes).remove(0);
        assert_same(&provider, &copy, &volume.beside("shown"), "file", &wanted);
        if keeps {
            // The image itself, too.
            run("cp", |command| {
                command.arg("--reflink=always").arg(mirror_on(&volume)).arg(volume.path().join("copied"));
            });
            let copied = fs::read(volume.path().join("copied")).unwrap();
            let copy = create(&provider, &volumes).remove(0);
            assert_same(&provider, &copy, &volume.beside("shown"), "copied", &copied);
        }
    }
}

#[test]
fn a_file_that_shares_with_an_image_only_after_the_last_look_makes_the_set_fail() {
    needs!("a_file_that_shares_with_an_image_only_after_the_last_look_makes_the_set_fail", "xfs");
    let volume = FileSystem::new("xfs", 900, &RMAPBT);
    let instance = Instance::in_memory();
    let provider = instance.provider();
    let volumes = [volume.volume()];
    fill(volume.path(), "file", 20);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    create(&provider, &volumes);
    let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    provider.pre_commit(set_id).unwrap();
    deduplicate(&volume, "file");
    held(&volumes, || provider.commit(set_id)).unwrap();
    let refused = provider.post_commit(set_id).unwrap_err();
    assert!(refused.code == VssCode::ProviderVeto && refused.message.contains("left out"), "{refused}");
    provider.abort(set_id).unwrap();
    let copy = create(&provider, &volumes).remove(0);
    assert_same(&provider, &copy, &volume.beside("shown"), "file", &wanted);
}

/// A swap file that is in use until this is dropped.
struct Swap(PathBuf);

impl Swap {
    /// Makes the file of 40 MiB a swap file; none where that cannot be.
    fn on(volume: &FileSystem, test: &str) -> Option<Self> {
        fill(volume.path(), "swap", 40);
        let swap = volume.path().join("swap");
        rustix::fs::chmod(&swap, rustix::fs::Mode::RUSR).unwrap();
        run("mkswap", |command| {
            command.arg(&swap);
        });
        let swapped = Command::new("swapon").args(["-p", "0"]).arg(&swap).output().unwrap();
        if !swapped.status.success() {
            println!("SKIPPED: {test}: {}", String::from_utf8_lossy(&swapped.stderr));
            return None;
        }
        Some(Self(swap))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).output();
    }
}

#[test]
fn a_swap_file_is_left_out() {
    needs!("a_swap_file_is_left_out", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    fill(volume.path(), "file", 20);
    let Some(_swap) = Swap::on(&volume, "a_swap_file_is_left_out") else { return };
    let volumes = [volume.volume()];
    let seen = Seen::default();
    let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &seen).unwrap();
    let first = seen.all()[0].bytes_total;
    assert!(first < 40 << 20, "{first} bytes of the first round");
    provider.pre_commit(set_id).unwrap();
    held(&volumes, || provider.commit(set_id)).unwrap();
    finish(&provider, set_id);
    let wanted = fs::read(volume.path().join("file")).unwrap();
    assert_same(&provider, &copies[0], &storage.beside("shown"), "file", &wanted);
}

#[test]
fn a_swap_file_that_is_ended_after_the_last_look_makes_the_set_fail_and_is_in_the_next_copy() {
    let test = "a_swap_file_that_is_ended_after_the_last_look_makes_the_set_fail_and_is_in_the_next_copy";
    needs!("a_swap_file_that_is_ended_after_the_last_look_makes_the_set_fail_and_is_in_the_next_copy", "ext4", "xfs");
    let (volume, storage) = (FileSystem::new("ext4", 200, &[]), FileSystem::new("xfs", 600, &[]));
    let instance = Instance::with_storage(&storage);
    let provider = instance.provider();
    let Some(swap) = Swap::on(&volume, test) else { return };
    let volumes = [volume.volume()];
    create(&provider, &volumes);
    let (set_id, _) = begin_with(&provider, &volumes, &CreationOptions::default());
    provider.end_prepare(set_id, &Seen::default()).unwrap();
    provider.pre_commit(set_id).unwrap();
    // Its blocks are a file's like any other now.
    drop(swap);
    rustix::fs::chmod(volume.path().join("swap"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    touch(volume.path(), "swap", &[100, 101, 5000], 0x33);
    held(&volumes, || provider.commit(set_id)).unwrap();
    let refused = provider.post_commit(set_id).unwrap_err();
    assert!(refused.code == VssCode::ProviderVeto && refused.message.contains("left out"), "{refused}");
    provider.abort(set_id).unwrap();
    let copy = create(&provider, &volumes).remove(0);
    let wanted = fs::read(volume.path().join("swap")).unwrap();
    assert_same(&provider, &copy, &storage.beside("shown"), "swap", &wanted);
}
