//! A cluster does what its methods say, with a real server.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tempfile::TempDir;
use vss_lab::postgresql::{Cluster, Stop, missing};

/// A directory that the server's account can reach.
fn place() -> anyhow::Result<TempDir> {
    let place = TempDir::with_prefix_in("vss-lab-", "/var/tmp")?;
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    Ok(place)
}

#[test]
fn a_cluster_lives_dies_and_recovers() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        println!("SKIPPED: a_cluster_lives_dies_and_recovers: {why}");
        return Ok(());
    }
    let place = place()?;
    let (data, wal, other) = (place.path().join("data"), place.path().join("wal"), place.path().join("other"));
    let mut cluster = Cluster::create_with_wal(&data, &wal, &[("max_connections", "20")])?;
    ensure!(cluster.sql("postgres", "SELECT 1").is_err(), "it answers before it runs");
    cluster.start()?;
    ensure!(cluster.sql("postgres", "SHOW max_connections")? == "20");
    ensure!(fs::read_link(data.join("pg_wal"))? == wal && fs::read_dir(&wal)?.count() > 0);
    cluster.create_tablespace("other", &other)?;
    cluster.sql("postgres", "CREATE TABLE t (n int) TABLESPACE other; INSERT INTO t VALUES (1), (2)")?;
    let refused = cluster.sql("postgres", "SELECT n FROM u").unwrap_err().to_string();
    ensure!(refused.contains("\"u\" does not exist"), "{refused}");

    let mut session = cluster.session("postgres")?;
    session.ask("SET application_name = 'stays'")?;
    let asked = "SELECT count(*), sum(n) FROM t, pg_stat_activity WHERE application_name = 'stays'";
    ensure!(session.ask(asked)? == "2|3");
    ensure!(session.ask("SELECT n FROM u").is_err() && session.ask("SELECT 1").is_err(), "a refusal ends it");

    let pid = cluster.pid();
    ensure!(pid.is_some() && cluster.start().is_err(), "it starts twice");
    cluster.kill()?;
    ensure!(cluster.pid().is_none() && data.join("postmaster.pid").exists());
    cluster.start()?;
    ensure!(cluster.pid() != pid && cluster.sql("postgres", "SELECT sum(n) FROM t")? == "3");
    cluster.stop(Stop::Immediate)?;
    cluster.start()?;
    cluster.stop(Stop::Fast)?;
    ensure!(!data.join("postmaster.pid").exists());

    fs::write(data.join("PG_VERSION"), "1\n")?;
    let refused = cluster.start().unwrap_err().to_string();
    ensure!(refused.contains("database files are incompatible"), "the log is not told: {refused}");
    let socket_directory = cluster.socket_directory().to_path_buf();
    drop(cluster);
    ensure!(!data.exists() && !wal.exists() && !other.exists() && !socket_directory.exists());
    Ok(())
}

#[test]
fn a_standby_follows_and_takes_over() -> anyhow::Result<()> {
    if let Some(why) = missing() {
        println!("SKIPPED: a_standby_follows_and_takes_over: {why}");
        return Ok(());
    }
    let place = place()?;
    let mut primary = Cluster::create(&place.path().join("primary"), &[])?;
    primary.start()?;
    let mut standby = primary.standby(&place.path().join("standby"), None)?;
    standby.start()?;
    ensure!(standby.sql("postgres", "SELECT pg_is_in_recovery()")? == "t");
    primary.sql("postgres", "CREATE TABLE t AS SELECT 7 AS n")?;
    let began = Instant::now();
    while standby.sql("postgres", "SELECT n FROM t").is_err() {
        ensure!(began.elapsed() < Duration::from_secs(30), "it does not follow");
    }
    drop(primary);
    standby.promote()?;
    standby.sql("postgres", "UPDATE t SET n = n + 1")?;
    ensure!(standby.sql("postgres", "SELECT n FROM t")? == "8");
    Ok(())
}
