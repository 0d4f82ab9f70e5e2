//! What a person at a terminal sees of a set that is being made; a program that reads stderr sees nothing of it.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::json;
use vss_tests::instance::{Instance, Outcome, Running};
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::programs::program;
use vss_tests::traces::{self, BusyVolume};
use vss_tests::turn::creation_turn;
use vss_tests::writers::SocketWriter;
use vss_writer::fake::FakeWriter;

/// Runs `vss WORDS` on a terminal of its own (script(1)).
fn on_a_terminal(instance: &Instance, words: &[&str]) -> anyhow::Result<Outcome> {
    let line: Vec<OsString> = std::iter::once(program("vss").into())
        .chain(instance.arguments())
        .chain(words.iter().map(Into::into))
        .collect();
    let mut command = Command::new("script");
    command.arg("-qec").arg(line.join(" ".as_ref())).arg("/dev/null").stdin(Stdio::null());
    Running::start(command)?.finish()
}

#[test]
fn steps_writers_and_volumes_with_their_milliseconds() -> anyhow::Result<()> {
    let test = "steps_writers_and_volumes_with_their_milliseconds";
    if LoopFs::skips(test, &[Kind::Ext4]) {
        return Ok(());
    }
    if Command::new("script").arg("--version").output().is_err() {
        println!("SKIPPED: {test}: needs script(1)");
        return Ok(());
    }
    let volume = BusyVolume::new(Kind::Ext4, 32)?;
    let path = volume.path().to_str().context("a path in UTF-8")?;
    let mut instance = Instance::new()?;
    // Long enough to be named before it ends.
    let fake = json!({"store": traces::fake_store(&instance), "policy": "needs_hold", "hang": ["pre_commit", 600]});
    instance.set("VSS_FAKE", fake.to_string());
    instance.start()?;
    let _writer = SocketWriter::join(&instance, FakeWriter::new("shop", volume.path()))?;
    let _turn = creation_turn();
    let outcome = on_a_terminal(&instance, &["create", path])?;
    println!("{}", outcome.stdout);
    ensure!(outcome.is_success(), "{outcome:?}");
    let place = |what: &str| outcome.stdout.find(what).with_context(|| format!("no {what}: {}", outcome.stdout));
    let member = format!("{path}: held, freeze ");
    let order = [
        "  shop Freeze ",
        "  about to cut ...",
        "  pre_commit 6",
        "  hold ",
        "  release ",
        &member,
        "  shop Thaw ",
        "  record ",
        "  shop: frozen ",
        "Shadow copy set ",
    ];
    let places = order.iter().map(|what| place(what)).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(places.is_sorted(), "{places:?} of {order:?}: {}", outcome.stdout);
    // A failure is the last that is said.
    let failed = on_a_terminal(&instance, &["create", path, "--provider", "none"])?;
    ensure!(failed.stdout.trim_end().lines().last().is_some_and(|line| line.contains("VSS_E_")), "{failed:?}");

    let quiet = instance.vss(["create", path])?;
    ensure!(quiet.is_success() && quiet.stderr.is_empty(), "{quiet:?}");
    instance.vss(["delete", "--all"])?;
    traces::has_no_markers(&instance)
}
