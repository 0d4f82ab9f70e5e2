//! The judgement of a copy: it finds what is broken, and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::ensure;
use tempfile::TempDir;
use vss_lab::postgresql::load::{self, DATABASE, Load};
use vss_lab::postgresql::verify::{Restored, judge};
use vss_lab::postgresql::{Cluster, Stop, copies, missing};

fn place() -> anyhow::Result<TempDir> {
    let place = TempDir::with_prefix_in("vss-lab-", "/var/tmp")?;
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    Ok(place)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

#[test]
fn a_copy_is_judged_by_what_is_in_it() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        println!("SKIPPED: a_copy_is_judged_by_what_is_in_it: {why}");
        return Ok(());
    }
    let place = place()?;
    let at = |name: &str| place.path().join(name);
    let mut cluster = Cluster::create_with_wal(&at("data"), &at("wal"), &load::SETTINGS)?;
    cluster.start()?;
    cluster.create_tablespace("other", &at("other"))?;
    load::prepare(&cluster, 1, Some("other"))?;
    let mut load = Load::start(&cluster, 2)?;
    load.pause()?;
    load.resume()?;
    let log = load.finish()?;
    let acknowledged = log.acknowledged_before(SystemTime::now());
    ensure!(acknowledged > 0 && acknowledged == log.all().len());
    cluster.stop(Stop::Fast)?;

    // Everything of a stopped cluster is a good copy, with the lock of a live one in the way.
    for name in ["data", "wal", "other"] {
        copy(&at(name), &at(&format!("{name}-copy")))?;
    }
    let data = at("data-copy");
    fs::write(data.join("postmaster.pid"), format!("{}\n/nowhere\n", std::process::id()))?;
    let moved = [(at("wal"), at("wal-copy")), (at("other"), at("other-copy"))];
    let restored = Restored { data: &data, moved: &moved, remove_lock: true };
    let error = judge(&Restored { moved: &moved[..1], ..restored }, 1).unwrap_err().to_string();
    ensure!(error.contains("other"), "a link into the original stays: {error}");
    let verdict = judge(&restored, 1)?;
    ensure!(verdict.holds() && verdict.has_all(acknowledged) && !verdict.has_all(acknowledged + 1), "{verdict:?}");
    ensure!(verdict.to_string().starts_with("held"), "{verdict}");

    // What the judgement says of one lost row in each table; and of an index that knows less than its table.
    let mut second = Cluster::adopt(&data)?;
    for (damage, word) in [
        ("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 1", "accounts"),
        ("DELETE FROM pgbench_accounts WHERE aid = 2", "99999 accounts by heap"),
    ] {
        second.start()?;
        second.sql(DATABASE, damage)?;
        second.stop(Stop::Fast)?;
        let verdict = judge(&restored, 1)?;
        ensure!(!verdict.holds() && verdict.to_string().contains(word), "{damage}: {verdict}");
    }
    second.start()?;
    let index = second.sql(DATABASE, "SELECT pg_relation_filepath('pgbench_accounts_pkey')")?;
    second.stop(Stop::Fast)?;
    fs::OpenOptions::new().write(true).open(data.join(index))?.set_len(16 * 8192)?;
    let verdict = judge(&restored, 1)?;
    ensure!(verdict.faults.iter().any(|fault| fault.contains("pg_amcheck")), "amcheck is content: {verdict}");
    fs::remove_file(data.join("global/pg_control"))?;
    let verdict = judge(&restored, 1)?;
    ensure!(verdict.to_string().contains("does not start"), "{verdict}");
    Ok(())
}

#[test]
fn a_copy_slower_than_the_checkpoints_is_broken_and_does_not_say_so() -> anyhow::Result<()> {
    const NAME: &str = "a_copy_slower_than_the_checkpoints_is_broken_and_does_not_say_so";
    if let Some(why) = missing() {
        println!("SKIPPED: {NAME}: {why}");
        return Ok(());
    }
    let place = place()?;
    let mut cluster = Cluster::create(&place.path().join("data"), &load::SETTINGS)?;
    cluster.start()?;
    load::prepare(&cluster, 2, None)?;
    let load = Load::start(&cluster, 8)?;
    let target = place.path().join("copy");
    let took = copies::slowed(&cluster, &target)?;
    load.finish()?;
    let verdict = judge(&Restored { data: &target, moved: &[], remove_lock: true }, 2)?;
    println!("copied in {:.1} s, {verdict}", took.as_secs_f64());
    ensure!(!verdict.holds(), "{verdict}");
    Ok(())
}
