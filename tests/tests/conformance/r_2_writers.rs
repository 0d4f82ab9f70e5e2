//! R 2.2 to 2.9: events, states, failures of writers, and R 7.3: who takes part.

use crate::r_1_2_asynchronous::failing;
use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::Duration;
use vss_model::{AppLevel, VssCode, WriterClassId, WriterState};
use vss_tests::instance::wait_until;
use vss_tests::wire::Wire;
use vss_writer::messages::EventKind as E;
use vss_writer::simulated::{Description, Sleeping};

/// What a writer that fails `event` with `code` leads to, after the call that brings it.
fn failed_at(scene: &Scene, event: E, code: &str) -> anyhow::Result<Value> {
    let _shop = scene.join(Description { fail: vec![failing(event, code)], ..scene.description() })?;
    let mut wire = scene.session()?;
    scene.prepared(&mut wire, "full")?;
    if event != E::PrepareBackup {
        wire.done("DoSnapshotSet", json!({}))?;
    }
    if event == E::BackupComplete {
        wire.done("BackupComplete", json!({}))?;
    }
    wire.writer_status("shop")
}

fn ensure_failed(status: &Value, state: &str, number: u8, code: VssCode) -> anyhow::Result<()> {
    let good = status["state"] == state
        && status["state_number"] == number
        && status["failure"]["code"] == code.name()
        && status["failure"]["number"] == code.hresult()
        && status["application_code"] == 17;
    ensure!(good, "{state} {number} with {code} expected: {status}");
    Ok(())
}

/// The state of shop after each call of a whole backup.
fn states(scene: &Scene, wire: &mut Wire) -> anyhow::Result<Vec<u64>> {
    let mut states = Vec::new();
    scene.prepared(wire, "full")?;
    states.push(wire.writer_status("shop")?["state_number"].as_u64().unwrap_or(99));
    for call in ["DoSnapshotSet", "BackupComplete"] {
        wire.done(call, json!({}))?;
        states.push(wire.writer_status("shop")?["state_number"].as_u64().unwrap_or(99));
    }
    Ok(states)
}

rows! {
    /// 2.2 the events of a backup, in order
    event_sequence => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        wire.done("BackupComplete", json!({}))?;
        drop(wire);
        let all = [E::PrepareBackup, E::PrepareSnapshot, E::Freeze, E::Thaw, E::PostSnapshot, E::BackupComplete, E::BackupShutdown];
        let over = wait_until(Duration::from_secs(30), || shop.handle().events() == all);
        ensure!(over, "{:?}", shop.handle().events());
        Ok(())
    };
    /// 2.2 every event carries the session id and the set
    session_and_set_in_every_event => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let set = wire.ok("GetSnapshotSet", json!({}))?["set"]["set_id"].clone();
        let events: Vec<_> = shop.handle().told().into_iter().filter_map(|told| told.event).collect();
        ensure!(events.iter().all(|event| event.session_id == events[0].session_id), "one session");
        ensure!(events.iter().all(|event| event.set_id.is_some_and(|id| json!(id) == set)), "one set");
        Ok(())
    };
    /// 2.3 writers get the copy in PostSnapshot, and in no other event (GetSnapshotDeviceName)
    the_copy_in_post_snapshot_alone => |scene| {
        let shop = scene.shop()?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        wire.done("BackupComplete", json!({}))?;
        for told in shop.handle().told() {
            let wanted = usize::from(told.kind == E::PostSnapshot);
            ensure!(told.directories == wanted, "{:?}: {} directories", told.kind, told.directories);
        }
        Ok(())
    };
    /// 2.2 BackupShutdown names the set that was made, and none where none was
    backup_shutdown_names_the_set => |scene| {
        for is_made in [true, false] {
            let shop = scene.shop()?;
            let mut wire = scene.session()?;
            scene.prepared(&mut wire, "full")?;
            let set = if is_made {
                wire.done("DoSnapshotSet", json!({}))?;
                wire.ok("GetSnapshotSet", json!({}))?["set"]["set_id"].clone()
            } else {
                Value::Null
            };
            drop(wire);
            ensure!(wait_until(Duration::from_secs(30), || shop.handle().last(E::BackupShutdown).is_some()), "none came");
            let told = shop.handle().last(E::BackupShutdown).map(|event| json!(event.set_id));
            ensure!(told.as_ref() == Some(&set), "{told:?} instead of {set}");
        }
        Ok(())
    };
    /// 2.2 Identify: failure: the writer is absent
    failure_in_identify => |scene| {
        let _shop = scene.join(Description { fail: vec![failing(E::Identify, "VSS_E_WRITERERROR_RETRYABLE")], ..scene.description() })?;
        let mut wire = scene.session()?;
        ensure!(scene.gather(&mut wire, "full")?.is_null(), "it is listed");
        Ok(())
    };
    /// 2.2 / 2.7 FAILED_AT_PREPARE_BACKUP 7
    failed_at_prepare_backup => |scene| {
        ensure_failed(&failed_at(&scene, E::PrepareBackup, "VSS_E_WRITERERROR_NONRETRYABLE")?, "FAILED_AT_PREPARE_BACKUP", 7, VssCode::WriterErrorNonRetryable)
    };
    /// 2.2 / 2.7 FAILED_AT_PREPARE_SNAPSHOT 8
    failed_at_prepare_snapshot => |scene| {
        ensure_failed(&failed_at(&scene, E::PrepareSnapshot, "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT")?, "FAILED_AT_PREPARE_SNAPSHOT", 8, VssCode::WriterErrorInconsistentSnapshot)
    };
    /// 2.2 / 2.7 FAILED_AT_FREEZE 9
    failed_at_freeze => |scene| {
        ensure_failed(&failed_at(&scene, E::Freeze, "VSS_E_WRITERERROR_OUTOFRESOURCES")?, "FAILED_AT_FREEZE", 9, VssCode::WriterErrorOutOfResources)
    };
    /// 2.2 / 2.7 FAILED_AT_THAW 10
    failed_at_thaw => |scene| {
        ensure_failed(&failed_at(&scene, E::Thaw, "VSS_E_WRITERERROR_TIMEOUT")?, "FAILED_AT_THAW", 10, VssCode::WriterErrorTimeout)
    };
    /// 2.2 / 2.7 FAILED_AT_POST_SNAPSHOT 11
    failed_at_post_snapshot => |scene| {
        ensure_failed(&failed_at(&scene, E::PostSnapshot, "VSS_E_WRITERERROR_RECOVERY_FAILED")?, "FAILED_AT_POST_SNAPSHOT", 11, VssCode::WriterErrorRecoveryFailed)
    };
    /// 2.2 / 2.7 FAILED_AT_BACKUP_COMPLETE 12
    failed_at_backup_complete => |scene| {
        ensure_failed(&failed_at(&scene, E::BackupComplete, "VSS_E_WRITERERROR_RETRYABLE")?, "FAILED_AT_BACKUP_COMPLETE", 12, VssCode::WriterErrorRetryable)
    };
    /// 2.5 a failing Freeze brings Abort and no Thaw; a failing PostSnapshot none
    abort_after_a_failing_freeze => |scene| {
        let shop = scene.join(Description { fail: vec![failing(E::Freeze, "VSS_E_WRITERERROR_RETRYABLE")], ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let events = shop.handle().events();
        ensure!(events == [E::PrepareBackup, E::PrepareSnapshot, E::Freeze, E::Abort], "{events:?}");
        Ok(())
    };
    /// 2.5 failures of PrepareSnapshot and PostSnapshot bring no Abort
    no_abort_after_other_failures => |scene| {
        for event in [E::PrepareSnapshot, E::PostSnapshot] {
            let shop = scene.join(Description { fail: vec![failing(event, "VSS_E_WRITERERROR_RETRYABLE")], ..scene.description() })?;
            let mut wire = scene.session()?;
            scene.made(&mut wire, "full")?;
            ensure!(!shop.handle().events().contains(&E::Abort), "{:?}", shop.handle().events());
        }
        Ok(())
    };
    /// 2.6 Freeze goes level by level, Thaw in reverse
    freeze_order => |scene| {
        let writer = |name: &str, level: AppLevel, class: u128| {
            let description = Description { level, class_id: Some(WriterClassId::from_u128(class)), name: name.to_owned(), ..scene.description() };
            scene.join(Description { sleep: vec![Sleeping { event: E::Freeze, ms: 50, times: 1 }, Sleeping { event: E::Thaw, ms: 50, times: 1 }], ..description })
        };
        let writers = [writer("front", AppLevel::FrontEnd, 1)?, writer("back", AppLevel::BackEnd, 2)?, writer("system", AppLevel::System, 3)?];
        let mut wire = scene.session()?;
        wire.ok("SetBackupState", json!({"state": {"select_components": false, "bootable_system_state": false, "backup_type": "full", "partial_file_support": false}}))?;
        wire.done("GatherWriterMetadata", json!({}))?;
        wire.ok("StartSnapshotSet", json!({}))?;
        scene.add_volume(&mut wire)?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.done("DoSnapshotSet", json!({}))?;
        ensure!(writers.iter().all(|writer| writer.handle().events().contains(&E::Thaw)), "all were frozen");
        let told = scene.instance.management()?.events(None)?;
        let names = |event: &str| -> Vec<String> {
            let of_it = told.events.iter().filter(|one| one.writer.is_some() && one.step.as_deref() == Some(event));
            of_it.filter_map(|one| one.writer.clone()).collect()
        };
        ensure!(names("Freeze") == ["front", "back", "system"], "{:?}", names("Freeze"));
        ensure!(names("Thaw") == ["system", "back", "front"], "{:?}", names("Thaw"));
        Ok(())
    };
    /// 2.4 Freeze..Thaw longer than the writer's own limit: TIMEOUT
    freeze_limit => |scene| {
        let description = Description {
            freeze_timeout_ms: Some(300),
            sleep: vec![Sleeping { event: E::Freeze, ms: 900, times: 1 }],
            ..scene.description()
        };
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let status = wire.writer_status("shop")?;
        ensure!(status["state_number"] == 9 && status["failure"]["number"] == 0x8004_23f2_u32, "{status}");
        Ok(())
    };
    /// 2.7 the normal chain of states: STABLE, WAITING_FOR_BACKUP_COMPLETE, STABLE
    state_chain => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        let states = states(&scene, &mut wire)?;
        ensure!(states == [1, 5, 1], "{states:?}");
        Ok(())
    };
    /// 2.7 a failure parks the writer in its state until the session ends: no further event, no other state
    a_failed_writer_stays_failed => |scene| {
        let shop = scene.join(Description { fail: vec![failing(E::PrepareSnapshot, "VSS_E_WRITERERROR_RETRYABLE")], ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        wire.done("BackupComplete", json!({}))?;
        let status = wire.writer_status("shop")?;
        ensure!(status["state_number"] == 8, "{status}");
        ensure!(shop.handle().events() == [E::PrepareBackup, E::PrepareSnapshot], "{:?}", shop.handle().events());
        Ok(())
    };
    /// 2.7 the state is that of one session: what failed in one is well in another at the same time
    states_are_of_one_session => |scene| {
        let mut fail = failing(E::PrepareBackup, "VSS_E_WRITERERROR_RETRYABLE");
        fail.times = 1;
        let shop = scene.join(Description { fail: vec![fail], ..scene.description() })?;
        let mut wires = [scene.session()?, scene.session()?];
        for wire in &mut wires {
            let metadata = scene.gather(wire, "full")?;
            Scene::add_components(wire, &metadata)?;
            wire.done("PrepareForBackup", json!({}))?;
        }
        for (wire, state) in wires.iter_mut().zip([7, 1]) {
            let status = wire.writer_status("shop")?;
            ensure!(status["state_number"] == state, "{state}: {status}");
        }
        let sessions: Vec<_> = shop.handle().told().into_iter().filter_map(|told| Some(told.event?.session_id)).collect();
        ensure!(sessions.len() == 2 && sessions[0] != sessions[1], "{sessions:?}");
        Ok(())
    };
    /// 2.8 GetWriterStatus before GatherWriterStatus, and before PrepareForBackup
    status_needs_a_gather => |scene| {
        let _shop = scene.shop()?;
        let mut wire = scene.session()?;
        wire.refused("GatherWriterStatus", json!({}), VssCode::BadState)?;
        scene.prepared(&mut wire, "full")?;
        wire.refused("GetWriterStatus", json!({}), VssCode::BadState)?;
        Ok(())
    };
    /// 2.9 PARTIAL_FAILURE: single components fail, the writer goes on
    partial_failure => |scene| {
        let mut description = scene.description();
        description.say = vec![said(json!({"event": "post_snapshot", "component": {"name": "orders"},
            "code": "VSS_E_WRITERERROR_RETRYABLE", "message": "orders are locked"}))?];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        let shop = scene.made(&mut wire, "full")?;
        let status = wire.writer_status("shop")?;
        ensure!(status["state_number"] == 5 && status["failure"]["number"] == 0x8004_2336_u32, "{status}");
        let orders = Scene::kept(&mut wire, &shop, "orders")?;
        ensure!(orders["failure"]["number"] == 0x8004_23f3_u32 && orders["failure"]["message"] == "orders are locked", "{orders}");
        ensure!(Scene::kept(&mut wire, &shop, "settings")?["failure"].is_null(), "settings are good");
        Ok(())
    };
    /// 11.1 strict: the failure of an involved writer fails the set
    strict => |scene| {
        let _shop = scene.join(Description { fail: vec![failing(E::Freeze, "VSS_E_WRITERERROR_NONRETRYABLE")], ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.prepared(&mut wire, "full")?;
        wire.fails("DoSnapshotSet", json!({"strict": true}), VssCode::WriterErrorNonRetryable)?;
        Ok(())
    };
    /// 11.1 lenient: the set is made, the requester decides
    lenient => |scene| {
        let _shop = scene.join(Description { fail: vec![failing(E::Freeze, "VSS_E_WRITERERROR_NONRETRYABLE")], ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        let set = wire.ok("GetSnapshotSet", json!({}))?;
        ensure!(set["set"]["writers"][0]["state"] == "FAILED_AT_FREEZE", "{set}");
        Ok(())
    };
    /// 12 the test writer fails a chosen event N times
    fails_n_times => |scene| {
        let mut fail = failing(E::Freeze, "VSS_E_WRITERERROR_RETRYABLE");
        fail.times = 1;
        let shop = scene.join(Description { fail: vec![fail], ..scene.description() })?;
        for number in [9, 5] {
            let mut wire = scene.session()?;
            scene.made(&mut wire, "full")?;
            let status = wire.writer_status("shop")?;
            ensure!(status["state_number"] == number, "{number}: {status}");
            drop(wire);
            let is_over = || shop.handle().events().last() == Some(&E::BackupShutdown);
            ensure!(wait_until(Duration::from_secs(30), is_over), "{:?}", shop.handle().events());
        }
        Ok(())
    };
    /// 12 writers not selected are silent after Identify
    not_selected_is_silent => |scene| {
        let _shop = scene.shop()?;
        let other = scene.join(Description { name: "other".to_owned(), class_id: Some(WriterClassId::from_u128(8)), ..scene.description() })?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        ensure!(other.handle().events().is_empty(), "{:?}", other.handle().events());
        Ok(())
    };
    /// 7.3 EnableWriterClasses, DisableWriterClasses, DisableWriterInstances
    who_takes_part => |scene| {
        let _shop = scene.shop()?;
        let second = Description { instance_name: "second".to_owned(), ..scene.description() };
        let _second = scene.join(second)?;
        let listed = |wire: &mut Wire| -> anyhow::Result<usize> {
            wire.done("GatherWriterMetadata", json!({}))?;
            let metadata = wire.ok("GetWriterMetadata", json!({}))?;
            Ok(metadata["writers"].as_array().map_or(0, Vec::len))
        };
        ensure!(listed(&mut scene.session()?)? == 2, "both");
        let class = json!(WriterClassId::from_u128(7));
        let mut wire = scene.session()?;
        wire.ok("DisableWriterClasses", json!({"class_ids": [class]}))?;
        ensure!(listed(&mut wire)? == 0, "none of the class");
        let mut wire = scene.session()?;
        wire.ok("EnableWriterClasses", json!({"class_ids": [WriterClassId::from_u128(9)]}))?;
        ensure!(listed(&mut wire)? == 0, "only the other class");
        let writers = scene.connect()?.ok("org.linuxvss.Management.ListWriters", json!({}))?;
        let mut wire = scene.session()?;
        wire.ok("DisableWriterInstances", json!({"instance_ids": [writers["writers"][0]["instance_id"]]}))?;
        ensure!(listed(&mut wire)? == 1, "its sibling stays");
        Ok(())
    };
}

/// 2.7 the states have Microsoft's numbers.
#[test]
fn numbers_of_states() {
    let names = [
        "UNKNOWN",
        "STABLE",
        "WAITING_FOR_FREEZE",
        "WAITING_FOR_THAW",
        "WAITING_FOR_POST_SNAPSHOT",
        "WAITING_FOR_BACKUP_COMPLETE",
        "FAILED_AT_IDENTIFY",
        "FAILED_AT_PREPARE_BACKUP",
        "FAILED_AT_PREPARE_SNAPSHOT",
        "FAILED_AT_FREEZE",
        "FAILED_AT_THAW",
        "FAILED_AT_POST_SNAPSHOT",
        "FAILED_AT_BACKUP_COMPLETE",
        "FAILED_AT_PRE_RESTORE",
        "FAILED_AT_POST_RESTORE",
        "FAILED_AT_BACKUPSHUTDOWN",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let state: WriterState = serde_json::from_value(json!(name)).expect("a state");
        assert_eq!((usize::from(state.number()), state.name()), (number, name));
    }
}

/// What a writer says of a component.
pub(crate) fn said(what: Value) -> anyhow::Result<vss_writer::simulated::Said> {
    Ok(serde_json::from_value(what)?)
}

crate::skip! {
    failed_at_pre_restore: "restore";
    failed_at_post_restore: "restore";
    set_writer_failure_on_another_thread: "Windows only";
}
