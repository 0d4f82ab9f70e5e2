//! What the backup that this one builds on says of the chosen components (spec R 4.2).

use crate::components::WriterComponents;
use std::collections::BTreeMap;
use vss_model::{BackupComponents, BackupType, Component, SessionComponent, VssCode, VssError, WriterMetadata};

/// The stamps that the chosen components have in `base`, by number: those of all writers are counted in their order.
///
/// # Errors
/// `E_INVALIDARG` for a component that failed in `base` or is not in it, where what this backup leaves out would be in no
/// backup. The type is that of all components of a set, so it cannot be taken as a full backup of this one alone.
pub(super) fn stamps(
    chosen: &[WriterComponents],
    backup_type: BackupType,
    base: &BackupComponents,
) -> Result<BTreeMap<usize, String>, VssError> {
    let components = chosen.iter().flat_map(|writer| {
        let known = writer.explicit.iter().filter_map(|name| writer.metadata.component(name));
        known.map(|component| (&writer.metadata, component))
    });
    let mut stamps = BTreeMap::new();
    for (number, (writer, component)) in components.enumerate() {
        let failed = |one: &SessionComponent| one.backup_succeeded == Some(false);
        // What brought it in there speaks for it.
        let mut holders = base
            .of_class(writer.class_id)
            .filter(|one| one.name == component.name || one.name.contains(&component.name))
            .peekable();
        if writer.declaration.backup_schema.effective(backup_type).builds_on_another() {
            if holders.peek().is_none() {
                return Err(refusal(writer, component, "is not in the backup that this one builds on"));
            }
            if holders.by_ref().any(failed) {
                return Err(refusal(writer, component, "failed in the backup that this one builds on"));
            }
        }
        let same = |one: &&SessionComponent| one.name == component.name && one.kind == component.kind;
        let stamp = base.of_class(writer.class_id).find(same).filter(|one| !failed(one)).map(|one| &one.backup_stamp);
        stamps.extend(stamp.filter(|stamp| !stamp.is_empty()).map(|stamp| (number, stamp.clone())));
    }
    Ok(stamps)
}

fn refusal(writer: &WriterMetadata, component: &Component, why: &str) -> VssError {
    let message = format!("Component {} of writer {} {why}", component.name, writer.name);
    VssError::new(VssCode::InvalidArgument, message).with_hint("Make a full backup of it, or choose others without it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::{BackupState, ComponentName};

    /// A writer that can make incremental backups (bit 2), or none but full ones.
    fn writer(backup_schema: u32) -> WriterComponents {
        let metadata: WriterMetadata = serde_json::from_value(serde_json::json!({
            "class_id": "00000000-0000-0000-0000-000000000001", "name": "shop",
            "instance_id": "00000000-0000-0000-0000-000000000002", "backup_schema": backup_schema,
            "components": [{"name": "all"}, {"name": "part", "logical_path": "all"}, {"name": "other"}]}))
        .unwrap();
        WriterComponents { metadata, explicit: Vec::new() }
    }

    fn base(succeeded: Option<bool>) -> BackupComponents {
        let mut base = BackupComponents::of(BackupState::default());
        let all = base.add(&writer(0).metadata, &ComponentName::new("", "all")).unwrap();
        all.backup_succeeded = succeeded;
        all.backup_stamp = "41".to_owned();
        base
    }

    fn asked(backup_schema: u32, name: ComponentName, base: &BackupComponents) -> Result<Vec<String>, String> {
        let chosen = WriterComponents { explicit: vec![name], ..writer(backup_schema) };
        let stamps = stamps(&[chosen], BackupType::Incremental, base);
        stamps.map(|stamps| stamps.into_values().collect()).map_err(|error| error.message)
    }

    #[test]
    fn what_failed_in_the_base_or_is_not_in_it_is_nothing_to_build_on() {
        let all = || ComponentName::new("", "all");
        let part = || ComponentName::new("all", "part");
        for good in [base(Some(true)), base(None)] {
            assert_eq!(asked(2, all(), &good).unwrap(), ["41"]);
            assert_eq!(asked(2, part(), &good).unwrap(), Vec::<String>::new());
            assert!(
                asked(2, ComponentName::new("", "other"), &good)
                    .unwrap_err()
                    .contains("other of writer shop is not in")
            );
        }
        for name in [all(), part()] {
            assert!(asked(2, name, &base(Some(false))).unwrap_err().contains("of writer shop failed in the backup"));
        }
        // Of a writer that knows full backups alone everything is taken, and no stamp of a failed one counts.
        assert_eq!(asked(0, all(), &base(Some(false))).unwrap(), Vec::<String>::new());
        assert_eq!(asked(0, ComponentName::new("", "other"), &base(None)).unwrap(), Vec::<String>::new());
        assert_eq!(asked(0, all(), &base(Some(true))).unwrap(), ["41"]);
    }
}
