//! The stable JSON documents (design 8). Keys are added, never renamed.

use crate::document_text;
use serde::Serialize;
use std::path::{Path, PathBuf};
use vss_api::documents::DocumentEntry;
use vss_api::management::{CheckedVolume, CheckedWriter};
use vss_documents::{AnyDocument, DocumentError, Manifest};
use vss_model::{
    Attributes, BackupComponents, ComponentName, Consistency, Context, HoldProof, Instant, NestedCopy, SetId,
    ShadowCopy, ShadowCopySet, ShadowId, VolumeId, VssCode, VssError, WriterMetadata, WriterRecord, WriterState,
};

/// What every `--json` prints instead of its document when it failed.
#[derive(Debug, Serialize)]
pub(crate) struct FailureDocument<'a> {
    pub(crate) failure: &'a VssError,
}

/// `vss create --json`.
#[derive(Debug, Serialize)]
pub(crate) struct SetDocument<'a> {
    set_id: SetId,
    consistency: Consistency,
    atomic: bool,
    hold_ms: u64,
    freeze_ms: u64,
    shadows: Vec<ShadowDocument<'a>>,
    writers: Vec<WriterDocument<'a>>,
}

/// One shadow copy of a set.
#[derive(Debug, Serialize)]
pub(crate) struct ShadowDocument<'a> {
    id: ShadowId,
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    volume: &'a Path,
    provider: &'a str,
    device: Option<&'a str>,
    #[serde(serialize_with = "vss_model::path_text::optional::serialize")]
    path: Option<&'a Path>,
    consistency: Consistency,
    cut_at: Instant,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    nested: &'a [NestedCopy],
}

/// One shadow copy in a list: also what its set is.
#[derive(Debug, Serialize)]
pub(crate) struct ListedShadow<'a> {
    #[serde(flatten)]
    shadow: ShadowDocument<'a>,
    set_id: SetId,
    created_at: Instant,
    attributes: Attributes,
    owner: u32,
}

/// `vss show ID --json` of a set.
#[derive(Debug, Serialize)]
pub(crate) struct ShownSet<'a> {
    #[serde(flatten)]
    set: SetDocument<'a>,
    context: Context,
    created_at: Instant,
    requester: &'a str,
    owner: u32,
    proof: Option<&'a HoldProof>,
}

#[derive(Debug, Serialize)]
struct WriterDocument<'a> {
    name: &'a str,
    state: WriterState,
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen_ms: Option<u64>,
    components: Vec<ComponentDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a VssError>,
}

#[derive(Debug, Serialize)]
struct ComponentDocument<'a> {
    #[serde(flatten)]
    name: &'a ComponentName,
    consistency: Consistency,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a VssError>,
}

/// `vss check --json`; the keys are told in its help.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CheckDocument {
    pub(crate) possible: bool,
    pub(crate) consistency: Option<Consistency>,
    pub(crate) atomic: bool,
    pub(crate) paths: Vec<CheckedPathDocument>,
    pub(crate) volumes: Vec<CheckedVolume>,
    pub(crate) writers: Vec<CheckedWriter>,
    #[serde(with = "vss_model::path_text::list")]
    pub(crate) stays_live: Vec<PathBuf>,
    pub(crate) obstacles: Vec<VssError>,
    pub(crate) warnings: Vec<VssError>,
}

/// One path of `vss check`.
#[derive(Debug, Serialize)]
pub(crate) struct CheckedPathDocument {
    /// As it was typed.
    #[serde(with = "vss_model::path_text")]
    pub(crate) path: PathBuf,
    /// Without symbolic links.
    #[serde(with = "vss_model::path_text::optional")]
    pub(crate) resolved: Option<PathBuf>,
    pub(crate) volume_id: Option<VolumeId>,
    pub(crate) failure: Option<VssError>,
}

/// `vss list WHAT --json`: one key with the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum List<T> {
    Shadows(Vec<T>),
    Writers(Vec<T>),
    Providers(Vec<T>),
    Volumes(Vec<T>),
    Storage(Vec<T>),
}

impl<'a> From<&'a ShadowCopy> for ShadowDocument<'a> {
    fn from(shadow: &'a ShadowCopy) -> Self {
        Self {
            id: shadow.id,
            volume: &shadow.volume,
            provider: &shadow.provider,
            device: shadow.device.as_deref(),
            path: shadow.path.as_deref(),
            consistency: shadow.consistency,
            cut_at: shadow.cut_at,
            nested: &shadow.nested,
        }
    }
}

impl<'a> From<&'a ShadowCopy> for ListedShadow<'a> {
    fn from(shadow: &'a ShadowCopy) -> Self {
        Self {
            shadow: shadow.into(),
            set_id: shadow.set_id,
            created_at: shadow.created_at,
            attributes: shadow.attributes,
            owner: shadow.owner,
        }
    }
}

impl<'a> From<&'a WriterRecord> for WriterDocument<'a> {
    fn from(writer: &'a WriterRecord) -> Self {
        let components = writer.components.iter().map(|component| ComponentDocument {
            name: &component.name,
            consistency: component.consistency,
            failure: component.failure.as_ref(),
        });
        Self {
            name: &writer.name,
            state: writer.state,
            frozen_ms: None,
            components: components.collect(),
            failure: writer.failure.as_ref(),
        }
    }
}

impl<'a> From<&'a ShadowCopySet> for SetDocument<'a> {
    fn from(set: &'a ShadowCopySet) -> Self {
        Self {
            set_id: set.set_id,
            consistency: set.consistency,
            atomic: set.atomic,
            hold_ms: set.hold_ms,
            freeze_ms: set.freeze_ms,
            shadows: set.shadows.iter().map(Into::into).collect(),
            writers: set.writers.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a ShadowCopySet> for ShownSet<'a> {
    fn from(set: &'a ShadowCopySet) -> Self {
        let mut document = SetDocument::from(set);
        for (writer, record) in document.writers.iter_mut().zip(&set.writers) {
            writer.frozen_ms = Some(record.frozen_ms);
        }
        Self {
            set: document,
            context: set.context,
            created_at: set.created_at,
            requester: &set.requester,
            owner: set.owner,
            proof: set.proof.as_ref(),
        }
    }
}

/// `vss document check --json`.
#[derive(Debug, Serialize)]
pub(crate) struct DocumentCheck<'a> {
    #[serde(serialize_with = "vss_model::path_text::serialize")]
    file: &'a Path,
    valid: bool,
    kind: Option<&'static str>,
    encoding: Option<&'static str>,
    error: Option<DocumentFault<'a>>,
    remarks: Vec<DocumentRemark<'a>>,
    remarks_left_out: usize,
}

/// Why a document is not valid.
#[derive(Debug, Serialize)]
struct DocumentFault<'a> {
    code: VssCode,
    line: u32,
    column: u32,
    message: &'a str,
}

/// What is not known in a document.
#[derive(Debug, Serialize)]
struct DocumentRemark<'a> {
    line: u32,
    column: u32,
    message: &'a str,
}

impl<'a> DocumentCheck<'a> {
    pub(crate) fn of(file: &'a Path, read: &'a Result<AnyDocument, DocumentError>) -> Self {
        let empty = Self {
            file,
            valid: false,
            kind: None,
            encoding: None,
            error: None,
            remarks: Vec::new(),
            remarks_left_out: 0,
        };
        match read {
            Err(error) => {
                let (line, column) = (error.position.line, error.position.column);
                let error = DocumentFault { code: error.code(), line, column, message: &error.message };
                Self { error: Some(error), ..empty }
            }
            Ok(document) => {
                let (_, encoding, remarks, remarks_left_out) = document_text::kind(document);
                let remark = |one: &'a vss_documents::Remark| DocumentRemark {
                    line: one.position.line,
                    column: one.position.column,
                    message: &one.message,
                };
                Self {
                    valid: true,
                    kind: Some(DocumentShown::from(document).kind()),
                    encoding: Some(document_text::encoding(encoding)),
                    remarks: remarks.iter().map(remark).collect(),
                    remarks_left_out,
                    ..empty
                }
            }
        }
    }
}

/// `vss document list --json`.
#[derive(Debug, Serialize)]
pub(crate) struct DocumentsListed<'a> {
    pub(crate) set_id: SetId,
    pub(crate) documents: &'a [DocumentEntry],
}

/// `vss document show --json`.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum DocumentShown<'a> {
    WriterMetadata { metadata: &'a WriterMetadata },
    BackupComponents { session: &'a BackupComponents },
    Manifest { manifest: &'a Manifest },
}

impl DocumentShown<'_> {
    const fn kind(&self) -> &'static str {
        match self {
            Self::WriterMetadata { .. } => "writer_metadata",
            Self::BackupComponents { .. } => "backup_components",
            Self::Manifest { .. } => "manifest",
        }
    }
}

impl<'a> From<&'a AnyDocument> for DocumentShown<'a> {
    fn from(document: &'a AnyDocument) -> Self {
        match document {
            AnyDocument::WriterMetadata(it) => Self::WriterMetadata { metadata: it.content() },
            AnyDocument::BackupComponents(it) => Self::BackupComponents { session: it.content() },
            AnyDocument::Manifest(manifest) => Self::Manifest { manifest },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "b5946137-7b9f-4925-af80-51abd60b20d5";
    const AT: &str = "2026-11-24T09:30:00Z";

    fn set(nested: Value) -> ShadowCopySet {
        serde_json::from_value(json!({
            "set_id": ID, "consistency": "file-system", "atomic": true, "hold_ms": 0, "freeze_ms": 7, "context": "backup",
            "backup_state": {"select_components": false, "bootable_system_state": false, "backup_type": "full",
                "partial_file_support": false},
            "owner": 0, "requester": "vss create", "created_at": AT,
            "writers": [{"name": "redis", "class_id": ID, "instance_id": ID, "state": "WAITING_FOR_BACKUP_COMPLETE",
                "failure": null, "frozen_ms": 5,
                "components": [{"logical_path": "", "name": "db", "consistency": "application", "failure": null}]}],
            "shadows": [{"id": ID, "set_id": ID, "volume": "/srv", "volume_id": "btrfs:x:5", "provider": "btrfs",
                "provider_id": ID, "device": null, "path": null, "consistency": "file-system", "cut_at": AT,
                "nested": nested, "created_at": AT, "attributes": 8, "owner": 1000}],
        }))
        .unwrap()
    }

    #[test]
    fn create_has_exactly_the_documented_keys() {
        let set = set(json!([]));
        assert_eq!(
            serde_json::to_value(SetDocument::from(&set)).unwrap(),
            json!({
                "set_id": ID, "consistency": "file-system", "atomic": true, "hold_ms": 0, "freeze_ms": 7,
                "shadows": [{"id": ID, "volume": "/srv", "provider": "btrfs", "device": null, "path": null,
                    "consistency": "file-system", "cut_at": AT}],
                "writers": [{"name": "redis", "state": "WAITING_FOR_BACKUP_COMPLETE",
                    "components": [{"logical_path": "", "name": "db", "consistency": "application"}]}],
            })
        );
    }

    /// Every key that is printed is told in the help of the command that prints it.
    #[test]
    fn the_keys_of_sets_and_lists_are_told() {
        let nested = || json!([{"path": "sub", "cut_at": AT}]);
        let made = serde_json::to_value(SetDocument::from(&set(nested()))).unwrap();
        for name in keys(&made) {
            assert!(crate::args::CREATE_HELP.contains(&name), "{name} is not in the help of create");
        }
        let set = set(nested());
        let list: Vec<ListedShadow<'_>> = set.shadows.iter().map(ListedShadow::from).collect();
        let help = format!("{}{}", crate::args::CREATE_HELP, crate::args::LIST_HELP);
        for name in keys(&serde_json::to_value(List::Shadows(list)).unwrap()) {
            assert!(help.contains(&name), "{name} is not in the help of list");
        }
        let writer = json!({"name": "", "instance_name": "", "class_id": ID, "instance_id": ID, "level": "system",
            "freeze_ms": 1, "uid": 0, "pid": 1});
        let provider = json!({"id": ID, "name": "", "version": "", "type": "", "freeze_policy": "", "kind": "",
            "writable_phase": true});
        let volume = json!({"volume": "/", "volume_id": "x:y", "fs_type": "", "source": "", "provider": null,
            "reason": "", "shadows": 0});
        // Each is an entry as it comes from the service, with all its keys.
        serde_json::from_value::<vss_api::management::RegisteredWriter>(writer.clone()).unwrap();
        serde_json::from_value::<vss_api::management::ProviderEntry>(provider.clone()).unwrap();
        serde_json::from_value::<vss_api::management::VolumeEntry>(volume.clone()).unwrap();
        for name in [writer, provider, volume].iter().flat_map(keys) {
            assert!(crate::args::LIST_HELP.contains(&name), "{name} is not in the help of list");
        }
    }

    /// The keys of `vss check --json` are those of its help, at every depth.
    #[test]
    fn check_has_exactly_the_documented_keys() {
        let failure = json!({"code": "E_INVALIDARG", "number": 0x8007_0057_u32, "message": "m", "hint": "h"});
        let document = CheckDocument {
            possible: false,
            paths: vec![CheckedPathDocument {
                path: "/srv".into(),
                resolved: None,
                volume_id: None,
                failure: Some(serde_json::from_value(failure.clone()).unwrap()),
            }],
            ..CheckDocument::default()
        };
        assert_eq!(
            serde_json::to_value(&document).unwrap(),
            json!({"possible": false, "consistency": null, "atomic": false, "volumes": [], "writers": [], "stays_live": [],
                "obstacles": [], "warnings": [],
                "paths": [{"path": "/srv", "resolved": null, "volume_id": null, "failure": failure}]})
        );
        let volume = json!({"volume": "/srv", "volume_id": "x:y", "fs_type": "btrfs", "provider": "btrfs",
            "consistency": "crash", "nested_count": 1, "nested": ["n"], "shadows": 0, "failure": null,
            "hold_ms": 1, "copying": {"work": "copying", "full_compare": null, "storage": "/var/lib/vss",
                "places": [{"storage": "/var/lib/vss", "bytes_needed": 1, "bytes_available": 1}], "rounds": 1,
                "bytes_to_read": 1, "copy_rate": 1, "dirty_rate": 1, "read_ms": 1}});
        let missing = json!({"volume": "/wal", "volume_id": "x:z", "provider": null, "reason": "r"});
        let component = json!({"logical_path": "", "name": "db", "consistency": "application", "missing": [missing]});
        let writer = json!({"name": "pg", "instance_name": "", "class_id": ID, "instance_id": ID, "failure": null,
            "component_count": 1, "components": [component]});
        let help = crate::args::CHECK_HELP;
        for (sample, key) in [(volume, "volumes"), (writer, "writers")] {
            let read_back = match key {
                "volumes" => serde_json::to_value(serde_json::from_value::<CheckedVolume>(sample.clone()).unwrap()),
                _ => serde_json::to_value(serde_json::from_value::<CheckedWriter>(sample.clone()).unwrap()),
            };
            assert_eq!(read_back.unwrap(), sample);
            assert!(help.contains(key));
            let described = &help[help.find(key).unwrap()..];
            for name in keys(&sample) {
                assert!(described.contains(&name), "{name} of {key} is not in the help");
            }
        }
        for name in keys(&serde_json::to_value(&document).unwrap()) {
            assert!(help.contains(&name), "{name} is not in the help");
        }
    }

    /// The keys of an object and of those within it.
    fn keys(value: &Value) -> Vec<String> {
        match value {
            Value::Object(fields) => {
                fields.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(keys(value))).collect()
            }
            Value::Array(values) => values.iter().flat_map(keys).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_set_of_an_earlier_release_is_shown_without_a_proof() {
        let document = serde_json::to_value(ShownSet::from(&set(json!([])))).unwrap();
        assert_eq!((&document["proof"], &document["writers"][0]["frozen_ms"]), (&Value::Null, &json!(5)));
    }

    #[test]
    fn a_list_adds_what_the_set_knows() {
        let set = set(json!([{"path": "sub", "cut_at": AT}]));
        let list = List::Shadows(set.shadows.iter().map(ListedShadow::from).collect());
        assert_eq!(
            serde_json::to_value(list).unwrap(),
            json!({"shadows": [{"id": ID, "volume": "/srv", "provider": "btrfs", "device": null, "path": null,
                "consistency": "file-system", "cut_at": AT, "nested": [{"path": "sub", "cut_at": AT}],
                "set_id": ID, "created_at": AT, "attributes": 8, "owner": 1000}]})
        );
    }
}
