//! The lock files of a running server: `postmaster.pid` in the data directory and `.s.PGSQL.PORT.lock` beside its socket.
//!
//! Both hold the same lines (PostgreSQL, `src/include/utils/pidfile.h`); the second lacks the last ones.

use crate::small_file;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a lock file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// The server's process.
    pub(crate) pid: u32,
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// Its port: part of its socket's name.
    pub(crate) port: u16,
    /// The directory of its first socket; none when it has no socket.
    pub(crate) socket_directory: Option<PathBuf>,
}

impl PidFile {
    /// Reads the file at `path`, and says who owns it.
    ///
    /// # Errors
    /// It is not there or cannot be read; `InvalidData` for one that no server in service has written.
    pub(crate) fn read(path: &Path) -> io::Result<(Self, u32)> {
        let (text, metadata) = small_file::read(path)?;
        let parsed = Self::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} names no running server", path.display()))
        })?;
        Ok((parsed, metadata.uid()))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|byte| *byte == b'\n');
        // Negative for a server of one user, which serves nobody.
        let pid = number(lines.next()?).filter(|pid| *pid > 0)?;
        let data = path(lines.next()?)?;
        let port = number(lines.nth(1)?)?;
        let socket_directory = lines.next().and_then(path);
        Some(Self { pid, data, port, socket_directory })
    }
}

fn number<N: std::str::FromStr>(line: &[u8]) -> Option<N> {
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// A line that is a path, in any encoding; none for an empty one.
fn path(line: &[u8]) -> Option<PathBuf> {
    (!line.is_empty()).then(|| OsString::from_vec(line.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_write() {
        let text =
            b"4711\n/var/lib/postgresql/15/main\n1700000000\n5433\n/run/postgresql\nlocalhost\n  123  4\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!((file.pid, file.port), (4711, 5433));
        assert_eq!(file.data, Path::new("/var/lib/postgresql/15/main"));
        assert_eq!(file.socket_directory.as_deref(), Some(Path::new("/run/postgresql")));
    }

    #[test]
    fn a_server_without_a_socket_has_none() {
        let file = PidFile::parse(b"1\n/d\n1\n5432\n\n127.0.0.1\n").unwrap();
        assert_eq!(file.socket_directory, None);
    }

    #[test]
    fn refuses_what_is_no_lock_of_a_server_in_service() {
        for text in ["", "x\n/d\n1\n5432\n/r\n", "-12\n/d\n1\n5432\n/r\n", "12\n\n1\n5432\n", "12\n/d\n1\n99999\n"] {
            assert_eq!(PidFile::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
