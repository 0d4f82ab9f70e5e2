//! The tables in their file.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use vss_model::{VssCode, VssError};

/// The format that this release reads and writes.
const FORMAT_VERSION: u64 = 1;

/// Of entries in JSON, by the bytes of an id.
type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const SETS: Table = TableDefinition::new("sets");
pub(super) const PENDING: Table = TableDefinition::new("pending");
pub(super) const CLASSES: TableDefinition<&[u8], u32> = TableDefinition::new("classes");
pub(super) const EXPOSURES: Table = TableDefinition::new("exposures");
pub(super) const REVERTS: Table = TableDefinition::new("reverts");

/// The file, open. Each call is one transaction.
#[derive(Debug)]
pub(super) struct Tables {
    database: Database,
}

impl Tables {
    /// Opens the file, making one with empty tables where there is none. One of another format is left as it is.
    pub(super) fn open(path: &Path) -> Result<Self, VssError> {
        let database = Database::create(path).map_err(|error| {
            VssError::new(VssCode::Unexpected, format!("Cannot open the catalogue {}: {error}", path.display()))
                .with_hint("Is another vssd running with the same --state-dir?")
        })?;
        let tables = Self { database };
        // First of all, and alone: the tables of another format may be of other types.
        let found = tables.read(|transaction| match transaction.open_table(META) {
            Ok(meta) => Ok(meta.get("format_version")?.map(|version| version.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        if let Some(other) = found.filter(|found| *found != FORMAT_VERSION) {
            return Err(VssError::new(
                VssCode::Unexpected,
                format!("The catalogue {} has format {other}, this release reads {FORMAT_VERSION}", path.display()),
            )
            .with_hint("Use the release of vssd that wrote it, or a newer one"));
        }
        tables.write(|transaction| {
            transaction.open_table(META)?.insert("format_version", FORMAT_VERSION)?;
            for table in [SETS, PENDING, EXPOSURES, REVERTS] {
                transaction.open_table(table)?;
            }
            transaction.open_table(CLASSES)?;
            Ok(())
        })?;
        Ok(tables)
    }

    /// Every entry of the table.
    pub(super) fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, VssError> {
        let values = self.read(|transaction| {
            let mut values = Vec::new();
            for row in transaction.open_table(table)?.iter()? {
                values.push(row?.1.value().to_vec());
            }
            Ok(values)
        })?;
        values.iter().map(|value| decode(value)).collect()
    }

    /// One entry.
    pub(super) fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, VssError> {
        let value =
            self.read(|transaction| Ok(transaction.open_table(table)?.get(key)?.map(|value| value.value().to_vec())))?;
        value.map(|value| decode(&value)).transpose()
    }

    /// Makes or replaces one entry.
    pub(super) fn put(&self, table: Table, key: &[u8], value: &impl Serialize) -> Result<(), VssError> {
        let value = encode(value)?;
        self.write(|transaction| {
            transaction.open_table(table)?.insert(key, value.as_slice()).map(drop).map_err(Into::into)
        })
    }

    /// Takes one entry away, if it is there.
    pub(super) fn remove(&self, table: Table, key: &[u8]) -> Result<(), VssError> {
        self.write(|transaction| transaction.open_table(table)?.remove(key).map(drop).map_err(Into::into))
    }

    /// Reads in one transaction.
    pub(super) fn read<T>(
        &self,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, VssError> {
        let run = || body(&self.database.begin_read()?);
        run().map_err(|error: redb::Error| {
            VssError::new(VssCode::Unexpected, format!("Cannot read the catalogue: {error}"))
        })
    }

    /// Changes in one transaction, which is on disk when this returns.
    pub(super) fn write<T>(
        &self,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, VssError> {
        let run = || {
            let transaction = self.database.begin_write()?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|error: redb::Error| {
            VssError::new(VssCode::Unexpected, format!("Cannot write the catalogue: {error}"))
                .with_hint("Is the file system of the state directory full or read-only?")
        })
    }
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, VssError> {
    serde_json::from_slice(value).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("An entry of the catalogue cannot be read: {error}"))
    })
}

/// An entry as it is written.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, VssError> {
    serde_json::to_vec(value).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("Cannot encode an entry of the catalogue: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_its_number_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.redb");
        {
            let database = Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("format_version", FORMAT_VERSION + 1).unwrap();
            // What is a table of another type there must not be opened as ours.
            transaction.open_table(TableDefinition::<u64, &str>::new("sets")).unwrap().insert(1, "x").unwrap();
            transaction.commit().unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        let error = Tables::open(&path).unwrap_err();
        assert!(error.message.contains("has format 2, this release reads 1"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_read().unwrap();
        assert!(transaction.open_table(PENDING).is_err(), "something was made in it");
    }
}
