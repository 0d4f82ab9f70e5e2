//! Varlink clients that are none of ours list interfaces and shadow copies: the Python package `varlink`. (`varlinkctl` is tested
//! where systemd is new enough to have it: in a virtual machine, `vm/systemd.rs`.)

use std::path::PathBuf;
use std::process::{Command, Stdio};

use vss_tests::instance::Instance;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::turn::creation_turn;
use vss_tests::volume::Volume;
use vss_tests::{traces, varlink};

/// An interpreter that has the package: the one that `cargo xtask test` has made, or the machine's own.
fn interpreter() -> Option<PathBuf> {
    let named = std::env::var_os("VARLINK_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let imported = Command::new(&python).args(["-c", "import varlink"]).stderr(Stdio::null()).status();
    imported.is_ok_and(|status| status.success()).then_some(python)
}

#[test]
fn the_python_client_lists_interfaces_and_shadow_copies() -> anyhow::Result<()> {
    let name = "the_python_client_lists_interfaces_and_shadow_copies";
    if LoopFs::skips(name, &[Kind::Btrfs]) {
        return Ok(());
    }
    let Some(python) = interpreter() else {
        println!("SKIPPED: {name}: the Python package varlink is not installed");
        return Ok(());
    };
    let (mut instance, volume) = (Instance::new()?, Volume::new()?);
    instance.start()?;
    let turn = creation_turn();
    let set = instance.vss(["create", "--json", volume.name()])?.json()?;
    drop(turn);
    let seen = varlink::python_sees(Command::new(python), &instance.requester_socket())?;
    varlink::check(&seen, &set)?;
    let deleted = instance.vss(["delete", "--all"])?;
    anyhow::ensure!(deleted.is_success(), "{deleted:?}");
    instance.stop()?;
    traces::has_no_shadows(&instance)?;
    volume.is_clean()
}
