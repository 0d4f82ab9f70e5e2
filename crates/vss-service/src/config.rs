//! `vss.toml`: who may ask, who may register, limits and the settings of the in-box parts.
//!
//! Read once at start from `vss.toml` in the state directory if it is there (an instance of its own has its own), else from
//! `/etc/vss/vss.toml`, else the defaults. A key that we do not know is refused: a mistyped limit must not be a limit.

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use vss_model::time::milliseconds;
use vss_model::{WriterClassId, creation, limits};

/// Where the administrator keeps the settings of the machine's one instance.
pub const SYSTEM_FILE: &str = "/etc/vss/vss.toml";

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may use the requester socket besides root.
    pub requesters: Requesters,
    /// Who may use the writer socket besides root, and the writers' limits.
    pub writers: Writers,
    /// Settings of the providers.
    pub providers: ProviderSettings,
}

/// Who may use the requester socket besides root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requesters {
    /// By uid.
    pub uids: Vec<u32>,
    /// By group name.
    pub groups: Vec<String>,
}

impl Default for Requesters {
    fn default() -> Self {
        Self { uids: Vec::new(), groups: vec!["vss".to_owned()] }
    }
}

/// Who may use the writer socket besides root, and the writers' limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Writers {
    /// By uid.
    pub uids: Vec<u32>,
    /// By group name.
    pub groups: Vec<String>,
    /// True: every system account (uid below 1000, as login.defs(5) SYS_UID_MAX) may register, so that services can.
    pub system_accounts: bool,
    /// Class ids that belong to a uid from the start.
    pub classes: BTreeMap<WriterClassId, u32>,
    /// Milliseconds from Freeze to Thaw, 1 to 60000, by writer name.
    pub freeze_ms: BTreeMap<String, u64>,
    /// The script writer's definitions.
    pub script_directory: PathBuf,
    /// Plain `freeze` and `thaw` programs.
    pub freeze_directory: PathBuf,
    /// True: running PostgreSQL clusters are found and made ready.
    pub postgresql: bool,
}

impl Default for Writers {
    fn default() -> Self {
        Self {
            uids: Vec::new(),
            groups: vec!["vss".to_owned()],
            system_accounts: true,
            classes: BTreeMap::new(),
            freeze_ms: BTreeMap::new(),
            script_directory: PathBuf::from("/etc/vss/writers.d"),
            freeze_directory: PathBuf::from("/etc/vss/freeze.d"),
            postgresql: true,
        }
    }
}

/// Settings of the providers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderSettings {
    /// The btrfs provider.
    pub btrfs: SharingSettings,
    /// The reflink provider.
    pub reflink: SharingSettings,
    /// The mirror provider.
    pub mirror: MirrorSettings,
}

/// Settings of the mirror provider, whose copies are images of whole volumes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MirrorSettings {
    /// The directory for images, an absolute path; none: the state directory, else the volume itself.
    pub storage: Option<PathBuf>,
    /// Bytes that must stay free where images lie; none: the provider's own rule.
    pub min_free_bytes: Option<u64>,
    /// The longest hold that is begun when the requester has no wish, in milliseconds, 1 to 8000.
    pub max_hold_ms: u64,
    /// A mirror that was not used for so many days is removed, 1 to 36500.
    pub unused_days: u64,
}

impl Default for MirrorSettings {
    fn default() -> Self {
        Self {
            storage: None,
            min_free_bytes: None,
            max_hold_ms: milliseconds(limits::MIRROR_HOLD),
            unused_days: limits::MIRROR_UNUSED_DAYS,
        }
    }
}

impl MirrorSettings {
    /// What is wrong with them.
    fn wrong(&self) -> Option<String> {
        for (name, value, most) in
            [("max_hold_ms", self.max_hold_ms, creation::LONGEST_HOLD_MS), ("unused_days", self.unused_days, 36_500)]
        {
            if !(1..=most).contains(&value) {
                return Some(format!("providers.mirror.{name} is 1 to {most}, not {value}"));
            }
        }
        let relative = self.storage.as_deref().filter(|storage| !storage.is_absolute())?;
        Some(format!("providers.mirror.storage is an absolute path, not {}", relative.display()))
    }
}

/// Settings of a provider whose copies share blocks with their volume's file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharingSettings {
    /// No copy is made when fewer bytes than this are free on the file system of the copies; none: the provider's own rule.
    pub min_free_bytes: Option<u64>,
}

/// The settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("Cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than 1 MiB.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The file does not say what it should.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
}

impl Config {
    /// The settings for an instance with this state directory.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood.
    pub fn load(state_directory: &Path) -> Result<Self, ConfigError> {
        for path in [state_directory.join("vss.toml"), PathBuf::from(SYSTEM_FILE)] {
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() > LARGEST => return Err(ConfigError::TooLarge(path)),
                Ok(_) => {
                    let text = std::fs::read_to_string(&path)
                        .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                    return Self::parse(&path, &text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ConfigError::Read { path, source }),
            }
        }
        Ok(Self::default())
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong =
            |message: &str| ConfigError::Parse { path: path.to_path_buf(), message: message.trim_end().to_owned() };
        let config: Self = toml::from_str(text).map_err(|error| {
            // The error's own text is a picture of several lines.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            wrong(&format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        if let Some(what) = config.providers.mirror.wrong() {
            return Err(wrong(&what));
        }
        let most = milliseconds(limits::WRITER_FREEZE);
        match config.writers.freeze_ms.iter().find(|(_, ms)| !(1..=most).contains(*ms)) {
            Some((name, ms)) => Err(wrong(&format!("writers.freeze_ms of {name} is 1 to {most}, not {ms}"))),
            None => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::parse(Path::new("x"), "").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Config::parse(Path::new("x"), "[writers]\nfreeze_sm = {}\n").unwrap_err();
        assert!(error.to_string().contains("line 2: unknown field `freeze_sm`"), "{error}");
    }

    #[test]
    fn a_limit_beyond_what_a_writer_may_take_is_refused() {
        for wrong in ["0", "60001"] {
            let text = format!("[writers]\nfreeze_ms = {{ pg = {wrong} }}\n");
            let error = Config::parse(Path::new("x"), &text).unwrap_err();
            assert!(error.to_string().contains("pg is 1 to 60000"), "{error}");
        }
    }

    #[test]
    fn each_provider_has_its_own_settings() {
        let text = "[providers.btrfs]\nmin_free_bytes = 1\n[providers.reflink]\nmin_free_bytes = 2\n";
        let providers = Config::parse(Path::new("x"), text).unwrap().providers;
        assert_eq!((providers.btrfs.min_free_bytes, providers.reflink.min_free_bytes), (Some(1), Some(2)));
    }

    #[test]
    fn settings_of_the_mirror_have_their_ranges() {
        for (text, what) in [
            ("max_hold_ms = 8001", "1 to 8000, not 8001"),
            ("unused_days = 0", "1 to 36500, not 0"),
            ("storage = \"srv/images\"", "absolute path, not srv/images"),
        ] {
            let error = Config::parse(Path::new("x"), &format!("[providers.mirror]\n{text}\n")).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        let text = "[providers.mirror]\nstorage = \"/srv\"\nmax_hold_ms = 8000\nunused_days = 1\n";
        assert_eq!(Config::parse(Path::new("x"), text).unwrap().providers.mirror.storage, Some(PathBuf::from("/srv")));
    }

    #[test]
    fn reads_limits_and_bindings() {
        let text =
            "[writers]\nfreeze_ms = { pg = 20000 }\n[writers.classes]\nb5946137-7b9f-4925-af80-51abd60b20d5 = 113\n";
        let config = Config::parse(Path::new("x"), text).unwrap();
        assert_eq!(config.writers.freeze_ms["pg"], 20_000);
        assert_eq!(config.writers.classes.values().copied().collect::<Vec<_>>(), [113]);
    }
}
