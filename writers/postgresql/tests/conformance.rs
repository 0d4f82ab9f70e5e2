//! The writer against the suite that every writer runs, with a real server.
//!
//! The suite calls the writer in this process, and a server lets in only the user that it runs as: so the test runs itself
//! again as that user.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vss_lab::postgresql::{Cluster, missing};
use vss_linux::child::become_user;
use vss_writer::conformance;
use vss_writer_postgresql::{PostgresqlWriter, Sources};

/// Names the directory of the server's socket to the second run.
const SOCKETS: &str = "VSS_TEST_SOCKETS";

/// Only the cluster of this test: others come and go.
fn sources(sockets: PathBuf) -> Sources {
    Sources { debian: "/nonexistent".into(), sockets: vec![sockets], processes: false }
}

#[test]
fn conforms() -> Result<()> {
    if let Some(sockets) = std::env::var_os(SOCKETS) {
        conformance::check(&mut PostgresqlWriter::new(sources(sockets.into()), None)?);
        return Ok(());
    }
    let skip = |why: &str| {
        println!("SKIPPED: conforms: {why}");
        Ok(())
    };
    if let Some(why) = missing() {
        return skip(&why);
    }
    if !rustix::process::geteuid().is_root() {
        return skip("needs root, to become another user");
    }
    let place = tempfile::TempDir::with_prefix_in("vss-pgc-", "/var/tmp")?;
    // The suite's made-up set has the volume at /.
    if fs::metadata(place.path())?.dev() != fs::metadata("/")?.dev() {
        return skip("/var/tmp is not on the file system of /");
    }
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    let mut cluster = Cluster::create(&place.path().join("data"), &[])?;
    cluster.start()?;
    let found = sources(cluster.socket_directory().to_path_buf()).clusters();
    let [found] = &*found else { anyhow::bail!("found {found:?}") };
    ensure!(found.data == cluster.data() && Some(found.pid) == cluster.pid() && found.port == cluster.port());
    ensure!(found.version >= 13 && found.socket_directory.as_deref() == Some(cluster.socket_directory()));

    // As Debian's tools keep it, it has a name.
    let debian = place.path().join("etc");
    fs::create_dir_all(debian.join("15/shop"))?;
    let setting = format!("data_directory = '{}'  # use data in another directory\n", cluster.data().display());
    fs::write(debian.join("15/shop/postgresql.conf"), setting)?;
    let named = Sources { debian, sockets: Vec::new(), processes: false }.clusters();
    ensure!(named.len() == 1 && named[0].name == "15/shop" && named[0].pid == found.pid, "{named:?}");
    // And without any file outside its data directory, by its process.
    let seen = Sources { debian: "/nonexistent".into(), sockets: Vec::new(), processes: true }.clusters();
    ensure!(seen.iter().any(|it| it == found), "{seen:?}");

    // By the descriptor: the user may not be able to reach our own directory.
    let mut command = Command::new("/proc/self/fd/0");
    command.stdin(File::open("/proc/self/exe")?).arg0("conformance").args(["--exact", "conforms", "--nocapture"]);
    command.env(SOCKETS, cluster.socket_directory()).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    become_user(&mut command, found.uid, found.gid, vec![found.gid]);
    let output = command.output().context("cannot run the test again")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    ensure!(Path::new(&found.data).join("postmaster.pid").exists());
    Ok(())
}
