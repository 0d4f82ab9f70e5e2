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

mod classes;
mod entry;
mod reverts;
mod tables;

pub use entry::{KeptCopy, PendingSet, SetEntry};
pub use reverts::PendingRevert;

use crate::documents::Documents;
use crate::exposure::Exposure;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tables::{EXPOSURES, PENDING, SETS, Tables, encode};
use vss_model::{SetId, ShadowId, VolumeId, VssError};

/// The catalogue, open.
#[derive(Debug)]
pub struct Catalogue {
    tables: Tables,
    documents: Documents,
    sets: Mutex<BTreeMap<SetId, SetEntry>>,
}

impl Catalogue {
    /// Opens the catalogue in this state directory, making an empty one where there is none.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when the file cannot be opened, is used by another service, or has a newer format.
    pub fn open(state_directory: &Path) -> Result<Self, VssError> {
        let tables = Tables::open(&state_directory.join("catalogue.redb"))?;
        let sets: Vec<SetEntry> = tables.all(SETS)?;
        let catalogue = Self { tables, documents: Documents::new(state_directory), sets: Mutex::default() };
        catalogue.kept().extend(sets.into_iter().map(|entry| (entry.set.set_id, entry)));
        Ok(catalogue)
    }

    /// Keeps what a creation may leave behind, before it makes anything.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn begin(&self, pending: &PendingSet) -> Result<(), VssError> {
        self.tables.put(PENDING, pending.set_id.as_bytes(), pending)
    }

    /// Turns a pending creation into a finished set.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn finish(&self, entry: &SetEntry) -> Result<(), VssError> {
        let value = encode(entry)?;
        let key = *entry.set.set_id.as_bytes();
        self.tables.write(|transaction| {
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
        self.tables.remove(PENDING, set_id.as_bytes())
    }

    /// Takes one copy out of its set, and the set away with its last copy. Of a copy that is not there, nothing.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn remove_copy(&self, shadow_id: ShadowId) -> Result<(), VssError> {
        let Some(entry) = self.set_of(shadow_id) else { return Ok(()) };
        let set_id = entry.set.set_id;
        match entry.without(shadow_id) {
            Some(rest) => {
                self.tables.put(SETS, set_id.as_bytes(), &rest)?;
                self.kept().insert(set_id, rest);
            }
            None => {
                self.tables.remove(SETS, set_id.as_bytes())?;
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
        self.tables.all(PENDING)
    }

    /// Remembers (or forgets, with none) where a copy is exposed.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be written.
    pub fn set_exposure(&self, shadow_id: ShadowId, exposure: Option<&Exposure>) -> Result<(), VssError> {
        match exposure {
            Some(exposure) => self.tables.put(EXPOSURES, shadow_id.as_bytes(), exposure),
            None => self.tables.remove(EXPOSURES, shadow_id.as_bytes()),
        }
    }

    /// Where a copy is to be exposed at every start; none when nowhere.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` when it cannot be read.
    pub fn exposure(&self, shadow_id: ShadowId) -> Result<Option<Exposure>, VssError> {
        self.tables.get(EXPOSURES, shadow_id.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vss_model::{Instant, Volume};
    use vss_provider::StoredCopy;

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
    fn a_set_of_a_release_that_kept_no_proof_and_no_documents_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let entry = finished(&pending(), "nas_rollback");
        let mut value = serde_json::to_value(&entry).unwrap();
        assert!(value["set"].as_object_mut().unwrap().remove("proof").is_some());
        assert!(value.as_object_mut().unwrap().remove("documents").is_some());
        let catalogue = Catalogue::open(directory.path()).unwrap();
        catalogue.tables.put(SETS, entry.set.set_id.as_bytes(), &value).unwrap();
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
}
