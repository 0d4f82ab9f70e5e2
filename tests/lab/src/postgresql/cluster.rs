//! One cluster: made, started, asked, stopped, killed, and taken away.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure};
use tempfile::TempDir;
use vss_linux::child::bind_to_parent;
use vss_linux::process::{PidFd, Signal};

use crate::account::Account;
use crate::postgresql::programs::Programs;
use crate::postgresql::session::Session;
use crate::process::{is_alive, output, wait_until, working_in};

/// The superuser that initdb makes; peer authentication lets in the account of the system with this name.
pub const SUPERUSER: &str = "postgres";
/// So long may a server take to begin, recovery included, and to end.
const LIMIT: Duration = Duration::from_secs(120);
/// Of the server's log, so much is told with an error.
const LOG_TAIL: usize = 4096;

/// How a server is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// At once, without a checkpoint; the next start recovers.
    Immediate,
}

/// A cluster of one's own. Dropping it ends its server and removes its directories, except those of an adopted one.
///
/// The server is a child of the *thread* that starts it, and is ended when that thread ends before it.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    data: PathBuf,
    /// Removed with the cluster.
    directories: Vec<PathBuf>,
    /// For the socket and the log: short, as the path of a socket has to be.
    run: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster in the directory `data`, which is made, with these lines of postgresql.conf.
    ///
    /// # Errors
    /// See [`crate::postgresql::missing`]; the directory exists, or is not open to the server's account.
    pub fn create(data: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::initialise(data, None, settings)
    }

    /// The same with the write-ahead log in a directory of its own, which is made.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub fn create_with_wal(data: &Path, wal: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::initialise(data, Some(wal), settings)
    }

    fn initialise(data: &Path, wal: Option<&Path>, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut cluster = Self::adopt(data)?;
        let mut command = cluster.programs.command("initdb");
        command.args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"]);
        command.args(["--auth-local=peer", "--auth-host=reject", "--username", SUPERUSER, "-D"]).arg(data);
        if let Some(wal) = wal {
            command.arg("--waldir").arg(wal);
        }
        for directory in std::iter::once(data).chain(wal) {
            cluster.programs.account.make_directory(directory)?;
            cluster.directories.push(directory.to_path_buf());
        }
        output(&mut command)?;
        cluster.configure(settings)?;
        Ok(cluster)
    }

    /// Takes a data directory as it is, for example one that was restored; it stays when the cluster is dropped.
    ///
    /// # Errors
    /// See [`crate::postgresql::missing`].
    pub fn adopt(data: &Path) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let run = TempDir::with_prefix_in("vss-pg-", "/tmp")?;
        programs.account.own(run.path(), 0o755)?;
        Ok(Self { programs, data: data.to_path_buf(), directories: Vec::new(), run, port: next_port(), server: None })
    }

    /// Makes a standby of this running cluster in the directory `data`, and its log in the directory `wal` if one is named;
    /// both are made. It streams from here when it is started.
    ///
    /// # Errors
    /// As [`Cluster::create`]; this one does not run.
    pub fn standby(&self, data: &Path, wal: Option<&Path>) -> anyhow::Result<Self> {
        let mut standby = Self::adopt(data)?;
        for directory in std::iter::once(data).chain(wal) {
            standby.programs.account.make_directory(directory)?;
            standby.directories.push(directory.to_path_buf());
        }
        let mut command = self.client("pg_basebackup");
        if let Some(wal) = wal {
            command.arg("--waldir").arg(wal);
        }
        command
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync", "-D"])
            .arg(data);
        output(&mut command)?;
        standby.configure(&[])?;
        Ok(standby)
    }

    /// Adds these lines and those of our own to postgresql.conf; of a repeated setting the last one counts.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.data.join("postgresql.conf"))?;
        for (name, value) in
            self.own_settings().iter().map(|(name, value)| (*name, value.as_str())).chain(settings.iter().copied())
        {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    /// What makes a server meet no other one.
    fn own_settings(&self) -> [(&'static str, String); 3] {
        [
            ("listen_addresses", String::new()),
            ("unix_socket_directories", self.run.path().to_string_lossy().into_owned()),
            ("port", self.port.to_string()),
        ]
    }

    /// Starts the server and waits until it takes sessions: for a standby, until it takes those that only read.
    ///
    /// # Errors
    /// It does not come up; the message has the end of its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_with(&[])
    }

    /// The same with settings that count for this run only.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(&mut self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "the server has been started already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(&self.data);
        for (name, value) in self.own_settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Immediate shutdown, should this process end without its usual way out.
        bind_to_parent(&mut command, Signal::QUIT);
        let server = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let pid = server.id();
        self.server = Some(server);
        let is_decided = wait_until(LIMIT, || !is_alive(pid) || self.takes_sessions());
        if is_decided && is_alive(pid) {
            return Ok(());
        }
        self.end(Signal::KILL)?;
        bail!("the server on {} does not come up:\n{}", self.data.display(), self.log_tail())
    }

    /// As the server says in its lock file: the number of its process and, in the eighth line, its state.
    fn takes_sessions(&self) -> bool {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.trim().parse().ok());
        pid.is_some() && pid == self.pid() && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby"))
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of the socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        self.run.path()
    }

    /// The number in the name of the socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id).filter(|pid| is_alive(*pid))
    }

    /// What the server has logged: in the directory of the socket.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.run.path().join("log")
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }

    /// The account of the system under which the server runs.
    pub(crate) fn account(&self) -> Account {
        self.programs.account
    }

    /// A client program of PostgreSQL that will connect to this cluster as its superuser.
    #[must_use]
    pub fn client(&self, name: &str) -> Command {
        let mut command = self.programs.command(name);
        command.arg("-h").arg(self.run.path()).args(["-p", &self.port.to_string(), "-U", SUPERUSER]);
        command.stdin(Stdio::null());
        command
    }

    /// Asks in a session of its own: rows by line, columns by `|`, without the last line end.
    ///
    /// # Errors
    /// What the server says.
    pub fn sql(&self, database: &str, text: &str) -> anyhow::Result<String> {
        let mut command = self.client("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text]);
        Ok(output(&mut command)?.trim_end_matches('\n').to_owned())
    }

    /// A session that stays.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn session(&self, database: &str) -> anyhow::Result<Session> {
        Session::open(self.client("psql"), database)
    }

    /// How many sessions there are whose application calls itself `name`.
    ///
    /// # Errors
    /// What the server says.
    pub fn sessions_named(&self, name: &str) -> anyhow::Result<u32> {
        let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        Ok(self.sql(SUPERUSER, &asked)?.parse()?)
    }

    /// Makes a tablespace in the directory `place`, which is made.
    ///
    /// # Errors
    /// As [`Cluster::create`]; what the server says.
    pub fn create_tablespace(&mut self, name: &str, place: &Path) -> anyhow::Result<()> {
        self.programs.account.make_directory(place)?;
        self.directories.push(place.to_path_buf());
        self.sql(SUPERUSER, &format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display()))?;
        Ok(())
    }

    /// From now on a transaction is acknowledged when every standby has it too, and shows it.
    ///
    /// # Errors
    /// What the server says.
    pub fn wait_for_standbys(&self) -> anyhow::Result<()> {
        for change in ["synchronous_standby_names = '*'", "synchronous_commit = remote_apply"] {
            self.sql(SUPERUSER, &format!("ALTER SYSTEM SET {change}"))?;
        }
        self.sql(SUPERUSER, "SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// Makes a standby a primary, and waits until it is.
    ///
    /// # Errors
    /// What the server says.
    pub fn promote(&self) -> anyhow::Result<()> {
        let done = self.sql(SUPERUSER, &format!("SELECT pg_promote(true, {})", LIMIT.as_secs()))?;
        ensure!(done == "t", "the standby is not promoted within {LIMIT:?}:\n{}", self.log_tail());
        Ok(())
    }

    /// Ends the server, if it runs, and waits until all of it is gone.
    ///
    /// # Errors
    /// It does not end in time: it is killed.
    pub fn stop(&mut self, how: Stop) -> anyhow::Result<()> {
        self.end(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })
    }

    /// Ends the postmaster with SIGKILL, if it runs, and waits until the processes that it has started are gone too.
    ///
    /// # Errors
    /// They do not end in time.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        // Also what a postmaster has left that did not end by us.
        let mut processes = working_in(&self.data);
        processes.push(server.id());
        let handle = PidFd::open(server.id())?;
        // Fails when it has ended already.
        let _ = handle.signal(signal);
        let are_gone = |limit| wait_until(limit, || !processes.iter().any(|pid| is_alive(*pid)));
        let in_time = are_gone(LIMIT);
        if !in_time {
            let _ = handle.signal(Signal::KILL);
        }
        ensure!(in_time || are_gone(LIMIT), "the server on {} cannot be killed", self.data.display());
        server.wait()?;
        ensure!(in_time, "the server on {} had to be killed:\n{}", self.data.display(), self.log_tail());
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::QUIT) {
            eprintln!("{error:#}");
        }
        for directory in &self.directories {
            // Gone already when the volume is.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// A number that no other cluster of this process has. Those of other processes have other directories for their sockets.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    54_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 1000
}
