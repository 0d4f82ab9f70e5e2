//! Finding running clusters: by Debian's layout, by the locks of their sockets, and by their processes.
//!
//! Each source names data directories only; what is there is decided by [`Cluster::running_at`].

use crate::cluster::{Cluster, is_server};
use crate::pid_file::PidFile;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most clusters of one machine that are looked at.
const MOST: usize = 256;

/// Where clusters are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Debian's `VERSION/NAME/postgresql.conf` lie here.
    pub debian: PathBuf,
    /// Directories of sockets.
    pub sockets: Vec<PathBuf>,
    /// True: also look at every process.
    pub processes: bool,
}

impl Default for Sources {
    /// Debian's and PostgreSQL's own places, and every process.
    fn default() -> Self {
        let sockets = ["/run/postgresql", "/tmp"].map(PathBuf::from).to_vec();
        Self { debian: PathBuf::from("/etc/postgresql"), sockets, processes: true }
    }
}

/// A user that owns running clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The user's id.
    pub uid: u32,
    /// The group that one of the servers runs as.
    pub gid: u32,
}

impl Sources {
    /// Every running cluster that can be seen, by data directory: root sees all, others their own.
    #[must_use]
    pub fn clusters(&self) -> Vec<Cluster> {
        self.clusters_where(|_| true)
    }

    /// The running clusters of one user. What others say of theirs is not even read, where it can be told whose it is.
    #[must_use]
    pub fn clusters_of(&self, uid: u32) -> Vec<Cluster> {
        self.clusters_where(|owner| owner == uid)
    }

    fn clusters_where(&self, is_wanted: impl Fn(u32) -> bool) -> Vec<Cluster> {
        let mut clusters: BTreeMap<PathBuf, Cluster> = BTreeMap::new();
        // Debian's first: they bring names.
        let debian = self.debian_clusters().into_iter().map(|(data, name)| (data, Some(name)));
        let others = self.by_socket(&is_wanted).into_iter().chain(self.by_process(&is_wanted)).map(|data| (data, None));
        for (data, name) in debian.chain(others) {
            if clusters.len() < MOST
                && let Some(cluster) = Cluster::running_at(&data, name.as_deref())
                && is_wanted(cluster.uid)
            {
                clusters.entry(cluster.data.clone()).or_insert(cluster);
            }
        }
        clusters.into_values().collect()
    }

    /// The users that own running clusters, each once.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        let owners = self.clusters().into_iter().map(|cluster| (cluster.uid, cluster.gid));
        owners.collect::<BTreeMap<_, _>>().into_iter().map(|(uid, gid)| Owner { uid, gid }).collect()
    }

    /// Data directory and name of each cluster that Debian's tools know.
    fn debian_clusters(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for version in entries(&self.debian) {
            for cluster in entries(&version) {
                let (Some(number), Some(name)) = (file_name(&version), file_name(&cluster)) else { continue };
                let configured = fs::read_to_string(cluster.join("postgresql.conf")).ok();
                if let Some(data) = configured.as_deref().and_then(data_directory) {
                    found.push((data, format!("{number}/{name}")));
                }
            }
        }
        found
    }

    /// The data directories that the locks of sockets name.
    fn by_socket(&self, is_wanted: &impl Fn(u32) -> bool) -> Vec<PathBuf> {
        let locks = self.sockets.iter().flat_map(|directory| entries(directory)).filter(|path| {
            file_name(path).is_some_and(|name| name.starts_with(".s.PGSQL.") && name.ends_with(".lock"))
        });
        locks
            .filter_map(|lock| PidFile::read(&lock).ok())
            .filter(|(_, owner)| is_wanted(*owner))
            .map(|(file, _)| file.data)
            .collect()
    }

    /// The working directories of servers: a server works in its data directory.
    fn by_process(&self, is_wanted: &impl Fn(u32) -> bool) -> Vec<PathBuf> {
        if !self.processes {
            return Vec::new();
        }
        let pids = entries(Path::new("/proc")).into_iter().filter_map(|path| file_name(&path)?.parse().ok());
        let owned = |pid: u32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| is_wanted(process.uid()));
        pids.filter(|pid: &u32| owned(*pid) && is_server(*pid))
            .filter_map(|pid| {
                let data = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
                // The server's children work there too, and a container's server somewhere else.
                let (file, _) = PidFile::read(&data.join("postmaster.pid")).ok()?;
                (file.pid == pid).then_some(data)
            })
            .collect()
    }
}

/// What is in a directory; nothing for one that cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The value of `data_directory` in the text of a postgresql.conf: the last one counts.
fn data_directory(text: &str) -> Option<PathBuf> {
    text.lines().rev().find_map(|line| {
        let value = line.trim_start().strip_prefix("data_directory")?.trim_start();
        let value = value.strip_prefix('=').unwrap_or(value).trim_start();
        // A quote is doubled inside quotes; what follows the closing one is a comment.
        let quoted = value.strip_prefix('\'')?;
        let mut path = String::new();
        let mut characters = quoted.chars().peekable();
        while let Some(character) = characters.next() {
            if character == '\'' && characters.next_if_eq(&'\'').is_none() {
                return Some(PathBuf::from(path));
            }
            path.push(character);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_read_as_the_server_reads_it() {
        let read = |text| data_directory(text).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(read("data_directory = '/a b'\t\t# use data in\n").as_deref(), Some("/a b"));
        assert_eq!(read("data_directory='/one'\n  data_directory '/two'\n").as_deref(), Some("/two"));
        assert_eq!(read("data_directory = '/it''s'\n").as_deref(), Some("/it's"));
        assert_eq!(read("#data_directory = 'ConfigDir'\n"), None);
        assert_eq!(read("data_directory = 'open\n"), None);
    }

    #[test]
    fn files_that_name_no_running_server_are_no_clusters() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        // A process that lives, but is no server.
        let lock = format!("{}\n{}\n1\n5432\n/run\n\n\n", std::process::id(), data.display());
        fs::write(data.join("postmaster.pid"), &lock).unwrap();
        fs::write(place.path().join(".s.PGSQL.5432.lock"), lock).unwrap();
        let sources =
            Sources { debian: place.path().join("none"), sockets: vec![place.path().to_path_buf()], processes: false };
        assert_eq!(sources.by_socket(&|_| true), [data]);
        assert!(sources.by_socket(&|_| false).is_empty());
        assert!(sources.clusters().is_empty());
    }
}
