//! R 10: the errors of every call, and the table of all codes: which row shows each. The errors of AddToSnapshotSet are in
//! `r_10_volumes`, those of DoSnapshotSet in `r_10_creation`, those that the service finds in writers in `r_10_writers`.

use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use vss_linux::fs_uuid;
use vss_model::VssCode::{
    AccessDenied, CorruptXmlDocument, InvalidArgument, InvalidXmlDocument, NotImplemented, NotSupported, OutOfMemory,
    RevertInProgress, RevertVolumeLost,
};
use vss_model::{VssCode, VssError, limits};
use vss_tests::instance::wait_until;
use vss_tests::loopfs::{Kind, LoopFs};
use vss_tests::wire::{Refusal, Wire};

/// The call that puts a volume back.
const REVERT: &str = "org.linuxvss.Management.RevertToSnapshot";
/// A user who may do nothing.
const NOBODY: u32 = 65534;

/// A set, and the file of its Backup Components Document.
fn kept(scene: &Scene) -> anyhow::Result<(String, PathBuf)> {
    let (set, _) = scene.copy(&mut scene.in_context("nas_rollback")?)?;
    let file = scene.instance.state_dir().join("documents").join(&set).join("backup-components.xml");
    Ok((set, file))
}

/// What happens in the end has happened within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// A volume whose provider can put it back, with two persistent copies.
fn copied_twice(scene: &mut Scene) -> anyhow::Result<(LoopFs, [String; 2])> {
    let volume = LoopFs::new(Kind::Ext4, 32)?;
    let store = scene.instance.path().join("block-copies");
    fs::create_dir(&store)?;
    scene.restart_with("VSS_BLOCK_COPY", store)?;
    let copy = || -> anyhow::Result<String> {
        let mut wire = scene.in_context("nas_rollback")?;
        wire.ok("StartSnapshotSet", json!({}))?;
        let added = json!({"volume": volume.path(), "provider": "block-copy"});
        let added = wire.ok("AddToSnapshotSet", added)?;
        wire.done("DoSnapshotSet", json!({}))?;
        Ok(added["shadow_id"].as_str().unwrap_or_default().to_owned())
    };
    let copies = [copy()?, copy()?];
    Ok((volume, copies))
}

rows! {
    /// E_ACCESSDENIED 0x80070005: a user who is neither root nor of the group, at the door
    e_accessdenied => |scene| {
        let socket = scene.instance.requester_socket();
        let denied = thread::spawn(move || {
            let nobody = Uid::from_raw(NOBODY);
            set_thread_res_uid(nobody, nobody, nobody)?;
            Wire::connect_to(&socket)?.turned_away(AccessDenied)
        });
        denied.join().expect("no panic")?.says("Uid 65534 may not use the requester socket", "group vss")
    };
    /// E_INVALIDARG 0x80070057
    e_invalidarg => |scene| {
        let wanted = json!({"volume": "relative"});
        scene.started()?.refused("AddToSnapshotSet", wanted, InvalidArgument)?.says("relative", "from /")
    };
    /// E_OUTOFMEMORY 0x8007000E: too many sessions
    e_outofmemory => |scene| {
        let mut open = Vec::new();
        for _ in 0..limits::RESTORE_SESSIONS {
            let mut wire = scene.connect()?;
            wire.ok("InitializeForRestore", json!({"requester": "x"}))?;
            open.push(wire);
        }
        let refusal = scene.connect()?.refused("InitializeForRestore", json!({"requester": "x"}), OutOfMemory)?;
        refusal.says("8 restore sessions are open", "another one has ended")
    };
    /// E_NOTIMPL 0x80004001: what comes with the restore
    e_notimpl => |scene| {
        let mut wire = scene.connect()?;
        wire.ok("InitializeForRestore", json!({"requester": "x"}))?;
        wire.refused("PreRestore", json!({}), NotImplemented)?.says("PreRestore", "vss restore")?;
        wire.refused("PostRestore", json!({}), NotImplemented)?.says("PostRestore", "vss restore")
    };
    /// VSS_E_NOT_SUPPORTED 0x8004232F: the blocks of a copy whose provider knows no blocks
    not_supported => |scene| {
        let (_, shadow) = scene.copy(&mut scene.in_context("nas_rollback")?)?;
        let wanted = json!({"shadow_id": shadow});
        let refusal = scene.connect()?.refused("org.linuxvss.Management.ChangedBlocks", wanted, NotSupported)?;
        refusal.says("Provider btrfs", "--provider mirror")
    };
    /// VSS_E_CORRUPT_XML_DOCUMENT 0x80042310: a document that was kept with a set was damaged
    corrupt_xml_document => |scene| {
        let (set, file) = kept(&scene)?;
        let whole = fs::read(&file)?;
        let wanted = json!({"set_id": set});
        let mut wire = scene.connect()?;
        wire.ok("org.linuxvss.Management.GetDocument", wanted.clone())?;
        fs::write(&file, &whole[..whole.len() - 10])?;
        let refusal = wire.refused("org.linuxvss.Management.GetDocument", wanted.clone(), CorruptXmlDocument)?;
        refusal.says(&file.display().to_string(), "backup of the state directory")?;
        fs::write(&file, whole)?;
        wire.ok("org.linuxvss.Management.GetDocument", wanted)?;
        Ok(())
    };
    /// VSS_E_INVALID_XML_DOCUMENT 0x80042311: it was changed into what is XML and no such document
    invalid_xml_document => |scene| {
        let (set, file) = kept(&scene)?;
        fs::write(&file, "<other/>")?;
        let wanted = json!({"set_id": set});
        let refusal = scene.connect()?.refused("org.linuxvss.Management.GetDocument", wanted, InvalidXmlDocument)?;
        refusal.says(&file.display().to_string(), "backup of the state directory")
    };
    /// VSS_E_REVERT_IN_PROGRESS 0x80042325: a volume that is half reverted to another copy
    revert_in_progress => |mut scene| {
        let (volume, [one, other]) = copied_twice(&mut scene)?;
        scene.restart_with("VSS_FAULT", "revert:kill-service")?;
        volume.unmount()?;
        // The service is killed in the middle of it, and may be before it has answered.
        let begun = scene.connect()?.call(REVERT, json!({"shadow_id": one}));
        ensure!(wait_until(LIMIT, || scene.instance.service_pid().is_none()), "{begun:?}");
        scene.instance.kill()?;
        scene.instance.unset("VSS_FAULT");
        // Mounted, as after a reboot, it cannot go on by itself.
        volume.mount()?;
        scene.instance.start()?;
        let refusal = scene.connect()?.refused(REVERT, json!({"shadow_id": other}), RevertInProgress)?;
        refusal.says(&format!("put back to shadow copy {one}"), &format!("vss revert {one}"))
    };
    /// VSS_E_REVERT_VOLUME_LOST 0x80042326: the device of the volume is not there any more
    revert_volume_lost => |mut scene| {
        let (volume, [one, _]) = copied_twice(&mut scene)?;
        let device = volume.device().to_owned();
        let uuid = || fs_uuid::of_device(&device, "ext4").ok().flatten();
        let lost = uuid();
        drop(volume);
        // A mount namespace that another test made has the volume mounted until it ends.
        ensure!(lost.is_some() && wait_until(LIMIT, || uuid() != lost), "{} does not go", device.display());
        let mut wire = scene.connect()?;
        let mut status = wire.ok(REVERT, json!({"shadow_id": one}))?;
        while status["state"] == "running" {
            let wanted = json!({"volume_id": status["volume_id"], "seen_progress": status["progress"], "timeout_ms": 60_000});
            status = wire.ok("org.linuxvss.Management.QueryRevertStatus", wanted)?;
        }
        let failure = Refusal::of(&status["failure"]);
        ensure!(failure.name == RevertVolumeLost.name() && failure.code == 0x8004_2326, "{status}");
        failure.says("/dev/loop", "Attach the volume's device")
    };
}

crate::skip! {
    // What VSS_E_UNEXPECTED was before Windows 7.
    e_unexpected: "Windows only";
    // Providers are a part of the service: none is registered or unregistered while it runs.
    provider_already_registered: "Windows only";
    provider_in_use: "Windows only";
    // A copy's store is no association of two volumes that could be too many.
    maximum_diffarea_associations: "Windows only";
    // Transportable sets, which hardware providers on server editions make (P 4.7), and what is done with their LUNs.
    no_snapshots_imported: "Windows only";
    some_snapshots_not_imported: "Windows only";
    unselected_volume: "Windows only";
    snapshot_not_in_set: "Windows only";
    break_revert_id_failed: "Windows only";
    missing_disk: "Windows only";
    missing_hidden_volume: "Windows only";
    missing_volume: "Windows only";
    dynamic_disk_error: "Windows only";
    nontransportable_bcd: "Windows only";
    cannot_revert_diskid: "Windows only";
    resync_in_progress: "Windows only";
    // Copies of shares, made on their server (FSRVP).
    maximum_number_of_remote_machines: "Windows only";
    remote_server_unavailable: "Windows only";
    remote_server_unsupported: "Windows only";
    fss_timeout: "Windows only";
    // Windows' failover cluster, its interfaces for providers, its disaster recovery.
    cluster_timeout: "Windows only";
    cluster_error: "Windows only";
    legacy_provider: "Windows only";
    asr_errors: "Windows only";
}

/// Every code of the table but those of ASR, with its number and the row that shows it. `E_ABORT` is ours: VSS has
/// `VSS_S_ASYNC_CANCELLED` for it, and so has the wire.
const TABLE: [(VssCode, u32, &str); 67] = [
    (VssCode::NotImplemented, 0x8000_4001, "r_10_errors::e_notimpl"),
    (VssCode::Aborted, 0x8000_4004, "r_1_2_asynchronous::cancel_and_its_answers"),
    (VssCode::OutOfMemory, 0x8007_000e, "r_10_errors::e_outofmemory"),
    (VssCode::InvalidArgument, 0x8007_0057, "r_10_errors::e_invalidarg"),
    (VssCode::AccessDenied, 0x8007_0005, "r_10_errors::e_accessdenied"),
    (VssCode::BadState, 0x8004_2301, "r_1_8_order::any_call_before_initialize"),
    (VssCode::Unexpected, 0x8004_2302, "r_10_creation::unexpected"),
    (VssCode::ProviderAlreadyRegistered, 0x8004_2303, "r_10_errors::provider_already_registered"),
    (VssCode::ProviderNotRegistered, 0x8004_2304, "r_10_volumes::provider_not_registered"),
    (VssCode::ProviderVeto, 0x8004_2306, "r_10_creation::provider_veto"),
    (VssCode::ProviderInUse, 0x8004_2307, "r_10_errors::provider_in_use"),
    (VssCode::ObjectNotFound, 0x8004_2308, "r_10_volumes::object_not_found"),
    (VssCode::VolumeNotSupported, 0x8004_230c, "r_10_volumes::volume_not_supported"),
    (VssCode::ObjectAlreadyExists, 0x8004_230d, "r_10_volumes::volume_twice"),
    (VssCode::VolumeNotSupportedByProvider, 0x8004_230e, "r_10_volumes::volume_not_supported_by_provider"),
    (VssCode::UnexpectedProviderError, 0x8004_230f, "r_10_creation::unexpected_provider_error"),
    (VssCode::CorruptXmlDocument, 0x8004_2310, "r_10_errors::corrupt_xml_document"),
    (VssCode::InvalidXmlDocument, 0x8004_2311, "r_10_errors::invalid_xml_document"),
    (VssCode::MaximumNumberOfVolumesReached, 0x8004_2312, "r_10_volumes::maximum_number_of_volumes"),
    (VssCode::FlushWritesTimeout, 0x8004_2313, "r_10_creation::flush_writes_timeout"),
    (VssCode::HoldWritesTimeout, 0x8004_2314, "r_10_creation::hold_writes_timeout"),
    (VssCode::UnexpectedWriterError, 0x8004_2315, "r_10_writers::unexpected_writer_error"),
    (VssCode::SnapshotSetInProgress, 0x8004_2316, "r_1_2_asynchronous::one_creation_at_a_time"),
    (VssCode::MaximumNumberOfSnapshotsReached, 0x8004_2317, "r_10_volumes::maximum_number_of_snapshots"),
    (VssCode::WriterInfrastructure, 0x8004_2318, "r_10_writers::writer_infrastructure"),
    (VssCode::WriterNotResponding, 0x8004_2319, "r_10_writers::writer_not_responding"),
    (VssCode::WriterAlreadySubscribed, 0x8004_231a, "r_10_writers::writer_already_subscribed"),
    (VssCode::UnsupportedContext, 0x8004_231b, "p_3_contexts::all_makes_no_set"),
    (VssCode::VolumeInUse, 0x8004_231d, "r_10_creation::volume_in_use"),
    (VssCode::MaximumDiffareaAssociationsReached, 0x8004_231e, "r_10_errors::maximum_diffarea_associations"),
    (VssCode::InsufficientStorage, 0x8004_231f, "r_10_creation::insufficient_storage"),
    (VssCode::NoSnapshotsImported, 0x8004_2320, "r_10_errors::no_snapshots_imported"),
    (VssCode::SomeSnapshotsNotImported, 0x8004_2321, "r_10_errors::some_snapshots_not_imported"),
    (VssCode::MaximumNumberOfRemoteMachinesReached, 0x8004_2322, "r_10_errors::maximum_number_of_remote_machines"),
    (VssCode::RemoteServerUnavailable, 0x8004_2323, "r_10_errors::remote_server_unavailable"),
    (VssCode::RemoteServerUnsupported, 0x8004_2324, "r_10_errors::remote_server_unsupported"),
    (VssCode::RevertInProgress, 0x8004_2325, "r_10_errors::revert_in_progress"),
    (VssCode::RevertVolumeLost, 0x8004_2326, "r_10_errors::revert_volume_lost"),
    (VssCode::RebootRequired, 0x8004_2327, "r_10_creation::reboot_required"),
    (VssCode::TransactionFreezeTimeout, 0x8004_2328, "r_10_creation::transaction_freeze_timeout"),
    (VssCode::TransactionThawTimeout, 0x8004_2329, "r_10_creation::transaction_thaw_timeout"),
    (VssCode::UnselectedVolume, 0x8004_232a, "r_10_errors::unselected_volume"),
    (VssCode::SnapshotNotInSet, 0x8004_232b, "r_10_errors::snapshot_not_in_set"),
    (VssCode::NestedVolumeLimit, 0x8004_232c, "r_10_creation::nested_volume_limit"),
    (VssCode::VolumeNotLocal, 0x8004_232d, "r_10_volumes::volume_not_local"),
    (VssCode::ClusterTimeout, 0x8004_232e, "r_10_errors::cluster_timeout"),
    (VssCode::NotSupported, 0x8004_232f, "r_10_errors::not_supported"),
    (VssCode::WriterErrorPartialFailure, 0x8004_2336, "r_2_writers::partial_failure"),
    (VssCode::WriterErrorInconsistentSnapshot, 0x8004_23f0, "r_2_writers::failed_at_prepare_snapshot"),
    (VssCode::WriterErrorOutOfResources, 0x8004_23f1, "r_2_writers::failed_at_freeze"),
    (VssCode::WriterErrorTimeout, 0x8004_23f2, "r_2_writers::freeze_limit"),
    (VssCode::WriterErrorRetryable, 0x8004_23f3, "r_2_writers::failed_at_backup_complete"),
    (VssCode::WriterErrorNonRetryable, 0x8004_23f4, "r_2_writers::failed_at_prepare_backup"),
    (VssCode::WriterErrorRecoveryFailed, 0x8004_23f5, "r_2_writers::failed_at_post_snapshot"),
    (VssCode::BreakRevertIdFailed, 0x8004_23f6, "r_10_errors::break_revert_id_failed"),
    (VssCode::LegacyProvider, 0x8004_23f7, "r_10_errors::legacy_provider"),
    (VssCode::MissingDisk, 0x8004_23f8, "r_10_errors::missing_disk"),
    (VssCode::MissingHiddenVolume, 0x8004_23f9, "r_10_errors::missing_hidden_volume"),
    (VssCode::MissingVolume, 0x8004_23fa, "r_10_errors::missing_volume"),
    (VssCode::AutorecoveryFailed, 0x8004_23fb, "r_10_creation::autorecovery_failed"),
    (VssCode::DynamicDiskError, 0x8004_23fc, "r_10_errors::dynamic_disk_error"),
    (VssCode::NontransportableBcd, 0x8004_23fd, "r_10_errors::nontransportable_bcd"),
    (VssCode::CannotRevertDiskId, 0x8004_23fe, "r_10_errors::cannot_revert_diskid"),
    (VssCode::ResyncInProgress, 0x8004_23ff, "r_10_errors::resync_in_progress"),
    (VssCode::ClusterError, 0x8004_2400, "r_10_errors::cluster_error"),
    (VssCode::WriterStatusNotAvailable, 0x8004_2409, "r_10_writers::writer_status_not_available"),
    (VssCode::FssTimeout, 0x8004_2417, "r_10_errors::fss_timeout"),
];

/// Every code has a number of its own, a name that the wire carries, both in the line that people read, and a row.
#[test]
fn every_code_has_its_number_and_its_row() {
    let sources = [
        ("p_3_contexts", include_str!("p_3_contexts.rs")),
        ("r_1_2_asynchronous", include_str!("r_1_2_asynchronous.rs")),
        ("r_1_8_order", include_str!("r_1_8_order.rs")),
        ("r_2_writers", include_str!("r_2_writers.rs")),
        ("r_10_creation", include_str!("r_10_creation.rs")),
        ("r_10_errors", include_str!("r_10_errors.rs")),
        ("r_10_volumes", include_str!("r_10_volumes.rs")),
        ("r_10_writers", include_str!("r_10_writers.rs")),
    ];
    for (code, number, row) in TABLE {
        assert_eq!(code.hresult(), number, "{code}");
        let error = VssError::new(code, "x");
        let wire: Value = serde_json::to_value(&error).expect("JSON");
        assert_eq!((&wire["code"], &wire["number"]), (&json!(code.name()), &json!(number)));
        assert_eq!(error.to_string(), format!("x ({}, {number:#X})", code.name()));
        let (module, name) = row.split_once("::").expect("a module and a row");
        let source = sources.iter().find(|(of, _)| *of == module).expect("a module of rows").1;
        let is_there = |end: &str| source.contains(&format!("\n    {name}{end}"));
        assert!(
            is_there(" => |scene| {") || is_there(" => |mut scene| {") || is_there(": \""),
            "{code}: there is no row {row}"
        );
    }
    let in_table: Vec<VssCode> = TABLE.iter().map(|(code, ..)| *code).collect();
    assert_eq!(in_table, VssCode::ALL, "the table and the codes of the house");
}
