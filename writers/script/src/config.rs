//! The files that describe script writers and hook directories.

use crate::class_id::class_id;
use crate::trust::{self, Distrust};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use vss_api::writer::{Identity, Register};
use vss_model::{
    AppLevel, Component, ComponentKind, ComponentName, FileSpec, Usage, WriterClassId, WriterInstanceId, WriterMetadata,
};

/// The longest configuration file: larger is a mistake.
const LONGEST: u64 = 1 << 20;

/// One script writer, as its `*.toml` describes it.
#[derive(Debug, Clone, Deserialize)]
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
    pub components: Vec<ComponentConfig>,
}

/// A component in a configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentConfig {
    /// Not empty, no `\`.
    pub name: String,
    /// Elements separated by `\`; empty when left out.
    #[serde(default)]
    pub logical_path: String,
    /// `database` or `file_group`, the default.
    #[serde(default, rename = "type")]
    pub kind: ComponentKind,
    /// Name for a person.
    #[serde(default)]
    pub caption: Option<String>,
    /// Its files.
    pub files: Vec<FileConfig>,
}

/// Files of a component in a configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory: absolute, no wildcards.
    pub path: PathBuf,
    /// File name pattern with `?` and `*`; `*` when left out.
    #[serde(default = "any_file")]
    pub pattern: String,
    /// True: the directories below too.
    #[serde(default)]
    pub recursive: bool,
}

fn any_file() -> String {
    "*".to_owned()
}

/// How a directory of hooks takes part: the `*.toml` in it; every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
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
    pub components: Vec<ComponentConfig>,
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
        check(&config.register(), &config.components)?;
        Ok(config)
    }

    pub(crate) fn register(&self) -> Register {
        Register {
            class_id: self.class_id.unwrap_or_else(|| class_id(&self.name)),
            name: self.name.clone(),
            instance_name: String::new(),
            usage: self.usage,
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        identity(&self.components)
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
        check(&config.register(directory), &config.components)?;
        Ok(config)
    }

    pub(crate) fn register(&self, directory: &Path) -> Register {
        let own_name =
            || directory.file_name().map_or_else(|| "hooks".to_owned(), |name| name.to_string_lossy().into_owned());
        Register {
            class_id: self.class_id.unwrap_or_else(|| class_id(&format!("hooks:{}", directory.display()))),
            name: self.name.clone().unwrap_or_else(own_name),
            instance_name: String::new(),
            usage: Usage::Other,
            level: self.level,
            freeze_timeout_ms: self.freeze_timeout_ms,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        if self.components.is_empty() { everything("hooks") } else { identity(&self.components) }
    }
}

/// One component of this name with every file of the machine.
pub(crate) fn everything(name: &str) -> Identity {
    let files = vec![FileConfig { path: "/".into(), pattern: any_file(), recursive: true }];
    let kind = ComponentKind::FileGroup;
    identity(&[ComponentConfig { name: name.to_owned(), logical_path: String::new(), kind, caption: None, files }])
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

fn check(register: &Register, components: &[ComponentConfig]) -> Result<(), String> {
    if !(1..=128).contains(&register.name.len()) {
        return Err(format!("name has {} bytes, 1 to 128 are allowed", register.name.len()));
    }
    if let Some(limit) = register.freeze_timeout_ms.filter(|limit| !(1..=60_000).contains(limit)) {
        return Err(format!("freeze_timeout_ms is {limit}, 1 to 60000 are allowed"));
    }
    let metadata = WriterMetadata {
        class_id: register.class_id,
        instance_id: WriterInstanceId::random(),
        name: register.name.clone(),
        instance_name: String::new(),
        usage: register.usage,
        level: register.level,
        components: identity(components).components,
        other: BTreeMap::new(),
    };
    metadata.check().map_err(|error| error.message)
}

fn identity(components: &[ComponentConfig]) -> Identity {
    let component = |config: &ComponentConfig| Component {
        kind: config.kind,
        name: ComponentName { logical_path: config.logical_path.clone(), name: config.name.clone() },
        caption: config.caption.clone(),
        selectable: true,
        files: config.files.iter().map(file_spec).collect(),
        other: BTreeMap::new(),
    };
    Identity { components: components.iter().map(component).collect(), other: BTreeMap::new() }
}

fn file_spec(file: &FileConfig) -> FileSpec {
    FileSpec {
        path: file.path.clone(),
        pattern: file.pattern.clone(),
        recursive: file.recursive,
        alternate_path: None,
        other: BTreeMap::new(),
    }
}
