//! One running cluster: its server, its name, and the directories that hold its files.

use crate::pid_file::PidFile;
use crate::small_file;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Names of the server's program; the second is an old link to the first.
const PROGRAMS: [&str; 2] = ["postgres", "postmaster"];
/// Oldest major version whose files look as we know them: 10 brought the name `pg_wal`.
const OLDEST: u32 = 10;

/// A running PostgreSQL server and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name for people and as a component: Debian's `15/main`, else the path of its data directory.
    pub name: String,
    /// Its data directory, free of symbolic links.
    pub data: PathBuf,
    /// The process of the server.
    pub pid: u32,
    /// The port in its socket's name.
    pub port: u16,
    /// The directory of its socket; none when it has no socket.
    pub socket_directory: Option<PathBuf>,
    /// Its major version: 15.
    pub version: u32,
    /// The user that owns it.
    pub uid: u32,
    /// The group that its server runs as: the kernel tells another process of the user little if its group differs.
    pub gid: u32,
}

/// What a directory of a cluster is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// The data directory.
    Data,
    /// The write-ahead log, where `pg_wal` is a link to somewhere else.
    Wal,
    /// A tablespace, by its oid.
    Tablespace(u32),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.write_str("data directory"),
            Self::Wal => f.write_str("pg_wal"),
            Self::Tablespace(oid) => write!(f, "tablespace {oid}"),
        }
    }
}

/// A directory with files of a cluster; what lies below it belongs to the cluster too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// What it is for.
    pub(crate) role: Role,
    /// Where it is, free of symbolic links.
    pub(crate) path: PathBuf,
}

impl Cluster {
    /// The cluster with this data directory, if its server is running.
    ///
    /// Everything that it says of itself is checked against the process, since anybody can write such files.
    pub(crate) fn running_at(data: &Path, name: Option<&str>) -> Option<Self> {
        let data = fs::canonicalize(data).ok()?;
        let (file, owner) = PidFile::read(&data.join("postmaster.pid")).ok()?;
        let directory = fs::metadata(&data).ok()?;
        let process = fs::metadata(format!("/proc/{}", file.pid)).ok()?;
        // PostgreSQL never runs as root.
        let is_its_own = owner == directory.uid() && owner == process.uid() && owner != 0;
        if !is_its_own || !is_server(file.pid) {
            return None;
        }
        let (version, _) = small_file::read(&data.join("PG_VERSION")).ok()?;
        let version = str::from_utf8(&version).ok()?.trim().parse().ok()?;
        let socket_directory = file.socket_directory.map(|directory| data.join(directory));
        Some(Self {
            // A component's name has no backslash.
            name: name.map_or_else(|| data.to_string_lossy().replace('\\', "/"), str::to_owned),
            pid: file.pid,
            port: file.port,
            socket_directory,
            version,
            uid: directory.uid(),
            gid: process.gid(),
            data,
        })
        .filter(|cluster| cluster.version >= OLDEST)
    }

    /// The directories that hold its files, the data directory first.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn places(&self) -> io::Result<Vec<Place>> {
        let mut places = vec![Place { role: Role::Data, path: self.data.clone() }];
        let wal = self.wal_directory();
        if wal.is_symlink() {
            places.push(Place { role: Role::Wal, path: fs::canonicalize(wal)? });
        }
        for entry in fs::read_dir(self.data.join("pg_tblspc"))? {
            let entry = entry?;
            // Those that are no links lie in the data directory (allow_in_place_tablespaces).
            let oid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(oid) = oid.filter(|_| entry.path().is_symlink()) {
                places.push(Place { role: Role::Tablespace(oid), path: fs::canonicalize(entry.path())? });
            }
        }
        places[1..].sort_by(|one, other| one.path.cmp(&other.path));
        Ok(places)
    }

    /// Where the server looks for its write-ahead log; may be a link.
    pub(crate) fn wal_directory(&self) -> PathBuf {
        self.data.join("pg_wal")
    }
}

/// True when the process is a PostgreSQL server.
pub(crate) fn is_server(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| PROGRAMS.contains(&name.trim_end()))
}
