//! The catalogue: what outlives the service, in one redb file in the state directory.
//!
//! | table | key | value (JSON) |
//! |---|---|---|
//! | meta | `format_version` | number of the format, 1 |
//! | sets | set id | [`SetEntry`]: the record, what the providers need, the boot it was made in |
//! | pending | set id | [`PendingSet`]: what a creation that is under way may have left behind |
//! | classes | writer class id | the uid that the class belongs to |
//! | exposures | shadow id | the directory where a persistent copy is shown |
//!
//! The finished sets are also kept in memory, so that lists are answered without touching the disk: the state directory may
//! lie on a volume that is held. Every function that changes something is one transaction and returns when it is on
//! disk (redb's immediate durability), so a crash between two calls loses neither. A creation writes its pending entry before any provider makes anything, and `finish` turns it into
//! a set in one transaction; so at every start the pending entries name all leftovers there can be.

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vss_model::{Instant, SetId, ShadowCopySet, ShadowId, VssCode, VssError, WriterClassId};
use vss_provider::StoredCopy;

/// The format that this release reads and writes.
const FORMAT_VERSION: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SETS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sets");
const PENDING: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pending");
const CLASSES: TableDefinition<&[u8], u32> = TableDefinition::new("classes");
const EXPOSURES: TableDefinition<&[u8], &str> = TableDefinition::new("exposures");

/// One copy as the catalogue keeps it: which provider finds it, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCopy {
    /// The provider, by name.
    pub provider: String,
    /// The provider's own words.
    pub stored: StoredCopy,
}

/// A finished set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEntry {
    /// The record that people and programs see.
    pub set: ShadowCopySet,
    /// What the providers need to find the copies, one for each shadow copy that is left.
    pub copies: Vec<KeptCopy>,
    /// The boot that it was made in (`/proc/sys/kernel/random/boot_id`); copies "until reboot" end with it.
    pub boot_id: String,
}

impl SetEntry {
    /// The entry without one of its copies; none when it was the last.
    #[must_use]
    pub fn without(mut self, shadow_id: ShadowId) -> Option<Self> {
        self.copies.retain(|copy| copy.stored.shadow_id != shadow_id);
        self.set.shadows.retain(|shadow| shadow.id != shadow_id);
        (!self.copies.is_empty()).then_some(self)
    }
}

/// A creation that is under way, or whose undo is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSet {
    /// The set.
    pub set_id: SetId,
    /// What its providers may have made.
    pub copies: Vec<KeptCopy>,
    /// The uid that asked.
    pub owner: u32,
    /// Who asked.
    pub requester: String,
    /// When it began.
    pub started_at: Instant,
}

/// The catalogue, open.
#[derive(Debug)]
pub struct Catalogue {
    database: Database,
    sets: Mutex<BTreeMap<SetId, SetEntry>>,
}

impl Catalogue {
    /// Opens the catalogue in this state directory, making an empty one where there is none.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the file cannot be opened, is used by another service, or has a newer format.
    pub fn open(state_directory: &Path) -> Result<Self, VssError> {
        let path = state_directory.join("catalogue.redb");
        let database = Database::create(&path).map_err(|error| {
            VssError::new(VssCode::Unexpected, format!("Cannot open the catalogue {}: {error}", path.display()))
                .with_hint("Is another vssd running with the same --state-dir?")
        })?;
        let catalogue = Self { database, sets: Mutex::default() };
        let found = catalogue.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format_version")?.map(|version| version.value());
            if found.is_none() {
                meta.insert("format_version", FORMAT_VERSION)?;
            }
            transaction.open_table(SETS)?;
            transaction.open_table(PENDING)?;
            transaction.open_table(CLASSES)?;
            transaction.open_table(EXPOSURES)?;
            Ok(found)
        })?;
        match found {
            None | Some(FORMAT_VERSION) => {
                let sets: Vec<SetEntry> = catalogue.read_all(SETS)?;
                catalogue.kept().extend(sets.into_iter().map(|entry| (entry.set.set_id, entry)));
                Ok(catalogue)
            }
            Some(other) => Err(VssError::new(
                VssCode::Unexpected,
                format!("The catalogue {} has format {other}, this release reads {FORMAT_VERSION}", path.display()),
            )
            .with_hint("Use the release of vssd that wrote it, or a newer one")),
        }
    }

    /// Keeps what a creation may leave behind, before it makes anything.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn begin(&self, pending: &PendingSet) -> Result<(), VssError> {
        let value = encode(pending)?;
        self.write(|transaction| {
            transaction.open_table(PENDING)?.insert(pending.set_id.as_bytes().as_slice(), value.as_slice())?;
            Ok(())
        })
    }

    /// Turns a pending creation into a finished set.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn finish(&self, entry: &SetEntry) -> Result<(), VssError> {
        let value = encode(entry)?;
        let key = *entry.set.set_id.as_bytes();
        self.write(|transaction| {
            transaction.open_table(PENDING)?.remove(key.as_slice())?;
            transaction.open_table(SETS)?.insert(key.as_slice(), value.as_slice())?;
            Ok(())
        })?;
        self.kept().insert(entry.set.set_id, entry.clone());
        Ok(())
    }

    /// Forgets a pending creation: everything of it is undone. Forgetting it twice is no error.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn forget_pending(&self, set_id: SetId) -> Result<(), VssError> {
        self.write(|transaction| {
            transaction.open_table(PENDING)?.remove(set_id.as_bytes().as_slice())?;
            Ok(())
        })
    }

    /// Puts a changed set in place of the old one, or removes it when nothing is left of it.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn replace(&self, set_id: SetId, entry: Option<&SetEntry>) -> Result<(), VssError> {
        let value = entry.map(encode).transpose()?;
        self.write(|transaction| {
            let mut sets = transaction.open_table(SETS)?;
            match &value {
                Some(value) => sets.insert(set_id.as_bytes().as_slice(), value.as_slice())?,
                None => sets.remove(set_id.as_bytes().as_slice())?,
            };
            Ok(())
        })?;
        let mut kept = self.kept();
        match entry {
            Some(entry) => kept.insert(set_id, entry.clone()),
            None => kept.remove(&set_id),
        };
        Ok(())
    }

    /// Every finished set, newest first, from memory.
    #[must_use]
    pub fn sets(&self) -> Vec<SetEntry> {
        let mut sets: Vec<SetEntry> = self.kept().values().cloned().collect();
        sets.sort_by_key(|entry| std::cmp::Reverse(entry.set.created_at));
        sets
    }

    /// How many finished shadow copies there are, from memory.
    #[must_use]
    pub fn shadows(&self) -> u64 {
        self.kept().values().map(|entry| entry.copies.len() as u64).sum()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<SetId, SetEntry>> {
        // A panic elsewhere cannot leave the map half changed: every change is one call.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every creation that is under way or not wholly undone.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn pending(&self) -> Result<Vec<PendingSet>, VssError> {
        self.read_all(PENDING)
    }

    /// The uid that a writer class belongs to, after giving it to `uid` if it belongs to nobody.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read or written.
    pub fn bind_class(&self, class_id: WriterClassId, uid: u32) -> Result<u32, VssError> {
        let bound = self.read(|transaction| {
            Ok(transaction.open_table(CLASSES)?.get(class_id.as_bytes().as_slice())?.map(|uid| uid.value()))
        })?;
        if let Some(bound) = bound {
            return Ok(bound);
        }
        self.write(|transaction| {
            let mut classes = transaction.open_table(CLASSES)?;
            let bound = classes.get(class_id.as_bytes().as_slice())?.map(|uid| uid.value());
            if bound.is_none() {
                classes.insert(class_id.as_bytes().as_slice(), uid)?;
            }
            Ok(bound.unwrap_or(uid))
        })
    }

    /// The number of classes bound.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn bound_classes(&self) -> Result<u64, VssError> {
        self.read(|transaction| Ok(transaction.open_table(CLASSES)?.len()?))
    }

    /// Remembers (or forgets, with none) where a persistent copy is exposed.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn set_exposure(&self, shadow_id: ShadowId, path: Option<&Path>) -> Result<(), VssError> {
        let path = path
            .map(|path| {
                path.to_str().ok_or_else(|| {
                    VssError::new(VssCode::InvalidArgument, format!("{} is not valid UTF-8", path.display()))
                })
            })
            .transpose()?;
        self.write(|transaction| {
            let mut exposures = transaction.open_table(EXPOSURES)?;
            match path {
                Some(path) => exposures.insert(shadow_id.as_bytes().as_slice(), path)?,
                None => exposures.remove(shadow_id.as_bytes().as_slice())?,
            };
            Ok(())
        })
    }

    /// Where a copy is to be exposed at every start; none when nowhere.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn exposure(&self, shadow_id: ShadowId) -> Result<Option<PathBuf>, VssError> {
        self.read(|transaction| {
            let exposures = transaction.open_table(EXPOSURES)?;
            let path = exposures.get(shadow_id.as_bytes().as_slice())?.map(|path| PathBuf::from(path.value()));
            Ok(path)
        })
    }

    fn read_all<T: for<'de> Deserialize<'de>>(&self, table: TableDefinition<&[u8], &[u8]>) -> Result<Vec<T>, VssError> {
        let values = self.read(|transaction| {
            let mut values = Vec::new();
            for row in transaction.open_table(table)?.iter()? {
                values.push(row?.1.value().to_vec());
            }
            Ok(values)
        })?;
        values
            .iter()
            .map(|value| {
                serde_json::from_slice(value).map_err(|error| {
                    VssError::new(VssCode::Unexpected, format!("An entry of the catalogue cannot be read: {error}"))
                })
            })
            .collect()
    }

    fn read<T>(&self, body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, VssError> {
        let run = || body(&self.database.begin_read()?);
        run().map_err(|error: redb::Error| {
            VssError::new(VssCode::Unexpected, format!("Cannot read the catalogue: {error}"))
        })
    }

    fn write<T>(&self, body: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>) -> Result<T, VssError> {
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

fn encode(value: &impl Serialize) -> Result<Vec<u8>, VssError> {
    serde_json::to_vec(value).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("Cannot encode an entry of the catalogue: {error}"))
    })
}
