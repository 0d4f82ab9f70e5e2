//! Copies as streams, from `vss export` to an image that mounts: whole ones and what changed since, torn ones, wrong bases,
//! imports that are killed.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rustix::mount::{MountFlags, mount};
use vss_lab::providers::after_power_cut;
use vss_linux::loop_device::{AttachOptions, LoopDevice};
use vss_linux::process::Signal;
use vss_tests::blocks::{Copied, are_equal, name};
use vss_tests::instance::wait_until;
use vss_tests::loopfs::{Kind, LoopFs, unmount_idle};
use vss_tests::scale::rounds;

/// What must happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// Does something with the file system of an image, mounted like this.
fn with_mounted(
    device: &Path,
    place: &Path,
    flags: MountFlags,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    fs::create_dir_all(place)?;
    let options = flags.contains(MountFlags::RDONLY).then_some(c"noload");
    mount(device, place, "ext4", flags, options)?;
    let done = work();
    unmount_idle(place)?;
    done
}

fn record_of(image: &Path) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_slice(&fs::read(format!("{}.vss-stream", name(image)?))?)?)
}

/// Two copies with some changes between them, and their streams in files.
struct Pair {
    copied: Copied,
    first: String,
    second: String,
    full: Vec<u8>,
    incremental: Vec<u8>,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let copied = Copied::new()?;
        copied.fill("old", 12)?;
        let first = copied.copy()?;
        copied.fill("new", 3)?;
        fs::remove_file(copied.volume.path().join("old-0"))?;
        let second = copied.copy()?;
        let streams = [copied.place("full"), copied.place("incremental")];
        copied.done(&["export", &first, "-o", name(&streams[0])?])?;
        copied.done(&["export", &second, "--since", &first, "-o", name(&streams[1])?])?;
        let [full, incremental] = [fs::read(&streams[0])?, fs::read(&streams[1])?];
        Ok(Self { copied, first, second, full, incremental })
    }

    /// An image of the first copy, with its record.
    fn base(&self, label: &str) -> anyhow::Result<std::path::PathBuf> {
        let image = self.copied.place(label);
        self.copied.done(&["import", name(&self.copied.place("full"))?, "--to", name(&image)?])?;
        Ok(image)
    }

    fn is_second(&self, image: &Path) -> anyhow::Result<()> {
        are_equal(image, &self.copied.image(&self.second))
    }
}

#[test]
fn a_stream_that_was_exported_outlasts_a_power_cut() -> anyhow::Result<()> {
    if LoopFs::skips("a_stream_that_was_exported_outlasts_a_power_cut", &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let copied = Copied::new()?;
    copied.fill("file", 2)?;
    let copy = copied.copy()?;
    let shelf = LoopFs::new(Kind::Xfs, 320)?;
    copied.done(&["export", &copy, "-o", name(&shelf.path().join("stream"))?])?;
    let there = after_power_cut("xfs", shelf.image(), &copied.place("cut"), |top| fs::read(top.join("stream")));
    ensure!(there? == fs::read(shelf.path().join("stream"))?, "another stream");
    Ok(())
}

#[test]
fn an_export_to_a_file_that_is_stopped_leaves_nothing() -> anyhow::Result<()> {
    if LoopFs::skips("an_export_to_a_file_that_is_stopped_leaves_nothing", &[Kind::Ext4]) {
        return Ok(());
    }
    let copied = Copied::new()?;
    copied.fill("old", 12)?;
    let id = copied.copy()?;
    let (stream, part) = (copied.place("stream"), copied.place("stream.part"));
    for _ in 0..50 {
        let export = copied.instance.start_vss(["export", &id, "-o", name(&stream)?])?;
        ensure!(wait_until(LIMIT, || part.exists() || stream.exists()), "nothing is exported");
        // It may be over.
        let _ = export.signal(Signal::INT);
        let outcome = export.finish()?;
        ensure!(!part.exists(), "a part is left: {outcome:?}");
        if !outcome.is_success() {
            ensure!(outcome.code == Some(1) && outcome.stderr.contains("E_ABORT"), "{outcome:?}");
            ensure!(!stream.exists(), "a torn stream has the name of a whole one");
            return Ok(());
        }
        fs::remove_file(&stream)?;
    }
    bail!("every export was over before it could be stopped")
}

#[test]
fn streams_make_images_that_equal_the_copies_and_mount() -> anyhow::Result<()> {
    if LoopFs::skips("streams_make_images_that_equal_the_copies_and_mount", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let (copied, first, second) = (&pair.copied, &pair.first, &pair.second);
    let stream = copied.place("full");
    ensure!(fs::metadata(&stream)?.permissions().mode() & 0o777 == 0o600, "everybody reads the stream");
    ensure!(pair.full.len() < 20 << 20, "zeroes travel: {} bytes", pair.full.len());
    ensure!(pair.incremental.len() < pair.full.len() / 2, "{} of {}", pair.incremental.len(), pair.full.len());
    copied.fails(&["export", first, "-o", name(&stream)?], &["VSS_E_OBJECT_ALREADY_EXISTS"])?;

    let checked = copied.done(&["import", name(&stream)?, "--verify-only"])?;
    ensure!(checked.contains(first.as_str()) && checked.contains("BLAKE3"), "{checked}");
    let image = pair.base("image")?;
    are_equal(&image, &copied.image(first))?;
    ensure!(record_of(&image)?["shadow_id"] == **first && record_of(&image)?["state"] == "holds");
    let blocks = || -> anyhow::Result<u64> { Ok(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image)?) * 512) };
    ensure!(blocks()? < 20 << 20, "the image is not sparse: {} bytes", blocks()?);

    let said = copied.done(&["import", name(&copied.place("incremental"))?, "--to", name(&image)?])?;
    ensure!(said.contains("imported") && said.contains(&format!("{second} since {first}")), "{said}");
    pair.is_second(&image)?;
    let again = copied.done(&["import", name(&copied.place("incremental"))?, "--to", name(&image)?])?;
    ensure!(again.contains("held already; nothing was written"), "{again}");
    pair.is_second(&image)?;

    let device =
        LoopDevice::attach(&image, AttachOptions { autoclear: true, read_only: true, ..AttachOptions::default() })?;
    with_mounted(device.path(), &copied.place("look"), MountFlags::RDONLY, || {
        let look = copied.place("look");
        ensure!(!look.join("old-0").exists());
        for file in ["old-11", "new-0", "new-2"] {
            are_equal(&look.join(file), &copied.volume.path().join(file))?;
        }
        // An image that a loop device shows is somebody's.
        copied.fails(&["import", name(&stream)?, "--to", name(&image)?], &["VSS_E_VOLUME_IN_USE", "/dev/loop"])
    })
}

#[test]
fn a_stream_goes_through_a_pipe_and_what_changed_is_told() -> anyhow::Result<()> {
    if LoopFs::skips("a_stream_goes_through_a_pipe_and_what_changed_is_told", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let (copied, first, second) = (&pair.copied, &pair.first, &pair.second);
    let image = pair.base("image")?;
    let mut export = copied.instance.command("vss");
    export.args(copied.instance.arguments()).args(["export", second, "--since", first]);
    let mut export = export.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipe = export.stdout.take().context("a pipe")?;
    let imported = copied.import_command(&["--to", name(&image)?]).stdin(pipe).output()?;
    ensure!(export.wait()?.success() && imported.status.success(), "{imported:?}");
    pair.is_second(&image)?;

    // The named order does not matter, and the older one is found.
    let told = copied.vss(&["diff", first, second, "--blocks", "--json"])?.json()?;
    ensure!(told == copied.vss(&["diff", second, "--blocks", "--json"])?.json()?);
    ensure!(told["since_shadow_id"] == **first && told["shadow_id"] == **second && told["known"] == true, "{told}");
    let (old, new) = (fs::read(copied.image(first))?, fs::read(copied.image(second))?);
    let differs = |block: usize| old[block * 4096..][..4096] != new[block * 4096..][..4096];
    let mut listed = vec![false; old.len() / 4096];
    for extent in told["extents"].as_array().context("extents")? {
        let number = |key: &str| extent[key].as_u64().and_then(|value| usize::try_from(value).ok()).context("a number");
        let (offset, length) = (number("offset")?, number("length")?);
        listed[offset / 4096..(offset + length) / 4096].fill(true);
    }
    ensure!((0..listed.len()).all(|block| listed[block] == differs(block)));
    let sum = listed.iter().filter(|is_listed| **is_listed).count() * 4096;
    ensure!(told["changed_bytes"] == sum, "{told}");
    let text = copied.done(&["diff", second, "--blocks"])?;
    ensure!(text.contains("Changed: ") && text.contains("\nOFFSET\tLENGTH\n"), "{text}");
    copied.fails(&["diff", first, "--blocks"], &["VSS_E_OBJECT_NOT_FOUND", "no older"])?;
    copied.fails(&["diff", first, first, "--blocks"], &["E_INVALIDARG"])
}

#[test]
fn an_incremental_stream_is_refused_on_anything_but_its_base() -> anyhow::Result<()> {
    if LoopFs::skips("an_incremental_stream_is_refused_on_anything_but_its_base", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let copied = &pair.copied;
    let stream = copied.place("incremental");
    let stream = name(&stream)?;
    let missing = copied.place("missing");
    copied.fails(&["import", stream, "--to", name(&missing)?], &["E_INVALIDARG", "no record"])?;
    ensure!(!missing.exists(), "a file was made");

    let stranger = copied.place("stranger");
    fs::copy(copied.image(&pair.first), &stranger)?;
    copied.fails(&["import", stream, "--to", name(&stranger)?], &["E_INVALIDARG", "no record"])?;
    are_equal(&stranger, &copied.image(&pair.first))?;
    let full = copied.place("full");
    copied.fails(&["import", name(&full)?, "--to", name(&stranger)?], &["E_INVALIDARG", "--overwrite"])?;
    copied.done(&["import", name(&full)?, "--to", name(&stranger)?, "--overwrite"])?;

    copied.fill("third", 1)?;
    let third = copied.copy()?;
    let later = copied.place("later");
    copied.done(&["export", &third, "--since", &pair.second, "-o", name(&later)?])?;
    let image = pair.base("image")?;
    copied.fails(&["import", name(&later)?, "--to", name(&image)?], &["E_INVALIDARG", &pair.first, &pair.second])?;
    are_equal(&image, &copied.image(&pair.first))?;

    // Somebody wrote to it.
    let as_imported = fs::metadata(&image)?.modified()?;
    let change = |at: u64| -> anyhow::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&image)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        Ok(file.write_all_at(&[!byte[0]], at)?)
    };
    change(1024 + 0x78)?;
    copied.fails(&["import", stream, "--to", name(&image)?], &["E_INVALIDARG", "written to since"])?;
    // And hides it: the volume's name is in the superblock, which every mount changes.
    let set_modified = |time: SystemTime| File::open(&image)?.set_times(FileTimes::new().set_modified(time));
    set_modified(as_imported)?;
    copied.fails(&["import", stream, "--to", name(&image)?], &["E_INVALIDARG", "At 0 it is not"])?;
    ensure!(record_of(&image)?["state"] == "applying");
    change(1024 + 0x78)?;
    copied.done(&["import", stream, "--to", name(&image)?])?;
    pair.is_second(&image)
}

#[test]
fn a_torn_or_damaged_stream_is_found_and_the_whole_one_mends_it() -> anyhow::Result<()> {
    if LoopFs::skips("a_torn_or_damaged_stream_is_found_and_the_whole_one_mends_it", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let copied = &pair.copied;
    let image = pair.base("image")?;
    let broken = copied.place("broken");
    let length = pair.incremental.len();
    for cut in [0, 7, 100, 159, 300, length / 2, length - 1] {
        fs::write(&broken, &pair.incremental[..cut])?;
        copied
            .fails(&["import", name(&broken)?, "--to", name(&image)?], &["E_INVALIDARG", &format!("at byte {cut}")])?;
    }
    let mut flipped = pair.incremental.clone();
    flipped[length / 2] ^= 1;
    fs::write(&broken, &flipped)?;
    copied.fails(&["import", name(&broken)?, "--to", name(&image)?], &["E_INVALIDARG", "checksum"])?;
    copied.fails(&["import", name(&broken)?, "--verify-only"], &["E_INVALIDARG", "checksum"])?;
    fs::write(&broken, "something else altogether")?;
    copied.fails(&["import", name(&broken)?, "--to", name(&image)?], &["E_INVALIDARG", "no stream"])?;
    are_equal(&image, &copied.image(&pair.first))?;
    ensure!(record_of(&image)?["state"] == "holds", "a torn file was begun to be applied");

    // A pipe cannot be read twice: what came before the end is applied, and the record says so.
    let (code, said) = copied.import_from_pipe(&pair.incremental[..length - 1], &["--to", name(&image)?])?;
    ensure!(code == Some(1) && said.contains("half way") && said.contains("cut off"), "{said}");
    ensure!(record_of(&image)?["state"] == "applying");
    let full = copied.place("full");
    let later = copied.place("later");
    copied.fill("third", 1)?;
    let third = copied.copy()?;
    copied.done(&["export", &third, "--since", &pair.second, "-o", name(&later)?])?;
    copied.fails(&["import", name(&later)?, "--to", name(&image)?], &["E_INVALIDARG", "broken off"])?;
    let (code, said) = copied.import_from_pipe(&pair.incremental, &["--to", name(&image)?])?;
    ensure!(code == Some(0), "{said}");
    pair.is_second(&image)?;
    copied.done(&["import", name(&later)?, "--to", name(&image)?])?;
    are_equal(&image, &copied.image(&third))?;
    // A full one always does.
    copied.import_from_pipe(&pair.incremental[..200], &["--to", name(&image)?])?;
    copied.done(&["import", name(&full)?, "--to", name(&image)?])?;
    are_equal(&image, &copied.image(&pair.first))
}

#[test]
fn an_import_that_is_killed_anywhere_is_ended_by_the_same_import() -> anyhow::Result<()> {
    if LoopFs::skips("an_import_that_is_killed_anywhere_is_ended_by_the_same_import", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let copied = &pair.copied;
    let mut state = u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos()) | 1;
    println!("seed {state}");
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % end.max(1) as u64).unwrap_or_default()
    };
    let mut half = 0;
    for round in 0..rounds(10, 200) {
        let is_full = round % 3 == 2;
        let image = pair.base("image")?;
        let stream = if is_full { &pair.full } else { &pair.incremental };
        let fed = below(stream.len());
        let mut child = copied
            .import_command(&["--to", name(&image)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut input = child.stdin.take().context("a pipe")?;
        input.write_all(&stream[..fed])?;
        std::thread::sleep(std::time::Duration::from_micros(below(3000) as u64));
        child.kill()?;
        child.wait()?;
        drop(input);
        half += u32::from(record_of(&image)?["state"] == "applying");
        let (code, said) = copied.import_from_pipe(stream, &["--to", name(&image)?])?;
        ensure!(code == Some(0), "round {round}, killed after {fed} bytes: {said}");
        let wanted = if is_full { &pair.first } else { &pair.second };
        are_equal(&image, &copied.image(wanted)).with_context(|| format!("round {round}, killed after {fed} bytes"))?;
        ensure!(record_of(&image)?["state"] == "holds");
    }
    println!("{half} of the imports were killed half way");
    ensure!(half > 0, "no import was killed half way");
    Ok(())
}

#[test]
fn a_device_is_taken_only_when_nobody_uses_it() -> anyhow::Result<()> {
    if LoopFs::skips("a_device_is_taken_only_when_nobody_uses_it", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let copied = &pair.copied;
    let disk = copied.place("disk");
    File::create(&disk)?.set_len(64 << 20)?;
    let device = LoopDevice::attach(&disk, AttachOptions { autoclear: true, ..AttachOptions::default() })?;
    let (path, record) = (name(device.path())?, copied.place("record"));
    let (full, incremental) = (copied.place("full"), copied.place("incremental"));
    let (full, incremental, record) = (name(&full)?, name(&incremental)?, name(&record)?);
    copied.fails(&["import", full, "--to", path], &["E_INVALIDARG", "--record"])?;
    copied.fails(&["import", full, "--to", path, "--record", record], &["E_INVALIDARG", "--overwrite"])?;
    copied.done(&["import", full, "--to", path, "--record", record, "--overwrite"])?;
    let begins_with = |id: &str| -> anyhow::Result<()> {
        let wanted = fs::read(copied.image(id))?;
        let mut found = vec![0; wanted.len()];
        File::open(device.path())?.read_exact(&mut found)?;
        ensure!(found == wanted, "the device is not {id}");
        Ok(())
    };
    begins_with(&pair.first)?;
    let place = copied.place("look");
    with_mounted(device.path(), &place, MountFlags::empty(), || {
        copied.fails(
            &["import", incremental, "--to", path, "--record", record],
            &["VSS_E_VOLUME_IN_USE", &format!("mounted at {}", place.display())],
        )
    })?;
    // It was mounted writable: that is in the superblock.
    copied.fails(&["import", incremental, "--to", path, "--record", record], &["E_INVALIDARG", "At 0 it is not"])?;
    copied.done(&["import", full, "--to", path, "--record", record])?;
    copied.done(&["import", incremental, "--to", path, "--record", record])?;
    begins_with(&pair.second)?;
    with_mounted(device.path(), &place, MountFlags::empty(), || {
        are_equal(&place.join("new-2"), &copied.volume.path().join("new-2"))
    })?;

    // One block too small.
    let small = copied.place("small");
    File::create(&small)?.set_len((48 << 20) - 4096)?;
    let small = LoopDevice::attach(&small, AttachOptions { autoclear: true, ..AttachOptions::default() })?;
    let record = copied.place("small-record");
    let words = ["import", full, "--to", name(small.path())?, "--record", name(&record)?, "--overwrite"];
    copied.fails(&words, &["E_INVALIDARG", "50331648"])?;
    ensure!(!record.exists());
    Ok(())
}

#[test]
fn an_image_passes_the_file_systems_own_checker() -> anyhow::Result<()> {
    if LoopFs::skips("an_image_passes_the_file_systems_own_checker", &[Kind::Ext4]) {
        return Ok(());
    }
    let pair = Pair::new()?;
    let image = pair.base("image")?;
    pair.copied.done(&["import", name(&pair.copied.place("incremental"))?, "--to", name(&image)?])?;
    let checked = Command::new("e2fsck").args(["-fn", name(&image)?]).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}
