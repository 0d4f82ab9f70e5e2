//! The files that describe script writers and hook directories.

use crate::class_id::class_id;
use crate::trust::{self, Distrust};
use std::fs;
use std::path::{Path, PathBuf};
use vss_api::writer::{Identity, Register};
use vss_model::{Component, Usage, VssError};
use vss_writer::description::{self, WriterDescription};

/// The longest configuration file: larger is a mistake.
const LONGEST: u64 = 1 << 20;

/// One script writer, as its `*.toml` describes it.
#[derive(Debug, Clone)]
pub struct ScriptConfig {
    /// Its name for people and for `--writer`: 1 to 128 bytes.
    pub name: String,
    /// The program, as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// What it says of itself. Without a class its class is made from the name ([`class_id`]); it has a component or more.
    pub writer: WriterDescription,
}

/// The keys of a script writer's own.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptTable {
    command: Vec<String>,
}

/// How a directory of hooks takes part: the `*.toml` in it; every key may be left out. Without a name it has the directory's,
/// without a class one that is made from the directory's path ([`class_id`]), and without components everything (`/`,
/// recursive), so that the hooks run for every set.
#[derive(Debug, Clone, Default)]
pub struct HooksConfig {
    /// What it says of itself.
    pub writer: WriterDescription,
    /// Longest time for one hook's thaw in milliseconds; 10000 when left out.
    pub thaw_timeout_ms: Option<u64>,
}

/// The keys of a directory's own.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HooksTable {
    thaw_timeout_ms: Option<u64>,
}

impl ScriptConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let (writer, ScriptTable { command }) = description::read::<ScriptTable>(&text(file)?)?;
        let Some(program) = command.first() else { return Err("command is empty".to_owned()) };
        if !Path::new(program).is_absolute() {
            return Err(format!("command: {program} is not an absolute path"));
        }
        if writer.components.is_empty() {
            return Err("it has no [[components]]".to_owned());
        }
        let config = Self { name: writer.name.clone().ok_or("it has no name")?, command, writer };
        description::check(config.register(), config.identity())?;
        Ok(config)
    }

    pub(crate) fn register(&self) -> Register {
        self.writer.register(class_id(&self.name), &self.name, Usage::default())
    }

    pub(crate) fn identity(&self) -> Identity {
        self.writer.identity()
    }
}

impl HooksConfig {
    /// The configuration in `directory`: its one `*.toml`, or the defaults when it has none.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn beside(directory: &Path) -> Result<Self, String> {
        let config = match files(directory)?.as_slice() {
            [] => Self::default(),
            [file] => Self::read(file).map_err(|problem| format!("{}: {problem}", file.display()))?,
            [first, second, ..] => {
                return Err(format!("{} and {} are one too many", first.display(), second.display()));
            }
        };
        description::check(config.register(directory), config.writer.identity())?;
        Ok(config)
    }

    fn read(file: &Path) -> Result<Self, String> {
        let (writer, HooksTable { thaw_timeout_ms }) = description::read(&text(file)?)?;
        Ok(Self { writer, thaw_timeout_ms })
    }

    pub(crate) fn register(&self, directory: &Path) -> Register {
        let own_name =
            directory.file_name().map_or_else(|| "hooks".to_owned(), |name| name.to_string_lossy().into_owned());
        let class_id = class_id(&format!("hooks:{}", directory.display()));
        self.writer.register(class_id, &own_name, Usage::Other)
    }

    pub(crate) fn identity(&self) -> Result<Identity, VssError> {
        let said = self.writer.identity();
        if !said.components.is_empty() {
            return Ok(said);
        }
        Ok(Identity { components: everything("hooks")?.components, ..said })
    }
}

/// One component of this name with every file of the machine.
pub(crate) fn everything(name: &str) -> Result<Identity, VssError> {
    Ok(Identity::of([Component::file_group(name).files_below("/").build()?]))
}

/// The `*.toml` files of a directory in the order of their names; none when there is no such directory.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", directory.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", directory.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file that only its owner and root can change.
fn text(file: &Path) -> Result<String, String> {
    trust::trusted_file(file).map_err(|Distrust(why)| why)?;
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > LONGEST {
        return Err(format!("it has {size} bytes, at most {LONGEST} are read"));
    }
    fs::read_to_string(file).map_err(|error| error.to_string())
}
