//! The catalogue: what outlives the service, in one redb file in the state directory.
//!
//! | table | key | value (JSON) |
//! |---|---|---|
//! | meta | `format_version` | number of the format, 1 |
//! | sets | set id | [`SetEntry`]: the record, what the providers need, the boot it was made in |
//! | pending | set id | [`PendingSet`]: what a creation that is under way may have left behind |
//! | classes | writer class id | the uid that the class belongs to |
//! | exposures | shadow id | [`Exposure`]: the directory where a copy is shown |
//! | reverts | volume id | [`PendingRevert`]: a revert that has begun to write and is not ended |
//!
//! The documents of a set are files beside it ([`crate::documents`]); its entry lists them.
//!
//! The finished sets are also kept in memory, so that lists are answered without touching the disk: the state directory may
//! lie on a volume that is held. Every function that changes something is one transaction and returns when it is on
//! disk (redb's immediate durability), so a crash between two calls loses neither. A creation writes its pending entry
//! before any provider makes anything, and `finish` turns it into a set in one transaction; so at every start the pending
//! entries name all leftovers there can be.

use crate::documents::{Documents, KeptDocument};
use crate::exposure::Exposure;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vss_model::{Instant, SetId, ShadowCopySet, ShadowId, VolumeId, VssCode, VssError, WriterClassId};
use vss_provider::StoredCopy;

/// The format that this release reads and writes.
const FORMAT_VERSION: u64 = 1;

/// Writer classes that are remembered of one uid other than root, for ever: more than any service has.
const CLASSES_PER_UID: usize = 256;
/// Writer classes that are remembered in all.
const CLASSES_IN_ALL: u64 = 10_000;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SETS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sets");
const PENDING: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pending");
const CLASSES: TableDefinition<&[u8], u32> = TableDefinition::new("classes");
const EXPOSURES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("exposures");
const REVERTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("reverts");

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
    /// Its documents; none of a set of a release that kept none.
    #[serde(default)]
    pub documents: Vec<KeptDocument>,
}

impl SetEntry {
    /// The entry without one of its copies; none when it was the last.
    #[must_use]
    fn without(mut self, shadow_id: ShadowId) -> Option<Self> {
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

/// A revert that was begun and is not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRevert {
    /// The volume.
    pub volume_id: VolumeId,
    /// The copy that it is put back to.
    pub shadow_id: ShadowId,
    /// When it began.
    pub began_at: Instant,
}

/// The catalogue, open.
#[derive(Debug)]
pub struct Catalogue {
    database: Database,
    documents: Documents,
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
        let catalogue = Self { database, documents: Documents::new(state_directory), sets: Mutex::default() };
        // First of all, and alone: the tables of another format may be of other types.
        let found = catalogue.read(|transaction| match transaction.open_table(META) {
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
        catalogue.write(|transaction| {
            transaction.open_table(META)?.insert("format_version", FORMAT_VERSION)?;
            transaction.open_table(SETS)?;
            transaction.open_table(PENDING)?;
            transaction.open_table(CLASSES)?;
            transaction.open_table(EXPOSURES)?;
            transaction.open_table(REVERTS)?;
            Ok(())
        })?;
        let sets: Vec<SetEntry> = catalogue.read_all(SETS)?;
        catalogue.kept().extend(sets.into_iter().map(|entry| (entry.set.set_id, entry)));
        Ok(catalogue)
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

    /// Takes one copy out of its set, and the set away with its last copy. Of a copy that is not there, nothing.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn remove_copy(&self, shadow_id: ShadowId) -> Result<(), VssError> {
        let Some(entry) = self.set_of(shadow_id) else { return Ok(()) };
        let set_id = entry.set.set_id;
        let rest = entry.without(shadow_id);
        let value = rest.as_ref().map(encode).transpose()?;
        self.write(|transaction| {
            let mut sets = transaction.open_table(SETS)?;
            match &value {
                Some(value) => sets.insert(set_id.as_bytes().as_slice(), value.as_slice())?,
                None => sets.remove(set_id.as_bytes().as_slice())?,
            };
            Ok(())
        })?;
        match rest {
            Some(rest) => drop(self.kept().insert(set_id, rest)),
            None => {
                self.kept().remove(&set_id);
                self.documents.remove(set_id);
            }
        }
        Ok(())
    }

    /// Writes another machine into the record of one copy. Of a copy that is not there, nothing.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn set_service_machine(&self, shadow_id: ShadowId, machine: &str) -> Result<(), VssError> {
        let Some(mut entry) = self.set_of(shadow_id) else { return Ok(()) };
        for shadow in entry.set.shadows.iter_mut().filter(|shadow| shadow.id == shadow_id) {
            machine.clone_into(&mut shadow.service_machine);
        }
        self.finish(&entry)
    }

    /// The files of the sets' documents.
    #[must_use]
    pub const fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Every finished set, newest first, from memory.
    #[must_use]
    pub fn sets(&self) -> Vec<SetEntry> {
        let mut sets: Vec<SetEntry> = self.kept().values().cloned().collect();
        sets.sort_by_key(|entry| std::cmp::Reverse(entry.set.created_at));
        sets
    }

    /// One finished set, from memory.
    #[must_use]
    pub fn set(&self, set_id: SetId) -> Option<SetEntry> {
        self.kept().get(&set_id).cloned()
    }

    /// The finished set that holds this copy, from memory.
    #[must_use]
    pub fn set_of(&self, shadow_id: ShadowId) -> Option<SetEntry> {
        let kept = self.kept();
        kept.values().find(|entry| entry.copies.iter().any(|copy| copy.stored.shadow_id == shadow_id)).cloned()
    }

    /// How many finished copies this volume has, from memory.
    #[must_use]
    pub fn copies_of(&self, volume: &VolumeId) -> usize {
        let kept = self.kept();
        kept.values().flat_map(|entry| &entry.copies).filter(|copy| copy.stored.volume.id == *volume).count()
    }

    /// The finished sets that are deleted with their sessions, from memory.
    #[must_use]
    pub fn auto_release(&self) -> Vec<SetId> {
        let kept = self.kept();
        kept.values().filter(|entry| entry.set.context.is_auto_release()).map(|entry| entry.set.set_id).collect()
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
    /// `E_OUTOFMEMORY` for a new class of one that has as many as it may, or when there are too many in all;
    /// `VSS_E_UNEXPECTED` when it cannot be read or written.
    pub fn bind_class(&self, class_id: WriterClassId, uid: u32) -> Result<u32, VssError> {
        let bound = self.read(|transaction| {
            Ok(transaction.open_table(CLASSES)?.get(class_id.as_bytes().as_slice())?.map(|uid| uid.value()))
        })?;
        if let Some(bound) = bound {
            return Ok(bound);
        }
        let bound = self.write(|transaction| {
            let mut classes = transaction.open_table(CLASSES)?;
            let bound = classes.get(class_id.as_bytes().as_slice())?.map(|uid| uid.value());
            if bound.is_some() {
                return Ok(bound);
            }
            let mut of_uid = 0;
            for row in classes.iter()? {
                of_uid += usize::from(row?.1.value() == uid);
            }
            if classes.len()? >= CLASSES_IN_ALL || (uid != 0 && of_uid >= CLASSES_PER_UID) {
                return Ok(None);
            }
            classes.insert(class_id.as_bytes().as_slice(), uid)?;
            Ok(Some(uid))
        })?;
        bound.ok_or_else(|| {
            VssError::new(VssCode::OutOfMemory, format!("Uid {uid} cannot register another class of writers"))
                .with_hint("Bind the class to the uid in [writers.classes] of vss.toml")
        })
    }

    /// Remembers (or forgets, with none) where a copy is exposed.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn set_exposure(&self, shadow_id: ShadowId, exposure: Option<&Exposure>) -> Result<(), VssError> {
        let value = exposure.map(encode).transpose()?;
        self.write(|transaction| {
            let mut exposures = transaction.open_table(EXPOSURES)?;
            match &value {
                Some(value) => exposures.insert(shadow_id.as_bytes().as_slice(), value.as_slice())?,
                None => exposures.remove(shadow_id.as_bytes().as_slice())?,
            };
            Ok(())
        })
    }

    /// Where a copy is to be exposed at every start; none when nowhere.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn exposure(&self, shadow_id: ShadowId) -> Result<Option<Exposure>, VssError> {
        let value = self.read(|transaction| {
            let exposures = transaction.open_table(EXPOSURES)?;
            let value = exposures.get(shadow_id.as_bytes().as_slice())?.map(|value| value.value().to_vec());
            Ok(value)
        })?;
        value.map(|value| decode(&value)).transpose()
    }

    /// Remembers that the volume is being put back to this copy, before anything is written.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn begin_revert(&self, revert: &PendingRevert) -> Result<(), VssError> {
        let value = encode(revert)?;
        self.write(|transaction| {
            transaction.open_table(REVERTS)?.insert(revert.volume_id.as_str().as_bytes(), value.as_slice())?;
            Ok(())
        })
    }

    /// Forgets the revert of the volume: it is ended, or has changed nothing. Forgetting it twice is no error.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn end_revert(&self, volume_id: &VolumeId) -> Result<(), VssError> {
        self.write(|transaction| {
            transaction.open_table(REVERTS)?.remove(volume_id.as_str().as_bytes())?;
            Ok(())
        })
    }

    /// Every revert that is not ended.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn reverts(&self) -> Result<Vec<PendingRevert>, VssError> {
        self.read_all(REVERTS)
    }

    fn read_all<T: for<'de> Deserialize<'de>>(&self, table: TableDefinition<&[u8], &[u8]>) -> Result<Vec<T>, VssError> {
        let values = self.read(|transaction| {
            let mut values = Vec::new();
            for row in transaction.open_table(table)?.iter()? {
                values.push(row?.1.value().to_vec());
            }
            Ok(values)
        })?;
        values.iter().map(|value| decode(value)).collect()
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

fn decode<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Result<T, VssError> {
    serde_json::from_slice(value).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("An entry of the catalogue cannot be read: {error}"))
    })
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, VssError> {
    serde_json::to_vec(value).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("Cannot encode an entry of the catalogue: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vss_model::Volume;

    fn volume() -> Volume {
        serde_json::from_value(json!({
            "id": "ext4:1", "mount_point": "/v", "fs_type": "ext4", "source": "/dev/vda", "uuid": "1", "subvolume": null,
            "root": "/", "device_number": 1, "mount_id": 1,
        }))
        .unwrap()
    }

    fn pending() -> PendingSet {
        let (set_id, shadow_id) = (SetId::random(), ShadowId::random());
        let stored = StoredCopy { set_id, shadow_id, volume: volume(), data: "{}".to_owned() };
        PendingSet {
            set_id,
            copies: vec![KeptCopy { provider: "fake".to_owned(), stored }],
            owner: 7,
            requester: "test".to_owned(),
            started_at: Instant::now(),
        }
    }

    fn finished(pending: &PendingSet, context: &str) -> SetEntry {
        let set = json!({
            "set_id": pending.set_id, "consistency": "file-system", "atomic": true, "hold_ms": 0, "freeze_ms": 0,
            "shadows": [], "writers": [], "context": context, "owner": 7, "requester": "test",
            "created_at": Instant::now(), "backup_state": vss_model::BackupState::default(),
        });
        let set = serde_json::from_value(set).unwrap();
        SetEntry { set, copies: pending.copies.clone(), boot_id: "this boot".to_owned(), documents: Vec::new() }
    }

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
        let error = Catalogue::open(directory.path()).unwrap_err();
        assert!(error.message.contains("has format 2, this release reads 1"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_read().unwrap();
        assert!(transaction.open_table(PENDING).is_err(), "something was made in it");
    }

    #[test]
    fn a_set_of_a_release_that_kept_no_proof_and_no_documents_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let entry = finished(&pending(), "nas_rollback");
        let mut value = serde_json::to_value(&entry).unwrap();
        assert!(value["set"].as_object_mut().unwrap().remove("proof").is_some());
        assert!(value.as_object_mut().unwrap().remove("documents").is_some());
        let catalogue = Catalogue::open(directory.path()).unwrap();
        let key = *entry.set.set_id.as_bytes();
        let kept = serde_json::to_vec(&value).unwrap();
        catalogue
            .write(|transaction| {
                transaction.open_table(SETS)?.insert(key.as_slice(), kept.as_slice())?;
                Ok(())
            })
            .unwrap();
        drop(catalogue);
        assert_eq!(Catalogue::open(directory.path()).unwrap().sets(), [entry]);
    }

    #[test]
    fn a_crash_at_any_call_finds_either_the_intent_or_the_set() {
        let directory = tempfile::tempdir().unwrap();
        let reopened = || Catalogue::open(directory.path()).unwrap();
        let kept = || {
            let catalogue = reopened();
            (catalogue.pending().unwrap(), catalogue.sets())
        };
        let pending = pending();
        reopened().begin(&pending).unwrap();
        assert_eq!(kept(), (vec![pending.clone()], Vec::new()));

        let entry = finished(&pending, "nas_rollback");
        reopened().finish(&entry).unwrap();
        assert_eq!(kept(), (Vec::new(), vec![entry.clone()]));
        assert_eq!(reopened().copies_of(&volume().id), 1);

        let shadow_id = entry.copies[0].stored.shadow_id;
        assert!(entry.clone().without(ShadowId::random()).is_some());
        reopened().remove_copy(shadow_id).unwrap();
        assert_eq!(kept(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn an_intent_is_forgotten_twice_without_harm() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(directory.path()).unwrap();
        let pending = pending();
        catalogue.begin(&pending).unwrap();
        for _ in 0..2 {
            catalogue.forget_pending(pending.set_id).unwrap();
        }
        assert!(catalogue.pending().unwrap().is_empty());
    }

    #[test]
    fn a_second_service_cannot_open_it() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Catalogue::open(directory.path()).unwrap();
        assert!(Catalogue::open(directory.path()).unwrap_err().hint.contains("another vssd"));
    }

    #[test]
    fn sets_come_newest_first_and_auto_release_ones_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(directory.path()).unwrap();
        let mut made = Vec::new();
        for context in ["nas_rollback", "backup", "until_reboot"] {
            let entry = finished(&pending(), context);
            catalogue.finish(&entry).unwrap();
            made.push(entry.set.set_id);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let order = |catalogue: &Catalogue| catalogue.sets().iter().map(|entry| entry.set.set_id).collect::<Vec<_>>();
        assert_eq!(order(&catalogue), [made[2], made[1], made[0]]);
        assert_eq!(catalogue.auto_release(), [made[1]]);
        assert_eq!((catalogue.shadows(), catalogue.set(made[0]).map(|entry| entry.set.set_id)), (3, Some(made[0])));
        drop(catalogue);
        assert_eq!(order(&Catalogue::open(directory.path()).unwrap()), [made[2], made[1], made[0]]);
    }

    #[test]
    fn a_class_belongs_to_who_came_first_and_nobody_can_take_all() {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(directory.path()).unwrap();
        let first = WriterClassId::random();
        assert_eq!(catalogue.bind_class(first, 7).unwrap(), 7);
        assert_eq!(catalogue.bind_class(first, 8).unwrap(), 7);
        for _ in 1..CLASSES_PER_UID {
            catalogue.bind_class(WriterClassId::random(), 7).unwrap();
        }
        assert_eq!(catalogue.bind_class(WriterClassId::random(), 7).unwrap_err().code, VssCode::OutOfMemory);
        assert_eq!(catalogue.bind_class(first, 7).unwrap(), 7, "one that is known is no new one");
        assert_eq!(catalogue.bind_class(WriterClassId::random(), 8).unwrap(), 8);
    }
}
