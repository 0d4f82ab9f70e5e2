//! What a copy of the program's files shows: whether they are of one instant.

use crate::demo::files::workload::{DATABASE, FIRST, LAST};
use anyhow::{Context, Result};
use rusqlite::Connection;
use std::fs;
use std::path::Path;

/// The numbers in a copy of the program's files.
#[derive(Debug)]
pub(super) struct Image {
    first: u64,
    database: Result<u64, String>,
    last: u64,
}

impl Image {
    /// Reads a copy. Its database is opened for writing, as its program would after a restore, so that SQLite recovers it.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        Ok(Self {
            first: number(&directory.join(FIRST))?,
            database: newest_row(&directory.join(DATABASE)).map_err(|error| format!("{error:#}")),
            last: number(&directory.join(LAST))?,
        })
    }

    /// True when all three can be of one instant.
    pub(super) fn holds(&self) -> bool {
        matches!(self.database, Ok(database) if self.last <= database && database <= self.first && self.first <= self.last + 1)
    }

    /// The same for people, with the numbers.
    pub(super) fn verdict(&self) -> String {
        let Self { first, database, last } = self;
        let verdict = if self.holds() { "held" } else { "BROKEN" };
        let database = database.as_ref().map_or_else(Clone::clone, u64::to_string);
        format!("{verdict}: first file {first}, database {database}, last file {last}")
    }
}

fn number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim_end().parse().with_context(|| format!("{} does not hold a number", path.display()))
}

/// The newest row of a database that is whole: SQLite finds no damage, and no row is missing.
fn newest_row(path: &Path) -> Result<u64> {
    anyhow::ensure!(path.is_file(), "missing");
    let database = Connection::open(path)?;
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    anyhow::ensure!(verdict == "ok", "damaged ({})", verdict.lines().next().unwrap_or_default());
    let (rows, newest): (i64, i64) =
        database
            .query_row("SELECT count(*), coalesce(max(n), 0) FROM step", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    anyhow::ensure!(rows == newest, "incomplete ({rows} rows, the newest is {newest})");
    Ok(u64::try_from(newest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_instant_can_show_holds() {
        let holds = |first, database, last| Image { first, database: Ok(database), last }.holds();
        assert!(holds(8, 8, 8) && holds(8, 8, 7) && holds(8, 7, 7));
        assert!(!holds(8, 7, 8) && !holds(8, 9, 8) && !holds(9, 8, 7) && !holds(7, 7, 8));
        assert!(!Image { first: 8, database: Err("damaged".into()), last: 8 }.holds());
    }
}
