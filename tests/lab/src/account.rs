//! The account of the system under which a server runs: its numbers, and programs and directories in its name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use vss_linux::child::become_user;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account `name`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let table = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        find(&table, name).with_context(|| format!("this machine has no user {name}"))
    }

    /// A program that will run under the account, from the root directory: the caller's own may be closed to it.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGUSER").env_remove("PGDATA");
        become_user(&mut command, self.uid, self.gid, vec![self.gid]);
        command
    }

    /// Makes the directory, for the account alone.
    ///
    /// # Errors
    /// It exists, or the account could not reach it.
    pub(crate) fn make_directory(self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        self.own(directory, 0o700)?;
        let parents = directory.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        for parent in parents {
            let mode = fs::metadata(parent)?.permissions().mode();
            ensure!(mode & 0o001 != 0, "{} is closed to other users", parent.display());
        }
        Ok(())
    }

    /// Gives the file or directory to the account, with these permissions.
    pub(crate) fn own(self, path: &Path, mode: u32) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))?;
        Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
    }
}

fn find(table: &str, name: &str) -> Option<Account> {
    let fields = table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
    Some(Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let table = "other:x:0:0:other:/:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104::/:/bin/bash\n";
        assert_eq!(find(table, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(find(table, "postgre"), None);
    }
}
