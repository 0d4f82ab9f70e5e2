//! `vss writer simulate`: the command stays a writer until a signal ends it, and prints what it was told.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use vss_linux::process::Signal;
use vss_tests::instance::{Instance, Running, wait_until};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::turn::creation_turn;

/// The service knows a writer, and a set is made, within this time.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn it_takes_part_in_sets_until_a_signal_ends_it() -> anyhow::Result<()> {
    if LoopFs::skips("it_takes_part_in_sets_until_a_signal_ends_it", &[Kind::Btrfs]) {
        return Ok(());
    }
    let volume = LoopFs::new(Kind::Btrfs, 128)?;
    let mut instance = Instance::new()?;
    instance.start()?;
    let file = instance.path().join("shop.toml");
    let files = format!("path = \"{}\"\nrecursive = true\n", volume.path().display());
    fs::write(&file, format!("name = \"shop\"\n[[components]]\nname = \"orders\"\n[[components.files]]\n{files}"))?;
    let mut writer = instance.start_vss(["writer".as_ref(), "simulate".as_ref(), file.as_os_str()])?;
    wait_until(SOON, || writer.stdout().is_ok_and(|said| said.contains("registered")));
    for _ in 0..2 {
        let _turn = creation_turn();
        let set = instance.vss(["create".as_ref(), "--json".as_ref(), volume.path().as_os_str()])?.json()?;
        ensure!(set["shadows"][0]["consistency"] == "application", "{set}");
        ensure!(!writer.has_ended(), "it ended by itself: {}", writer.stderr()?);
    }
    let told = said_by(writer, Signal::TERM)?;
    let freezes = told.iter().filter(|line| line["kind"] == "freeze").count();
    ensure!(freezes == 2, "{told:?}");
    ensure!(instance.vss(["list", "writers", "--json"])?.json()?["writers"] == Value::Array(Vec::new()));
    instance.vss(["delete", "--all"])?;
    Ok(())
}

/// Ends the writer by a signal; the lines that it printed.
fn said_by(writer: Running, signal: Signal) -> anyhow::Result<Vec<Value>> {
    writer.signal(signal)?;
    let outcome = writer.finish()?;
    ensure!(outcome.is_success(), "{outcome:?}");
    outcome.stdout.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
