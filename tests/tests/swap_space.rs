//! Swap space on a volume that is held: a file of the volume itself goes on being used, because the kernel writes to its
//! blocks below the file system; one behind a loop device on the volume would wait, and is refused before any freeze.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use vss_linux::{freeze, swaps};
use vss_tests::instance::{Instance, wait_until};
use vss_tests::loopfs::{Kind, LoopFs, thaw_timer};
use vss_tests::traces;
use vss_tests::turn::{CreationTurn, creation_turn};

/// Sizes of the swap file and of what is swapped out.
const SWAP: usize = 32 << 20;
const SWAPPED: u64 = 8 << 20;

/// A swap file in use. Dropping it ends that.
struct SwapFile(PathBuf);

impl SwapFile {
    /// Why there is none, as the kernel says it.
    fn new(directory: &Path) -> anyhow::Result<Result<Self, String>> {
        let path = directory.join("swapfile");
        fs::write(&path, vec![0; SWAP])?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        File::open(&path)?.sync_all()?;
        ensure!(Command::new("mkswap").arg(&path).stdout(Stdio::null()).status()?.success(), "mkswap failed");
        // Before any other swap space of the machine.
        let used = Command::new("swapon").args(["--priority", "32767"]).arg(&path).output()?;
        Ok(if used.status.success() { Ok(Self(path)) } else { Err(String::from_utf8_lossy(&used.stderr).into_owned()) })
    }

    /// Bytes of it that hold something.
    fn used(&self) -> anyhow::Result<u64> {
        let area = swaps::swaps()?.into_iter().find(|area| area.path == self.0).context("not in /proc/swaps")?;
        ensure!(area.is_file, "{area:?}");
        Ok(area.used)
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).status();
    }
}

/// Asks the kernel to swap out 8 MiB of a new process (MADV_PAGEOUT), which then reads it again and says whether it is whole.
fn swap_out_and_in() -> anyhow::Result<std::process::Child> {
    const SCRIPT: &str = "import mmap, sys
pages = mmap.mmap(-1, 8 << 20)
pages.write(bytes(range(256)) * (32 << 10))
pages.madvise(21)
print('out', flush=True)
sys.stdin.readline()
sys.exit(pages[:] != bytes(range(256)) * (32 << 10))";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null());
    Ok(command.spawn()?)
}

/// The kernel would swap to the other test's file. The turn to create sets is as good as one of our own, and taken anyway.
fn swap_turn() -> CreationTurn {
    creation_turn()
}

/// Requests that a loop device has not finished.
fn in_flight(device: &Path) -> anyhow::Result<u64> {
    let name = device.file_name().context("a device has a name")?;
    let text = fs::read_to_string(Path::new("/sys/block").join(name).join("inflight"))?;
    Ok(text.split_whitespace().filter_map(|number| number.parse::<u64>().ok()).sum())
}

fn with_fake() -> anyhow::Result<Instance> {
    let mut instance = Instance::new()?;
    let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold"});
    instance.set("VSS_FAKE", fake.to_string());
    Ok(instance)
}

#[test]
fn a_swap_file_is_used_while_its_volume_is_held() -> anyhow::Result<()> {
    let test = "a_swap_file_is_used_while_its_volume_is_held";
    if LoopFs::skips(test, &[Kind::Ext4, Kind::Xfs]) {
        return Ok(());
    }
    let _turn = swap_turn();
    for (kind, size) in [(Kind::Ext4, 96), (Kind::Xfs, 320)] {
        let volume = LoopFs::new(kind, size)?;
        let swap = match SwapFile::new(volume.path())? {
            Ok(swap) => swap,
            Err(why) => {
                println!("SKIPPED: {test}: the kernel does not swap here: {}", why.trim_end());
                return Ok(());
            }
        };
        let before = swap.used()?;
        let _timer = thaw_timer(volume.open()?, Duration::from_secs(30));
        freeze::freeze(volume.open()?)?;
        let mut process = swap_out_and_in()?;
        let is_out = wait_until(Duration::from_secs(10), || swap.used().is_ok_and(|used| used >= before + SWAPPED / 2));
        let used = swap.used()?;
        let is_written =
            wait_until(Duration::from_secs(5), || in_flight(volume.device()).is_ok_and(|count| count == 0));
        drop(process.stdin.take());
        let is_whole = process.wait()?.success();
        let was_frozen = volume.is_frozen();
        freeze::thaw(volume.open()?)?;
        println!("{kind:?} frozen: {} KiB of swap in use before, {} KiB then", before >> 10, used >> 10);
        ensure!(is_out && is_written && is_whole && was_frozen, "{is_out} {is_written} {is_whole} {was_frozen}");

        let instance = with_fake()?;
        let set = instance.vss(["create".as_ref(), "--json".as_ref(), volume.path().as_os_str()])?.json()?;
        ensure!(set["atomic"] == true, "{set}");
        ensure!(instance.vss(["delete", "--all"])?.is_success());
    }
    Ok(())
}

#[test]
fn swap_space_in_a_file_on_a_held_volume_is_refused_because_it_would_wait() -> anyhow::Result<()> {
    let test = "swap_space_in_a_file_on_a_held_volume_is_refused_because_it_would_wait";
    if LoopFs::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    let _turn = swap_turn();
    let outer = LoopFs::new(Kind::Ext4, 192)?;
    {
        let inner = LoopFs::new_in(outer.path(), Kind::Ext4, 96)?;
        let swap = match SwapFile::new(inner.path())? {
            Ok(swap) => swap,
            Err(why) => {
                println!("SKIPPED: {test}: the kernel does not swap here: {}", why.trim_end());
                return Ok(());
            }
        };
        let instance = with_fake()?;
        let words = |command: &'static str| [command.as_ref(), "--json".as_ref(), outer.path().as_os_str()];
        let checked = instance.vss(words("check"))?;
        let refused = instance.vss(words("create"))?;
        let said = format!("Swap space {} lies in a file on {}", swap.0.display(), outer.path().display());
        ensure!(refused.code == Some(1) && refused.stderr.contains(&said), "{refused:?}");
        ensure!(
            refused.stderr.contains("VSS_E_NESTED_VOLUME_LIMIT") && refused.stderr.contains("swapoff"),
            "{refused:?}"
        );
        ensure!(checked.code == Some(1) && checked.stdout.contains(&said), "{checked:?}");
        ensure!(outer.start_write().finish(Duration::from_secs(1)).is_some(), "something was frozen");

        // Why: what is swapped out stays on its way as long as the outer volume is frozen.
        freeze::sync(outer.open()?)?;
        let timer = thaw_timer(outer.open()?, Duration::from_secs(20));
        freeze::freeze(outer.open()?)?;
        let process = swap_out_and_in();
        let waits = wait_until(Duration::from_secs(5), || in_flight(inner.device()).is_ok_and(|count| count > 0));
        std::thread::sleep(Duration::from_secs(1));
        let still = in_flight(inner.device());
        freeze::thaw(outer.open()?)?;
        drop(timer);
        let mut process = process?;
        drop(process.stdin.take());
        ensure!(process.wait()?.success(), "what was swapped out is not whole");
        let still = still?;
        ensure!(waits && still > 0, "swapping out did not wait: {waits}, {still} requests");
        println!("{still} requests of swapping waited for the thaw");
    }
    Ok(())
}
