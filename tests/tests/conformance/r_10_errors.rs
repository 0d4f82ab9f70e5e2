//! R 10: the error codes of a backup that no other row produces, each with its number on the wire.

use crate::rows;
use crate::scene::Scene;
use anyhow::ensure;
use serde_json::{Value, json};
use vss_model::VssCode::{
    AccessDenied, InvalidArgument, MaximumNumberOfVolumesReached, ObjectAlreadyExists, ObjectNotFound, OutOfMemory,
    ProviderNotRegistered, VolumeNotLocal, VolumeNotSupported, VolumeNotSupportedByProvider,
};
use vss_model::{VssCode, limits};
use vss_tests::wire::Wire;

fn started(scene: &Scene) -> anyhow::Result<Wire> {
    let mut wire = scene.in_context("file_share_backup")?;
    wire.ok("StartSnapshotSet", json!({}))?;
    Ok(wire)
}

rows! {
    /// E_INVALIDARG 0x80070057
    e_invalidarg => |scene| {
        started(&scene)?.refused("AddToSnapshotSet", json!({"volume": "relative"}), InvalidArgument)?;
        Ok(())
    };
    /// E_OUTOFMEMORY 0x8007000E: a requester's name that is too long is E_INVALIDARG, too many sessions are this
    e_outofmemory => |scene| {
        let mut open = Vec::new();
        for _ in 0..limits::RESTORE_SESSIONS {
            let mut wire = scene.connect()?;
            wire.ok("InitializeForRestore", json!({"requester": "x"}))?;
            open.push(wire);
        }
        scene.connect()?.refused("InitializeForRestore", json!({"requester": "x"}), OutOfMemory)?;
        Ok(())
    };
    /// E_NOTIMPL 0x80004001: what comes with the restore
    e_notimpl => |scene| {
        let mut wire = scene.connect()?;
        wire.ok("InitializeForRestore", json!({"requester": "x"}))?;
        wire.refused("PreRestore", json!({}), VssCode::NotImplemented)?;
        wire.refused("PostRestore", json!({}), VssCode::NotImplemented)?;
        Ok(())
    };
    /// VSS_E_PROVIDER_NOT_REGISTERED
    provider_not_registered => |scene| {
        let wanted = json!({"volume": scene.volume.name(), "provider": "nobody"});
        started(&scene)?.refused("AddToSnapshotSet", wanted.clone(), ProviderNotRegistered)?;
        scene.session()?.refused("IsVolumeSupported", wanted, ProviderNotRegistered)?;
        Ok(())
    };
    /// VSS_E_OBJECT_NOT_FOUND of a volume
    object_not_found => |scene| {
        started(&scene)?.refused("AddToSnapshotSet", json!({"volume": "/no/such/place"}), ObjectNotFound)?;
        Ok(())
    };
    /// VSS_E_VOLUME_NOT_SUPPORTED
    volume_not_supported => |scene| {
        started(&scene)?.refused("AddToSnapshotSet", json!({"volume": "/proc"}), VolumeNotSupported)?;
        Ok(())
    };
    /// VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER
    volume_not_supported_by_provider => |scene| {
        let wanted = json!({"volume": "/proc", "provider": "btrfs"});
        started(&scene)?.refused("AddToSnapshotSet", wanted, VolumeNotSupportedByProvider)?;
        Ok(())
    };
    /// VSS_E_OBJECT_ALREADY_EXISTS of a volume
    volume_twice => |scene| {
        let mut wire = started(&scene)?;
        scene.add_volume(&mut wire)?;
        wire.refused("AddToSnapshotSet", json!({"volume": scene.volume.name()}), ObjectAlreadyExists)?;
        Ok(())
    };
    /// VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED: the 65th
    maximum_number_of_volumes => |scene| {
        let mut wire = started(&scene)?;
        let mut mounted = Vec::new();
        for number in 0..=limits::VOLUMES_PER_SET {
            let place = format!("v{number}");
            let at = scene.instance.path().join(&place);
            std::fs::create_dir(&at)?;
            mounted.push(scene.volume.mount_subvolume(&place, &at)?);
            let volume = json!({"volume": at});
            if number == limits::VOLUMES_PER_SET {
                wire.refused("AddToSnapshotSet", volume, MaximumNumberOfVolumesReached)?;
            } else {
                wire.ok("AddToSnapshotSet", volume)?;
            }
        }
        Ok(())
    };
    /// VSS_E_WRITER_ALREADY_SUBSCRIBED: a second registration of the same instance
    writer_already_subscribed => |scene| {
        let description = scene.description();
        let _shop = scene.join(description.clone())?;
        let mut writer = vss_writer::simulated::SimulatedWriter::new(description)?;
        let once = vss_writer::Options { reconnect: false, ..vss_writer::Options::default() };
        let refused = vss_writer::run(&scene.instance.writer_socket(), &mut writer, &once);
        let Err(vss_writer::RunError::Refused(error)) = refused else { anyhow::bail!("{refused:?}") };
        ensure!(error.code == VssCode::WriterAlreadySubscribed, "{error}");
        Ok(())
    };
    /// VSS_E_WRITER_NOT_RESPONDING 0x80042319: a writer that is silent beyond the limit
    writer_not_responding => |scene| {
        scene.connect()?.ok("org.linuxvss.Management.SetLimits", json!({"writer_prepare_ms": 200}))?;
        let mut description = scene.description();
        let event = vss_writer::messages::EventKind::PrepareBackup;
        description.sleep = vec![vss_writer::simulated::Sleeping { event, ms: 1500, times: 1 }];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.prepared(&mut wire, "full")?;
        let status = wire.writer_status("shop")?;
        ensure!(status["failure"]["number"] == VssCode::WriterNotResponding.hresult(), "{status}");
        Ok(())
    };
    /// VSS_E_UNEXPECTED: the service failed inside
    unexpected => |scene| {
        // What is injected is any failure inside: it is reported with this code.
        let mut scene = scene;
        scene.instance.stop()?;
        scene.instance.set("VSS_FAULT", "record:fail");
        scene.instance.start()?;
        let mut wire = started(&scene)?;
        scene.add_volume(&mut wire)?;
        wire.fails("DoSnapshotSet", json!({}), VssCode::Unexpected)?;
        Ok(())
    };
}

/// Every code has a number of its own, and a name that the wire carries.
#[test]
fn numbers_of_the_table() {
    let table: [(VssCode, u32); 20] = [
        (VssCode::BadState, 0x8004_2301),
        (VssCode::Unexpected, 0x8004_2302),
        (ProviderNotRegistered, 0x8004_2304),
        (VssCode::ProviderVeto, 0x8004_2306),
        (ObjectNotFound, 0x8004_2308),
        (VolumeNotSupported, 0x8004_230c),
        (ObjectAlreadyExists, 0x8004_230d),
        (VolumeNotSupportedByProvider, 0x8004_230e),
        (VssCode::UnexpectedProviderError, 0x8004_230f),
        (MaximumNumberOfVolumesReached, 0x8004_2312),
        (VssCode::FlushWritesTimeout, 0x8004_2313),
        (VssCode::HoldWritesTimeout, 0x8004_2314),
        (VssCode::SnapshotSetInProgress, 0x8004_2316),
        (VssCode::MaximumNumberOfSnapshotsReached, 0x8004_2317),
        (VssCode::WriterNotResponding, 0x8004_2319),
        (VssCode::UnsupportedContext, 0x8004_231b),
        (VssCode::InsufficientStorage, 0x8004_231f),
        (VssCode::NestedVolumeLimit, 0x8004_232c),
        (VolumeNotLocal, 0x8004_232d),
        (AccessDenied, 0x8007_0005),
    ];
    for (code, number) in table {
        assert_eq!(code.hresult(), number, "{code}");
        let wire: Value = serde_json::to_value(vss_model::VssError::new(code, "x")).expect("JSON");
        assert_eq!((&wire["code"], &wire["number"]), (&json!(code.name()), &json!(number)));
    }
}
