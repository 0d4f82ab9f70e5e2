//! One line of a manifest: what a backup holds at one path.

use crate::digest::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use uuid::Uuid;

/// What is at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket of a program.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

/// How the source told a file from another version of it. Two backups in which all of it is equal have the same contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Version {
    /// The inode's number.
    pub inode: u64,
    /// When the inode was changed, which no program can set.
    pub changed: Time,
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Parts of a file (spec R 3.8). The bytes of all ranges lie one behind the other in the file of the data tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The ranges, none over another, in the writer's order.
    pub ranges: Vec<Range>,
    /// The writer's own note on them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

impl Parts {
    /// How many bytes all ranges have; none when no file could be so large.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.ranges.iter().try_fold(0u64, |bytes, range| bytes.checked_add(range.length))
    }
}

/// Owner, mode, times and what else belongs to an inode beside its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The twelve bits of chmod(2).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last change of the contents.
    pub modified: Time,
    /// Last reading.
    pub accessed: Time,
    /// Extended attributes, among them ACLs and capabilities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "xattrs")]
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The flags of chattr(1) that are kept: immutable, append only, no dump, no atime, no copy on write.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u32,
}

/// What a backup holds at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it was, and where it is restored to: absolute.
    #[serde(with = "vss_model::path_text")]
    pub path: PathBuf,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What belongs to the inode.
    pub attributes: Attributes,
    /// The size of a regular file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The checksum of what lies in the data tree for a regular file; none for a further name of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub target: Option<PathBuf>,
    /// Major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// An earlier path of the same inode: this one is a hard link to it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "vss_model::path_text::optional")]
    pub link: Option<PathBuf>,
    /// Only these parts of the file are in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// The earlier backup that has the contents, because they have not changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Uuid>,
    /// The components that it belongs to, by their place in the list of the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<u32>,
    /// The version in the source.
    pub version: Version,
}

impl Entry {
    /// An entry with what all kinds have, and with nothing that only some have.
    #[must_use]
    pub fn new(path: PathBuf, kind: Kind, attributes: Attributes, components: Vec<u32>, version: Version) -> Self {
        Self {
            path,
            kind,
            attributes,
            size: None,
            digest: None,
            target: None,
            device: None,
            link: None,
            parts: None,
            held_by: None,
            components,
            version,
        }
    }

    /// True when the data tree of this backup has something at the path.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.held_by.is_none()
    }

    /// True when both are the same version of the same thing.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.version == other.version
            && self.size == other.size
            && self.attributes.modified == other.attributes.modified
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

mod xattrs {
    use super::{BTreeMap, Deserialize, Deserializer, Engine, OsString, STANDARD, Serializer};
    use serde::de::Error;
    use std::path::Path;
    use vss_model::path_text;

    pub(super) fn serialize<S: Serializer>(
        xattrs: &BTreeMap<OsString, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |name: &OsString| path_text::to_text(Path::new(name));
        serializer.collect_map(xattrs.iter().map(|(name, value)| (text(name), STANDARD.encode(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<OsString, Vec<u8>>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let pair = |(name, value): (String, String)| {
            let name = path_text::from_text(&name).ok_or_else(|| D::Error::custom("no name of an attribute"))?;
            let value = STANDARD.decode(value).map_err(|_| D::Error::custom("a value that is no base64"))?;
            Ok((name.into_os_string(), value))
        };
        texts.into_iter().map(pair).collect()
    }
}
