//! How good a set became: what is less than it could be, and whether that is enough.

use crate::WriterComponents;
use std::collections::BTreeSet;
use vss_model::{ComponentName, Consistency, ShadowCopySet, VssCode, VssError, WriterState, WriterStatus};

/// What is less than it could be because a writer failed: a sentence each.
pub(super) fn degraded(set: &ShadowCopySet, statuses: &[WriterStatus]) -> Vec<String> {
    let failed = statuses.iter().filter(|writer| writer.involved).filter_map(|writer| {
        let failure = writer.failure.as_ref()?;
        Some(format!("Writer {} failed: {failure}", writer.name))
    });
    let worse = set.writers.iter().flat_map(|writer| {
        let components = writer.components.iter().filter(|one| one.consistency < Consistency::Application);
        components
            .map(move |one| format!("{} of writer {} is only {}-consistent", one.name, writer.name, one.consistency))
    });
    failed.chain(worse).collect()
}

/// The numbers of the chosen components that failed for their writers. One that the record does not have counts too: nothing
/// is known of it.
pub(super) fn given_up(set: &ShadowCopySet, chosen: &[WriterComponents]) -> BTreeSet<usize> {
    let succeeded = |writer: &WriterComponents, name: &ComponentName| {
        let record = set.writers.iter().find(|one| one.instance_id == writer.metadata.instance_id);
        let record = record.and_then(|record| record.components.iter().find(|one| one.name == *name));
        record.is_some_and(|record| record.failure.is_none())
    };
    let all = chosen.iter().flat_map(|writer| writer.explicit.iter().map(move |name| succeeded(writer, name)));
    all.enumerate().filter(|(_, succeeded)| !succeeded).map(|(number, _)| number).collect()
}

/// Fails with the first writer that failed in BackupComplete; earlier failures were told when the set was made.
pub(super) fn all_completed(statuses: &[WriterStatus]) -> Result<(), VssError> {
    let failed = statuses.iter().find(|writer| writer.involved && writer.state == WriterState::FailedAtBackupComplete);
    failed.and_then(|writer| Some((writer, writer.failure.clone()?))).map_or(Ok(()), |(writer, failure)| {
        Err(failure.while_doing(format!("Writer {} ({})", writer.name, writer.state)))
    })
}

/// Refuses a set that is worse than `level`, naming what makes it so.
pub(super) fn require(set: &ShadowCopySet, level: Consistency) -> Result<(), VssError> {
    if set.consistency >= level {
        return Ok(());
    }
    let volumes = set.shadows.iter().filter(|shadow| shadow.consistency < level).map(|shadow| {
        let volume = shadow.volume.display();
        match shadow.nested.len() {
            0 => format!("{volume} is {}", shadow.consistency),
            1 => format!("{volume} is {} (cut with a nested subvolume)", shadow.consistency),
            nested => format!("{volume} is {} (cut with {nested} nested subvolumes)", shadow.consistency),
        }
    });
    let writers = set.writers.iter().flat_map(|writer| {
        let worse = writer.components.iter().filter(|component| component.consistency < level);
        worse.map(move |component| format!("{} of writer {} is {}", component.name, writer.name, component.consistency))
    });
    let mut parts: Vec<String> = volumes.chain(writers).collect();
    if parts.is_empty() {
        parts.push(format!("it is {}", set.consistency));
    }
    Err(VssError::new(
        VssCode::WriterErrorInconsistentSnapshot,
        format!("The shadow copy set is not {level}-consistent, as was required: {}; it was deleted", parts.join(", ")),
    )
    .with_hint("Require less, or let a writer that knows the data take part"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vss_model::{ShadowId, WriterClassId, WriterInstanceId};

    fn set(consistency: Consistency) -> ShadowCopySet {
        serde_json::from_value(serde_json::json!({
            "set_id": vss_model::SetId::random(), "consistency": consistency, "atomic": false, "hold_ms": 0, "freeze_ms": 1,
            "writers": [], "context": "backup", "owner": 0, "requester": "test", "created_at": "2026-11-24T09:30:00Z",
            "backup_state": {"select_components": false, "bootable_system_state": false, "backup_type": "full",
                "partial_file_support": false},
            "shadows": [{"id": ShadowId::random(), "set_id": vss_model::SetId::random(), "volume": "/srv",
                "volume_id": "btrfs:x:5", "provider": "btrfs", "provider_id": vss_model::ProviderId::random(),
                "device": null, "path": null, "consistency": consistency, "cut_at": "2026-11-24T09:30:00Z",
                "created_at": "2026-11-24T09:30:00Z", "attributes": 0, "owner": 0,
                "nested": [{"path": "a", "cut_at": "2026-11-24T09:30:00Z"}]}],
        }))
        .unwrap()
    }

    #[test]
    fn a_failed_writer_and_its_components_are_warned_of() {
        let id = WriterInstanceId::random();
        let failure = VssError::new(VssCode::WriterErrorRetryable, "The lock is taken");
        let writer = serde_json::json!({"name": "redis", "class_id": id, "instance_id": id, "state": "FAILED_AT_FREEZE",
            "failure": failure, "frozen_ms": 0, "components": [
                {"logical_path": "", "name": "data", "consistency": "crash", "failure": null},
                {"logical_path": "", "name": "rest", "consistency": "application", "failure": null}]});
        let set = ShadowCopySet { writers: vec![serde_json::from_value(writer).unwrap()], ..set(Consistency::Crash) };
        let status = |involved| WriterStatus {
            instance_id: id,
            class_id: WriterClassId::random(),
            name: "redis".to_owned(),
            involved,
            state: WriterState::FailedAtFreeze,
            failure: Some(failure.clone()),
            application_code: None,
        };
        let warnings = degraded(&set, &[status(true), status(false)]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("redis failed: The lock is taken"));
        assert!(warnings[1].contains("data of writer redis is only crash-consistent"));
    }

    #[test]
    fn what_a_writer_gave_up_is_counted_over_all_writers() {
        let id = WriterInstanceId::random();
        let failure = VssError::new(VssCode::WriterErrorRetryable, "cannot hold still");
        let component =
            |name: &str, failure| serde_json::json!({"name": name, "consistency": "crash", "failure": failure});
        let record = serde_json::json!({"name": "redis", "class_id": id, "instance_id": id,
            "state": "WAITING_FOR_BACKUP_COMPLETE", "failure": failure, "frozen_ms": 0,
            "components": [component("kept", None), component("lost", Some(failure))]});
        let set = ShadowCopySet { writers: vec![serde_json::from_value(record).unwrap()], ..set(Consistency::Crash) };
        let writer = |instance: WriterInstanceId, components: [&str; 2]| WriterComponents {
            metadata: serde_json::from_value(serde_json::json!({"class_id": id, "name": "redis",
                "instance_id": instance, "components": []}))
            .unwrap(),
            explicit: components.map(|name| ComponentName::new("", name)).into(),
        };
        let chosen = [writer(id, ["kept", "lost"]), writer(WriterInstanceId::random(), ["kept", "unheard of"])];
        assert_eq!(given_up(&set, &chosen), [1, 2, 3].into());
        assert_eq!(given_up(&set, &[writer(id, ["kept", "unheard of"])]), [1].into());
    }

    #[test]
    fn what_is_required_is_the_least_and_the_culprit_is_named() {
        require(&set(Consistency::Application), Consistency::FileSystem).unwrap();
        require(&set(Consistency::Crash), Consistency::Crash).unwrap();
        let error = require(&set(Consistency::Crash), Consistency::FileSystem).unwrap_err();
        assert_eq!(error.code, VssCode::WriterErrorInconsistentSnapshot);
        assert!(error.message.contains("/srv is crash (cut with a nested subvolume)"), "{}", error.message);
    }
}
