//! An image is the volume at one instant: block for block it equals what was read a second time in the same hold, while
//! programs write to the volume.

mod common;

use common::{FileSystem, Instance, Writer, needs};
use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};
use vss_lab::providers::{assert_clean, begin_with, cut};
use vss_model::{CreationOptions, ShadowId};
use vss_provider::Provider;
use vss_trace::Bitmap;

const CHUNK: u64 = 4096;

/// How often each volume is copied.
const COPIES: usize = 3;

/// Blocks of an ext4 image that its own bitmaps call free, as runs of bytes.
fn free_on_ext4(image: &Path) -> Vec<Range<u64>> {
    let output = Command::new("dumpe2fs").arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let block: u64 = text.lines().find_map(|line| line.strip_prefix("Block size:")).unwrap().trim().parse().unwrap();
    let mut free = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for run in line.split(", ").filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            free.push(first.parse::<u64>().unwrap() * block..(last.parse::<u64>().unwrap() + 1) * block);
        }
    }
    free
}

/// The chunks in use in the image, by its own words on ext4, by the file system's in the hold on XFS.
fn in_use(kind: &str, image: &Path, reference: &File) -> Bitmap {
    let size = reference.metadata().unwrap().len();
    let mut used = Bitmap::new(size / CHUNK);
    if kind == "ext4" {
        used.set(0..size / CHUNK);
        for run in free_on_ext4(image) {
            used.clear(run.start.div_ceil(CHUNK)..run.end / CHUNK);
        }
        return used;
    }
    for piece in vss_linux::fiemap::pieces(reference).unwrap() {
        used.set(piece.logical.start / CHUNK..piece.logical.end.div_ceil(CHUNK));
    }
    used
}

#[track_caller]
fn assert_equal(kind: &str, image: &Path, reference: &Path) {
    let (image_file, reference) = (File::open(image).unwrap(), File::open(reference).unwrap());
    let used = in_use(kind, image, &reference);
    assert!(used.count() > 500, "only {} chunks are compared", used.count());
    let (mut one, mut other) = ([0; CHUNK as usize], [0; CHUNK as usize]);
    let mut wrong = Vec::new();
    for chunk in used.runs().flatten() {
        image_file.read_exact_at(&mut one, chunk * CHUNK).unwrap();
        reference.read_exact_at(&mut other, chunk * CHUNK).unwrap();
        if one != other {
            wrong.push(chunk);
        }
    }
    assert!(
        wrong.is_empty(),
        "{kind}: {} of {} chunks are wrong: {:?}",
        wrong.len(),
        used.count(),
        &wrong[..wrong.len().min(20)]
    );
}

/// Copies the volume several times under load.
fn check(volume: &FileSystem, storage: &FileSystem) {
    let mut instance = Instance::with_storage(storage);
    let references = storage.beside("references");
    instance.options.reference = Some(references.clone());
    let provider = instance.provider();
    fs::write(volume.path().join("still"), vec![7; 5 << 20]).unwrap();
    let _random = Writer::fio(
        volume.path(),
        &["--filename=random", "--rw=randwrite", "--bs=4k", "--size=24m", "--ioengine=psync", "--rate=6m"],
    );
    let _mapped = Writer::fio(
        volume.path(),
        &["--filename=mapped", "--rw=randwrite", "--bs=4k", "--size=16m", "--ioengine=mmap", "--rate=3m"],
    );
    let _direct = Writer::fio(
        volume.path(),
        &[
            "--filename=direct",
            "--rw=randwrite",
            "--bsrange=4k-64k",
            "--size=16m",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=8",
            "--rate=8m",
        ],
    );
    std::thread::sleep(std::time::Duration::from_millis(700));
    for _ in 0..COPIES {
        let volumes = [volume.volume()];
        let (set_id, copies) = begin_with(&provider, &volumes, &CreationOptions::default());
        cut(&provider, set_id, &volumes);
        provider.post_commit(set_id).unwrap();
        let shadow_id: ShadowId = copies[0].shadow_id;
        let image = storage.path().join(format!(".vss/{shadow_id}.image"));
        let reference = references.join(format!("{shadow_id}.reference"));
        assert_equal(volume.kind, &image, &reference);
        provider.pre_final_commit(set_id).unwrap();
        provider.post_final_commit(set_id).unwrap();
        assert_clean(volume.kind, &image);
        fs::remove_file(&reference).unwrap();
        provider.delete(&copies[0]).unwrap();
    }
}

#[test]
fn ext4_of_small_blocks_is_copied_at_one_instant() {
    needs!("ext4_of_small_blocks_is_copied_at_one_instant", "ext4", "xfs");
    check(&FileSystem::new("ext4", 200, &["-b", "1024"]), &FileSystem::new("xfs", 900, &[]));
}

#[test]
fn ext4_is_copied_at_one_instant() {
    needs!("ext4_is_copied_at_one_instant", "ext4", "xfs");
    check(&FileSystem::new("ext4", 200, &["-b", "4096"]), &FileSystem::new("xfs", 900, &[]));
}

#[test]
fn xfs_is_copied_at_one_instant() {
    needs!("xfs_is_copied_at_one_instant", "xfs");
    check(&FileSystem::new("xfs", 320, &[]), &FileSystem::new("xfs", 1200, &[]));
}

#[test]
fn a_partition_is_copied_at_one_instant() {
    needs!("a_partition_is_copied_at_one_instant", "ext4", "xfs");
    check(&FileSystem::on_partition("ext4", 400), &FileSystem::new("xfs", 900, &[]));
}

#[test]
fn an_image_on_ext4_is_of_one_instant() {
    needs!("an_image_on_ext4_is_of_one_instant", "ext4");
    check(&FileSystem::new("ext4", 200, &[]), &FileSystem::new("ext4", 600, &[]));
}
