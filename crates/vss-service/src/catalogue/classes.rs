//! Which uid a writer class belongs to, for ever.

use super::Catalogue;
use super::tables::CLASSES;
use redb::{ReadableTable, ReadableTableMetadata};
use vss_model::{VssCode, VssError, WriterClassId};

/// Writer classes that are remembered of one uid other than root, for ever: more than any service has.
const CLASSES_PER_UID: usize = 256;
/// Writer classes that are remembered in all.
const CLASSES_IN_ALL: u64 = 10_000;

impl Catalogue {
    /// The uid that a writer class belongs to, after giving it to `uid` if it belongs to nobody.
    ///
    /// # Errors
    /// `E_OUTOFMEMORY` for a new class of one that has as many as it may, or when there are too many in all;
    /// `VSS_E_UNEXPECTED` when it cannot be read or written.
    pub fn bind_class(&self, class_id: WriterClassId, uid: u32) -> Result<u32, VssError> {
        let bound = self.tables.read(|transaction| {
            Ok(transaction.open_table(CLASSES)?.get(class_id.as_bytes().as_slice())?.map(|uid| uid.value()))
        })?;
        if let Some(bound) = bound {
            return Ok(bound);
        }
        let bound = self.tables.write(|transaction| {
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
