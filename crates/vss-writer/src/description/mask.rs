//! Bits of VSS as a list of their names, or as the number that they make.

use super::nearest::unknown;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use vss_model::{BackupSchema, ComponentFlags, FileBackupMask};

/// `flags` of a component.
pub(super) fn flags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ComponentFlags, D::Error> {
    deserializer.deserialize_any(Bits(ComponentFlags::NAMES)).map(ComponentFlags)
}

/// `backup_type_mask` of files.
pub(super) fn backup_types<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FileBackupMask, D::Error> {
    deserializer.deserialize_any(Bits(FileBackupMask::NAMES)).map(FileBackupMask)
}

/// `backup_schema` of a writer.
pub(super) fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BackupSchema, D::Error> {
    deserializer.deserialize_any(Bits(BackupSchema::NAMES)).map(BackupSchema)
}

/// The bits and their names.
struct Bits(&'static [(u32, &'static str)]);

/// The name in a file: no spaces, lower case.
fn written(name: &str) -> String {
    name.replace(' ', "_").to_lowercase()
}

impl<'de> Visitor<'de> for Bits {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names, or a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        u32::try_from(number).map_err(|_| E::custom(format!("{number} is no number of 32 bits")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        u32::try_from(number).map_err(|_| E::custom(format!("{number} is no number of 32 bits")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u32, A::Error> {
        let names: Vec<String> = self.0.iter().map(|(_, name)| written(name)).collect();
        let mut bits = 0;
        while let Some(name) = list.next_element::<String>()? {
            let Some(place) = names.iter().position(|known| *known == name) else {
                return Err(A::Error::custom(unknown("name", &name, names.iter().map(String::as_str))));
            };
            bits |= self.0[place].0;
        }
        Ok(bits)
    }
}
