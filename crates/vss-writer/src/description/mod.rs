//! What a writer is and owns, as it stands in a TOML file: one grammar for script writers, directories of hooks and simulated
//! writers (`docs/script-writer.md` has every key). What a kind of writers has besides is a type of its own, read from the
//! same file.
//!
//! A key that nobody knows is refused with its line and the key that is nearest to it.

mod component;
mod declaration;
mod fields;
mod mask;
mod nearest;
mod table;

pub use table::read;

use component::ComponentTable;
use serde::Deserialize;
use vss_api::writer::{Identity, Register};
use vss_model::{AppLevel, Component, Declaration, Usage, VssError, WriterClassId, WriterInstanceId, limits};

/// What every writer says of itself in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterDescription {
    /// Its name for people and for `--writer`: 1 to 128 bytes; none when the file has none.
    pub name: Option<String>,
    /// Its kind; none when the file has none.
    pub class_id: Option<WriterClassId>,
    /// Unique among the instances of the class.
    pub instance_name: String,
    /// What its data is for.
    pub usage: Option<Usage>,
    /// When it is frozen.
    pub level: AppLevel,
    /// Longest time from its Freeze to its Thaw in milliseconds, 1 to 60000; none: 60000.
    pub freeze_timeout_ms: Option<u64>,
    /// What it owns.
    pub components: Vec<Component>,
    /// What it says beside its components.
    pub declaration: Declaration,
}

/// The keys of every file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriterTable {
    name: Option<String>,
    class_id: Option<WriterClassId>,
    #[serde(default)]
    instance_name: String,
    usage: Option<Usage>,
    #[serde(default)]
    level: AppLevel,
    freeze_timeout_ms: Option<u64>,
    #[serde(default)]
    source: vss_model::DataSource,
    #[serde(default, deserialize_with = "declaration::version")]
    version: (u32, u32),
    #[serde(default, deserialize_with = "mask::schema")]
    backup_schema: vss_model::BackupSchema,
    restore_method: Option<declaration::RestoreTable>,
    #[serde(default)]
    alternate_locations: Vec<declaration::LocationTable>,
    #[serde(default)]
    exclude_files: Vec<declaration::FilesTable>,
    #[serde(default)]
    exclude_files_from_snapshot: Vec<declaration::FilesTable>,
    #[serde(default)]
    components: Vec<ComponentTable>,
}

impl From<WriterTable> for WriterDescription {
    fn from(table: WriterTable) -> Self {
        Self {
            name: table.name,
            class_id: table.class_id,
            instance_name: table.instance_name,
            usage: table.usage,
            level: table.level,
            freeze_timeout_ms: table.freeze_timeout_ms,
            components: table.components.into_iter().map(Component::from).collect(),
            declaration: Declaration {
                source: table.source,
                version_major: table.version.0,
                version_minor: table.version.1,
                backup_schema: table.backup_schema,
                restore_method: table.restore_method.map(Into::into),
                alternate_locations: table.alternate_locations.into_iter().map(Into::into).collect(),
                exclude_files: table.exclude_files.into_iter().map(Into::into).collect(),
                exclude_files_from_snapshot: table.exclude_files_from_snapshot.into_iter().map(Into::into).collect(),
            },
        }
    }
}

impl WriterDescription {
    /// What it registers with, when the file leaves these to its kind.
    #[must_use]
    pub fn register(&self, class_id: WriterClassId, name: &str, usage: Usage) -> Register {
        Register {
            instance_name: self.instance_name.clone(),
            usage: self.usage.unwrap_or(usage),
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
            ..Register::new(self.class_id.unwrap_or(class_id), self.name.as_deref().unwrap_or(name))
        }
    }

    /// What it answers to Identify.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { declaration: self.declaration.clone(), ..Identity::of(self.components.clone()) }
    }
}

/// Would the service take a writer that says this? Found out before it is told to anybody.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check(register: Register, identity: Identity) -> Result<(), String> {
    if !(1..=128).contains(&register.name.len()) {
        return Err(format!("name has {} bytes, 1 to 128 are allowed", register.name.len()));
    }
    let longest = limits::WRITER_FREEZE.as_millis();
    if let Some(limit) = register.freeze_timeout_ms.filter(|limit| *limit == 0 || u128::from(*limit) > longest) {
        return Err(format!("freeze_timeout_ms is {limit}, 1 to {longest} are allowed"));
    }
    let checked = register.metadata(WriterInstanceId::random(), identity).check();
    checked.map_err(
        |VssError { message, hint, .. }| {
            if hint.is_empty() { message } else { format!("{message}. {hint}") }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::{BackupSchema, ComponentFlags, FileBackupMask, RestoreMethodKind, WriterRestore};

    /// A kind of writers with one key of its own.
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Own {
        command: Vec<String>,
    }

    const WHOLE: &str = r#"
name = "shop"
command = ["/bin/true"]
source = "transacted_db"
version = "2.1"
backup_schema = ["incremental", "stamps"]
restore_method = { method = "stop_restore_start", service = "shop", writer_restore = "always" }
[[alternate_locations]]
path = "/srv/shop"
pattern = "*.db"
alternate_path = "/srv/elsewhere"
[[exclude_files]]
path = "/srv/shop"
pattern = "*.tmp"
recursive = true
[[exclude_files_from_snapshot]]
path = "/srv/shop/cache"
[[components]]
type = "database"
name = "orders"
logical_path = "europe"
caption = "Orders"
selectable = false
selectable_for_restore = true
flags = ["backup_recovery"]
files = [{ path = "/srv/shop", pattern = "*.db", alternate_path = "/srv/spit", backup_type_mask = ["full", "full_from_the_copy"] }]
log_files = [{ path = "/srv/shop/log", backup_type_mask = 0x0F0F }]
dependencies = [{ writer = "00000000-0000-0000-0000-0000000000c4", logical_path = "a\\b", name = "users" }]
"#;

    #[test]
    fn everything_that_a_writer_can_say_can_be_written_down() {
        let (writer, own) = read::<Own>(WHOLE).unwrap();
        assert_eq!(own.command, ["/bin/true"]);
        check(writer.register(WriterClassId::random(), "x", Usage::Other), writer.identity()).unwrap();
        let said = &writer.declaration;
        assert_eq!((said.version_major, said.version_minor), (2, 1));
        assert_eq!(said.backup_schema, BackupSchema::INCREMENTAL.with(BackupSchema::TIMESTAMPED));
        let restore = said.restore_method.as_ref().unwrap();
        assert_eq!(
            (restore.method, restore.writer_restore),
            (RestoreMethodKind::StopRestoreStart, WriterRestore::Always)
        );
        assert_eq!((said.exclude_files.len(), said.exclude_files_from_snapshot.len()), (1, 1));
        assert_eq!(said.exclude_files_from_snapshot[0].pattern, "*");
        assert_eq!(said.alternate_locations[0].alternate_path.to_str(), Some("/srv/elsewhere"));
        let [orders] = writer.components.as_slice() else { panic!("{:?}", writer.components) };
        assert!(!orders.selectable && orders.selectable_for_restore && orders.flags == ComponentFlags::BACKUP_RECOVERY);
        assert_eq!(orders.files[0].backup_type_mask, FileBackupMask(0x0101));
        assert_eq!(orders.log_files[0].backup_type_mask, FileBackupMask::default());
        assert_eq!(orders.dependencies[0].on.to_string(), "a\\b\\users");
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_what_was_perhaps_meant() {
        let component = "[[components]]\nname = \"a\"\n";
        for (text, wanted) in [
            ("name = \"x\"\nlevle = \"system\"\n".to_owned(), "line 2: unknown key `levle`; `level` is the nearest"),
            ("comand = []\n".to_owned(), "line 1: unknown key `comand`; `command` is the nearest"),
            (
                format!("{component}selectible = true\n"),
                "line 3: unknown key `selectible`; `selectable` is the nearest",
            ),
            (format!("{component}files = [{{ path = \"/\", recursiv = true }}]\n"), "`recursive` is the nearest"),
            (
                format!("{component}flags = [\"backup_recovry\"]\n"),
                "line 3: unknown name `backup_recovry`; `backup_recovery` is",
            ),
            ("backup_schema = [\"increment\"]\n".to_owned(), "`incremental` is the nearest"),
            ("version = \"two\"\n".to_owned(), "line 1: version is two numbers"),
            ("restore_method = { method = \"custom\", servce = \"x\" }\n".to_owned(), "`service` is the nearest"),
            ("xyzzy = 1\n".to_owned(), "line 1: unknown key `xyzzy`; known are `name`, "),
            ("name = 1\n".to_owned(), "line 1: invalid type"),
            ("name = \n".to_owned(), "line 1: "),
        ] {
            let problem = read::<Own>(&text).unwrap_err();
            assert!(problem.contains(wanted) && !problem.contains('\n'), "{text}: {problem}");
        }
    }
}
