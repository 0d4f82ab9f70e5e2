//! The files that describe script writers and hook directories.

use crate::class_id::class_id;
use crate::trust::{self, Distrust};
use serde::de::{Deserialize, Deserializer, Error};
use std::fs;
use std::path::{Path, PathBuf};
use vss_api::writer::{Identity, Register};
use vss_model::{
    AppLevel, Claim, Component, ComponentKind, FileSpec, Usage, VssError, WriterClassId, WriterInstanceId,
};

/// The longest configuration file: larger is a mistake.
const LONGEST: u64 = 1 << 20;

/// One script writer, as its `*.toml` describes it.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptConfig {
    /// Its name for people and for `--writer`: 1 to 128 bytes.
    pub name: String,
    /// Its class; left out: made from the name ([`class_id`]).
    #[serde(default)]
    pub class_id: Option<WriterClassId>,
    /// The program, as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// When it is frozen: `front_end` (the default), `back_end`, `system`.
    #[serde(default)]
    pub level: AppLevel,
    /// What its data is for.
    #[serde(default)]
    pub usage: Usage,
    /// Longest time from Freeze to Thaw in milliseconds, 1 to 60000; 60000 when left out.
    #[serde(default)]
    pub freeze_timeout_ms: Option<u64>,
    /// What it owns: at least one.
    #[serde(deserialize_with = "components")]
    pub components: Vec<Component>,
}

/// A component in a configuration file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentConfig {
    name: String,
    #[serde(default)]
    logical_path: String,
    #[serde(default, rename = "type")]
    kind: ComponentKind,
    #[serde(default)]
    caption: Option<String>,
    files: Vec<FileConfig>,
}

/// Files of a component in a configuration file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    path: PathBuf,
    #[serde(default = "any_file")]
    pattern: String,
    #[serde(default)]
    recursive: bool,
}

impl ComponentConfig {
    fn claim(self) -> Result<Component, VssError> {
        let mut claim = match self.kind {
            ComponentKind::Database => Component::database(self.name),
            ComponentKind::FileGroup => Component::file_group(self.name),
        };
        if let Some(caption) = self.caption {
            claim = claim.caption(caption);
        }
        let files = self
            .files
            .into_iter()
            .map(|file| FileSpec { recursive: file.recursive, ..FileSpec::below(file.path).matching(file.pattern) });
        files.fold(claim.logical_path(self.logical_path), Claim::files).build()
    }
}

/// Reads `[[components]]` and checks each.
fn components<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Component>, D::Error> {
    let configs = Vec::<ComponentConfig>::deserialize(deserializer)?;
    configs.into_iter().map(|config| config.claim().map_err(|error| D::Error::custom(error.message))).collect()
}

fn any_file() -> String {
    "*".to_owned()
}

/// How a directory of hooks takes part: the `*.toml` in it; every field may be left out.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Its name; left out: the directory's.
    pub name: Option<String>,
    /// Its class; left out: made from the directory's path ([`class_id`]).
    pub class_id: Option<WriterClassId>,
    /// When it is frozen.
    pub level: AppLevel,
    /// Longest time from Freeze to Thaw in milliseconds, 1 to 60000; 60000 when left out.
    pub freeze_timeout_ms: Option<u64>,
    /// Longest time for one hook's thaw in milliseconds; 10000 when left out.
    pub thaw_timeout_ms: Option<u64>,
    /// What the hooks hold still; left out: everything (`/`, recursive), so that they run for every set.
    #[serde(deserialize_with = "components")]
    pub components: Vec<Component>,
}

impl ScriptConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let config: Self = parse(file)?;
        let Some(program) = config.command.first() else { return Err("command is empty".to_owned()) };
        if !Path::new(program).is_absolute() {
            return Err(format!("command: {program} is not an absolute path"));
        }
        if config.components.is_empty() {
            return Err("it has no [[components]]".to_owned());
        }
        check(config.register(), config.identity())?;
        Ok(config)
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            usage: self.usage,
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
            ..Register::new(self.class_id.unwrap_or_else(|| class_id(&self.name)), &self.name)
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::of(self.components.clone())
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
            [file] => parse(file).map_err(|problem| format!("{}: {problem}", file.display()))?,
            [first, second, ..] => {
                return Err(format!("{} and {} are one too many", first.display(), second.display()));
            }
        };
        check(config.register(directory), Identity::of(config.components.clone()))?;
        Ok(config)
    }

    pub(crate) fn register(&self, directory: &Path) -> Register {
        let own_name =
            || directory.file_name().map_or_else(|| "hooks".to_owned(), |name| name.to_string_lossy().into_owned());
        let class_id = self.class_id.unwrap_or_else(|| class_id(&format!("hooks:{}", directory.display())));
        Register {
            usage: Usage::Other,
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
            ..Register::new(class_id, self.name.clone().unwrap_or_else(own_name))
        }
    }

    pub(crate) fn identity(&self) -> Result<Identity, VssError> {
        if self.components.is_empty() { everything("hooks") } else { Ok(Identity::of(self.components.clone())) }
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

fn parse<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, String> {
    trust::trusted_file(file).map_err(|Distrust(why)| why)?;
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > LONGEST {
        return Err(format!("it has {size} bytes, at most {LONGEST} are read"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    toml::from_str(&text).map_err(|error| sentence(&text, &error))
}

/// What is wrong on which line, as part of a sentence; the error's own text is a picture of several lines.
fn sentence(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("{line}{}", error.message().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn check(register: Register, identity: Identity) -> Result<(), String> {
    if !(1..=128).contains(&register.name.len()) {
        return Err(format!("name has {} bytes, 1 to 128 are allowed", register.name.len()));
    }
    if let Some(limit) = register.freeze_timeout_ms.filter(|limit| !(1..=60_000).contains(limit)) {
        return Err(format!("freeze_timeout_ms is {limit}, 1 to 60000 are allowed"));
    }
    register.metadata(WriterInstanceId::random(), identity).check().map_err(|error| error.message)
}
