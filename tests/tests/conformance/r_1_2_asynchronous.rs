//! R 1.2, 1.6 and 12: operations, abort, the requester's end.

use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::Duration;
use vss_model::VssCode::{BadState, ObjectNotFound, SnapshotSetInProgress};
use vss_tests::instance::wait_until;
use vss_writer::messages::EventKind;
use vss_writer::simulated::{Description, Sleeping};

/// Shop takes so long to get ready that a call finds it at work.
fn slow(scene: &Scene, event: EventKind, ms: u64) -> Description {
    Description { sleep: vec![Sleeping { event, ms, times: 1 }], ..scene.description() }
}

rows! {
    /// QueryStatus: pending, then finished, with their numbers
    query_status_numbers => |scene| {
        let _shop = scene.join(slow(&scene, EventKind::Identify, 2000))?;
        let mut wire = scene.session()?;
        let started = wire.ok("GatherWriterMetadata", json!({}))?;
        let pending = wire.ok("QueryStatus", json!({"operation_id": started["operation_id"]}))?;
        ensure!(pending["state"] == "pending" && pending["number"] == 0x0004_2309, "{pending}");
        let finished = wire.end_of(&started["operation_id"])?;
        ensure!(finished["state"] == "finished" && finished["number"] == 0x0004_230a, "{finished}");
        Ok(())
    };
    /// Wait returns after its time, which says nothing of the operation
    wait_has_a_timeout => |scene| {
        let _shop = scene.join(slow(&scene, EventKind::Identify, 2000))?;
        let mut wire = scene.session()?;
        let started = wire.ok("GatherWriterMetadata", json!({}))?;
        let waited = wire.ok("Wait", json!({"operation_id": started["operation_id"], "timeout_ms": 10, "seen_progress": 9}))?;
        ensure!(waited["state"] == "pending", "{waited}");
        wire.end_of(&started["operation_id"])?;
        Ok(())
    };
    /// Cancel: S_OK, then CANCELLED; FINISHED for what had ended
    cancel_and_its_answers => |scene| {
        let _shop = scene.join(slow(&scene, EventKind::PrepareBackup, 2000))?;
        let mut wire = scene.session()?;
        let shop = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &shop)?;
        let started = wire.ok("PrepareForBackup", json!({}))?;
        let id = json!({"operation_id": started["operation_id"]});
        let first = wire.ok("Cancel", id.clone())?;
        ensure!(first["result"] == 0, "{first}");
        let ended = wire.end_of(&started["operation_id"])?;
        ensure!(ended["state"] == "cancelled" && ended["number"] == 0x0004_230b, "{ended}");
        let again = wire.ok("Cancel", id)?;
        ensure!(again["result"] == 0x0004_230b, "{again}");
        let gathered = wire.ok("GatherWriterStatus", json!({}))?;
        wire.end_of(&gathered["operation_id"])?;
        let late = wire.ok("Cancel", json!({"operation_id": gathered["operation_id"]}))?;
        ensure!(late["result"] == 0x0004_230a, "{late}");
        Ok(())
    };
    /// A second operation while one runs
    one_operation_at_a_time => |scene| {
        let _shop = scene.join(slow(&scene, EventKind::Identify, 2000))?;
        let mut wire = scene.session()?;
        let started = wire.ok("GatherWriterMetadata", json!({}))?;
        wire.refused("SetBackupState", Scene::state("full"), BadState)?;
        wire.end_of(&started["operation_id"])?;
        Ok(())
    };
    /// An operation of nobody
    unknown_operation => |scene| {
        let mut wire = scene.session()?;
        let unknown = json!({"operation_id": "00000000-0000-0000-0000-000000000001"});
        wire.refused("QueryStatus", unknown, ObjectNotFound)?;
        Ok(())
    };
    /// A successful result does not mean that every writer succeeded
    success_says_nothing_of_writers => |scene| {
        let mut description = scene.description();
        description.fail = vec![failing(EventKind::PrepareSnapshot, "VSS_E_WRITERERROR_RETRYABLE")];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let status = wire.writer_status("shop")?;
        ensure!(status["state_number"] == 8 && status["failure"]["number"] == 0x8004_23f3_u32, "{status}");
        Ok(())
    };
    /// R 12: single global creation lock, immediate SNAPSHOT_SET_IN_PROGRESS
    one_creation_at_a_time => |scene| {
        let mut first = scene.in_context("file_share_backup")?;
        first.ok("StartSnapshotSet", json!({}))?;
        let mut second = scene.in_context("file_share_backup")?;
        second.refused("StartSnapshotSet", json!({}), SnapshotSetInProgress)?;
        drop(first);
        let free = wait_until(Duration::from_secs(30), || second.call("StartSnapshotSet", json!({})).is_ok_and(|done| done.is_ok()));
        ensure!(free, "the lock outlives its session");
        Ok(())
    };
    /// R 1.6: AbortBackup tells Abort, may be repeated, and is of no effect when nothing is in progress
    abort_backup => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        wire.ok("AbortBackup", json!({}))?;
        scene.prepared(&mut wire, "full")?;
        wire.ok("AbortBackup", json!({}))?;
        wire.ok("AbortBackup", json!({}))?;
        ensure!(shop.handle().events() == [EventKind::PrepareBackup, EventKind::Abort], "{:?}", shop.handle().events());
        wire.refused("DoSnapshotSet", json!({}), BadState)?;
        Ok(())
    };
    /// R 12: requester death: Abort if creating, BackupShutdown
    requester_death_tells_writers => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.prepared(&mut wire, "full")?;
        drop(wire);
        let told = wait_until(Duration::from_secs(30), || shop.handle().events().last() == Some(&EventKind::BackupShutdown));
        let events = shop.handle().events();
        ensure!(told && events.contains(&EventKind::Abort), "{events:?}");
        Ok(())
    };
    /// R 12: requester death: auto-release deletion
    requester_death_deletes_auto_release_copies => |scene| {
        let mut wire = scene.in_context("file_share_backup")?;
        let (_, shadow) = scene.copy(&mut wire)?;
        let mut other = scene.in_context("all")?;
        other.ok("GetSnapshotProperties", json!({"snapshot_id": shadow}))?;
        drop(wire);
        let gone = wait_until(Duration::from_secs(30), || {
            other.call("GetSnapshotProperties", json!({"snapshot_id": shadow})).is_ok_and(|answer| answer.is_err())
        });
        ensure!(gone, "the copy outlives its session");
        Ok(())
    };
    /// R 12: snapshot-less backup path: no PostSnapshot
    backup_without_a_set => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        let metadata = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &metadata)?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("BackupComplete", json!({}))?;
        ensure!(shop.handle().events() == [EventKind::PrepareBackup, EventKind::BackupComplete], "{:?}", shop.handle().events());
        Ok(())
    };
    /// 1.3 / P 10, row 15: an empty set is legal when the components are on no volume of it
    empty_set => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        let metadata = scene.gather(&mut wire, "full")?;
        Scene::add_components(&mut wire, &metadata)?;
        wire.ok("StartSnapshotSet", json!({}))?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        wire.done("BackupComplete", json!({}))?;
        let events = shop.handle().events();
        ensure!(events.contains(&EventKind::Freeze) && events.last() == Some(&EventKind::BackupComplete), "{events:?}");
        Ok(())
    };
    /// P 4 / IVssAdmin: AbortAllSnapshotsInProgress
    abort_all_snapshots_in_progress => |scene| {
        let mut wire = scene.in_context("file_share_backup")?;
        let set = wire.ok("StartSnapshotSet", json!({}))?;
        let mut other = scene.connect()?;
        let aborted = other.ok("org.linuxvss.Management.AbortAllSnapshotsInProgress", json!({}))?;
        ensure!(aborted["sets"] == json!([set["set_id"]]), "{aborted}");
        let mut next = scene.in_context("file_share_backup")?;
        let free = wait_until(Duration::from_secs(30), || next.call("StartSnapshotSet", json!({})).is_ok_and(|done| done.is_ok()));
        ensure!(free, "the creation lock is not given back");
        Ok(())
    };
    /// P 10, row 20: 8 restore sessions
    restore_sessions_are_limited => |scene| {
        let mut open = Vec::new();
        for _ in 0..8 {
            let mut wire = scene.connect()?;
            wire.ok("InitializeForRestore", json!({"requester": "x"}))?;
            open.push(wire);
        }
        scene.connect()?.refused("InitializeForRestore", json!({"requester": "x"}), vss_model::VssCode::OutOfMemory)?;
        scene.session()?;
        Ok(())
    };
    /// P 10, row 20: 64 backup sessions
    backup_sessions_are_limited => |scene| {
        let mut open = Vec::new();
        for _ in 0..64 {
            open.push(scene.session()?);
        }
        scene.connect()?.refused("InitializeForBackup", json!({"requester": "x"}), vss_model::VssCode::OutOfMemory)?;
        Ok(())
    };
}

/// An event that always fails with this code.
pub(crate) fn failing(event: EventKind, code: &str) -> vss_writer::simulated::Failing {
    let failing: Value = json!({"event": event, "code": code, "message": "as described", "application_code": 17});
    serde_json::from_value(failing).expect("a failing event")
}
