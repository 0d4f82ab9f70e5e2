//! Commands that a program hands to a disk's driver past the block layer: what they write cannot be marked, so it is counted,
//! and nothing that was marked is trusted any more.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use vss_linux::fiemap;
use vss_tests::instance::wait_until;
use vss_tests::loopfs::Kind;
use vss_tests::mirror::{Scene, Storage, Volume};
use vss_tests::tracing::{self, BLOCK, Direct, Traced};
use vss_tests::turn::creation_turn;
use vss_trace::{Counters, Distrust};

use super::{NVME_DISK, run};
use crate::is_elsewhere;

/// One of a disk with nothing on it.
const SOME_BLOCK: u64 = 100;

/// Writes a block of 4 KiB, or reads one, so many times, and says so after the first: NVME_IOCTL_IO_CMD (linux/nvme_ioctl.h) on
/// an NVMe disk, SG_IO (scsi/sg.h) with WRITE(10) or READ(10) on any other.
const COMMAND: &str = r#"
use strict;
$| = 1;
my ($device, $verb, $block, $fill, $times) = @ARGV;
my ($data, $sector, $sectors) = (chr($fill) x 4096, $block * 8, 8);
open(my $disk, "+<", $device) or die "$device: $!";
for my $time (1 .. $times) {
    if ($device =~ /nvme/) {
        my $command = pack("C2 S L3 Q P L2 L6 L2", {write => 1, read => 2}->{$verb}, 0, 0, 1, 0, 0, 0, $data, 0, 4096,
            $sector & 0xffffffff, $sector >> 32, $sectors - 1, 0, 0, 0, 0, 0);
        my $status = ioctl($disk, 0xC0484E43, $command) // die "NVME_IOCTL_IO_CMD: $!";
        die "status $status" if $status != 0;
    } else {
        my ($opcode, $direction) = @{{write => [0x2A, -2], read => [0x28, -3]}->{$verb}};
        my ($command, $sense) = (pack("C2 N C n C", $opcode, 0, $sector, 0, $sectors, 0), "\0" x 32);
        my $head = pack("l2 C2 S L P P P L2 l x4 Q C4 S2 l L2 x4", ord("S"), $direction, 10, 32, 0, 4096, $data, $command,
            $sense, 5000, (0) x 12);
        ioctl($disk, 0x2285, $head) // die "SG_IO: $!";
        my ($status, $host, $driver) = unpack("x64 C x3 S2", $head);
        die "status $status, host $host, driver $driver" if $status || $host || $driver;
    }
    print "$verb\n" if $time == 1;
    select(undef, undef, undef, 0.05) if $times > 1;
}
"#;

fn command(device: &Path, verb: &str, block: u64, fill: u8, times: u32) -> Command {
    let mut command = Command::new("perl");
    command.args(["-e", COMMAND]).arg(device).arg(verb);
    command.args([block.to_string(), fill.to_string(), times.to_string()]);
    command
}

/// Writes that go on until this is dropped.
struct Writes(Child);

impl Writes {
    fn start(device: &Path, block: u64, fill: u8) -> anyhow::Result<Self> {
        let mut writes = Self(command(device, "write", block, fill, u32::MAX).stdout(Stdio::piped()).spawn()?);
        let mut said = String::new();
        BufReader::new(writes.0.stdout.take().context("stdout was asked for")?).read_line(&mut said)?;
        ensure!(said == "write\n", "{said:?}");
        Ok(writes)
    }

    fn go_on(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A SCSI disk in memory, gone when it is dropped.
struct ScsiDisk;

impl ScsiDisk {
    const NODE: &str = "/dev/sda";

    fn new() -> anyhow::Result<Self> {
        run("modprobe", &["sd_mod"])?;
        run("modprobe", &["scsi_debug", "dev_size_mb=16"])?;
        let disk = Self;
        let is_there = wait_until(Duration::from_secs(20), || Path::new(Self::NODE).exists());
        ensure!(is_there, "there is no {}", Self::NODE);
        run("udevadm", &["settle"])?;
        Ok(disk)
    }
}

impl Drop for ScsiDisk {
    fn drop(&mut self) {
        let _ = run("modprobe", &["-r", "scsi_debug"]);
    }
}

#[test]
fn scsi_commands_of_a_program_are_counted() -> anyhow::Result<()> {
    let test = "scsi_commands_of_a_program_are_counted";
    if is_elsewhere(test, "lane") || tracing::skips(test, &[]) || tracing::lacks(test, "perl") {
        return Ok(());
    }
    let _disk = ScsiDisk::new()?;
    let node = Path::new(ScsiDisk::NODE);
    let traced = Traced::new(node)?;
    tracing::run(&mut command(node, "read", SOME_BLOCK, 0, 1))?;
    let counters = traced.tracer().counters();
    ensure!(counters.distrust(&Counters::default()).is_none(), "reading is a reason for distrust: {counters:?}");
    tracing::run(&mut command(node, "write", SOME_BLOCK, 0x5a, 1))?;
    let content = Direct::open(node)?.read()?;
    ensure!(content[SOME_BLOCK as usize * BLOCK..][..BLOCK] == [0x5a; BLOCK], "it was not written");
    // Nothing else knows of it.
    ensure!(traced.taken().is_empty());
    let counters = traced.tracer().counters();
    let distrust = counters.distrust(&Counters::default());
    ensure!(distrust == Some(Distrust::Passthrough(2)), "{counters:?}");
    Ok(())
}

/// Why the next copy compares everything.
fn reason(scene: &Scene) -> anyhow::Result<Option<String>> {
    let kept: Value = scene.instance.vss(["storage", "list", "--json"])?.json()?;
    Ok(kept["storage"][0]["full_compare"].as_str().map(str::to_owned))
}

#[test]
fn a_mirror_is_compared_after_an_nvme_command_of_a_program() -> anyhow::Result<()> {
    let test = "a_mirror_is_compared_after_an_nvme_command_of_a_program";
    let kinds = [Kind::Ext4, Kind::Xfs];
    if is_elsewhere(test, "lane") || tracing::skips(test, &kinds) || tracing::lacks(test, "perl") {
        return Ok(());
    }
    let node = Path::new(NVME_DISK);
    let mut scene = Scene::new(Volume::on(Kind::Ext4, node)?, Storage::Other(Kind::Xfs))?;
    let file = scene.volume().path().join("file");
    fs::write(&file, vec![0x11; 8 << 20])?;
    let pieces = fiemap::pieces(fs::File::open(&file)?)?;
    let block = pieces[0].physical.as_ref().context("a place")?.start.div_ceil(BLOCK as u64) + 1;
    ensure!(scene.judged()?.wrong.is_empty());
    ensure!(reason(&scene)?.is_none(), "{:?}", reason(&scene));

    // A block that nothing marks. Only by comparing it comes into the image.
    tracing::run(&mut command(node, "write", block, 0x22, 1))?;
    ensure!(fs::read(&file)?.iter().all(|byte| *byte == 0x11), "it went through the page cache");
    let why = reason(&scene)?.context("the mirror is trusted all the same")?;
    ensure!(why.contains("NVMe passthrough"), "{why}");
    ensure!(scene.judged()?.wrong.is_empty(), "the block is not in the image");
    ensure!(reason(&scene)?.is_none(), "{:?}", reason(&scene));

    // While a copy is made: it is refused, and the next one is right again.
    let mut writes = Writes::start(node, block, 0x33)?;
    let turn = creation_turn();
    let refused = scene.instance.vss(scene.create())?;
    drop(turn);
    ensure!(writes.go_on()?, "the program has ended");
    drop(writes);
    let is_clear = ["NVMe passthrough", "everything is compared"].iter().all(|words| refused.stderr.contains(words));
    ensure!(refused.code == Some(1) && is_clear, "{refused:?}");
    ensure!(scene.judged()?.wrong.is_empty());
    scene.end()
}
