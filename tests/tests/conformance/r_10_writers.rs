//! R 10: the errors of writers that the service finds itself, each with its number, its cause and the way out. What writers
//! say of themselves is in `r_2_writers`.

use crate::rows;
use crate::scene::Scene;
use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;
use vss_linux::process::PidFd;
use vss_model::VssCode::{
    UnexpectedWriterError, WriterAlreadySubscribed, WriterInfrastructure, WriterNotResponding, WriterStatusNotAvailable,
};
use vss_model::limits;
use vss_tests::instance::wait_until;
use vss_tests::wire::Wire;
use vss_writer::messages::EventKind;
use vss_writer::simulated::{SimulatedWriter, Sleeping};
use vss_writer::{AnyWriter, Options, RunError};

/// Shop, which answers to the event of this name with this, or not at all. It ends with its connection.
fn answering(scene: &Scene, answer: impl Fn(&str) -> Option<Value> + Send + 'static) -> anyhow::Result<()> {
    let mut writer = SimulatedWriter::new(scene.description())?;
    let mut line = Wire::connect_to(&scene.instance.writer_socket())?;
    let parameters = serde_json::to_value(writer.registration())?;
    line.send(&json!({"method": "org.linuxvss.Writer.Register", "upgrade": true, "parameters": parameters}))?;
    ensure!(line.receive()?["error"].is_null(), "it is not registered");
    thread::spawn(move || {
        while let Ok(call) = line.receive() {
            let name = call["method"].as_str().and_then(|method| method.rsplit('.').next()).unwrap_or_default();
            let said = match serde_json::from_value(call["parameters"].clone()) {
                Ok(identify) if name == EventKind::Identify.name() => {
                    writer.identify(&identify).ok().and_then(|identity| serde_json::to_value(identity).ok())
                }
                _ => answer(name),
            };
            if said.is_some_and(|said| line.send(&json!({"parameters": said})).is_err()) {
                return;
            }
        }
    });
    Ok(())
}

/// Something that has to happen happens within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// The processes of the in-box writers.
fn inbox_writers(scene: &Scene) -> Vec<u32> {
    let processes = scene.instance.processes().into_iter();
    processes.filter(|process| process.name == "vss-writers").map(|process| process.pid).collect()
}

rows! {
    /// VSS_E_WRITER_INFRASTRUCTURE 0x80042318: the in-box writers are wanted and do not run
    writer_infrastructure => |mut scene| {
        scene.instance.stop()?;
        let hook = scene.instance.freeze_directory().join("10-hook");
        fs::write(&hook, "#!/bin/sh\n")?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        // Somebody's backup keeps a service on demand, which starts them itself.
        let begun = scene.instance.path().join("begun");
        let command = format!("touch {} && exec sleep 600", begun.display());
        let _backup =
            scene.instance.start_vss(["run", "--volume", scene.volume.name(), "--", "sh", "-c", command.as_str()])?;
        ensure!(wait_until(LIMIT, || begun.exists()), "{}", scene.instance.log());
        scene.session()?.done("GatherWriterMetadata", json!({}))?;
        for pid in inbox_writers(&scene) {
            PidFd::open(pid)?.signal(Signal::KILL)?;
        }
        ensure!(wait_until(LIMIT, || inbox_writers(&scene).is_empty()), "they live");
        let mut wire = scene.session()?;
        let refusal = wire.fails("GatherWriterMetadata", json!({}), WriterInfrastructure)?;
        refusal.says("vss-writers has ended: signal: 9", "--no-writers")?;
        let wanted = json!({"paths": [scene.volume.name()]});
        let obstacles = wire.ok("org.linuxvss.Management.Check", wanted)?["obstacles"].clone();
        ensure!(obstacles[0]["code"] == WriterInfrastructure.name(), "{obstacles}");
        // Whoever wants no writers is not concerned.
        scene.add_volume(&mut scene.started()?)?;
        Ok(())
    };
    /// VSS_E_WRITER_ALREADY_SUBSCRIBED 0x8004231A: a second registration of the same instance
    writer_already_subscribed => |scene| {
        let description = scene.description();
        let _shop = scene.join(description.clone())?;
        let mut writer = SimulatedWriter::new(description)?;
        let once = Options { reconnect: false, ..Options::default() };
        let refused = vss_writer::run(&scene.instance.writer_socket(), &mut writer, &once);
        let Err(RunError::Refused(error)) = refused else { anyhow::bail!("{refused:?}") };
        ensure!(error.code == WriterAlreadySubscribed && error.to_string().contains("0x8004231A"), "{error}");
        ensure!(!error.hint.is_empty(), "{error}");
        Ok(())
    };
    /// VSS_E_WRITER_NOT_RESPONDING 0x80042319: a writer that is silent beyond the limit
    writer_not_responding => |scene| {
        scene.connect()?.ok("org.linuxvss.Management.SetLimits", json!({"writer_prepare_ms": 200}))?;
        let mut description = scene.description();
        description.sleep = vec![Sleeping { event: EventKind::PrepareBackup, ms: 1500, times: 1 }];
        let _shop = scene.join(description)?;
        let mut wire = scene.session()?;
        scene.prepared(&mut wire, "full")?;
        wire.writer_failed("shop", WriterNotResponding)?.says("PrepareBackup within 200ms", "restart it")
    };
    /// VSS_E_UNEXPECTED_WRITER_ERROR 0x80042315: its answer to BackupComplete cannot be read
    unexpected_writer_error => |scene| {
        let is_last = |name: &str| name == EventKind::BackupComplete.name();
        answering(&scene, move |name| Some(if is_last(name) { json!({"code": 17}) } else { json!({}) }))?;
        let mut wire = scene.session()?;
        scene.made(&mut wire, "full")?;
        wire.done("BackupComplete", json!({}))?;
        let failure = wire.writer_failed("shop", UnexpectedWriterError)?;
        failure.says("its answer cannot be read", "org.linuxvss.Writer")?;
        ensure!(wire.writer_status("shop")?["state"] == "FAILED_AT_BACKUP_COMPLETE", "{failure:?}");
        Ok(())
    };
    /// VSS_E_WRITER_STATUS_NOT_AVAILABLE 0x80042409: the writer has no room for one more call
    writer_status_not_available => |scene| {
        scene.connect()?.ok("org.linuxvss.Management.SetLimits", json!({"writer_prepare_ms": 10}))?;
        answering(&scene, |_| None)?;
        let mut sessions = Vec::new();
        for _ in 0..limits::BACKUP_SESSIONS {
            let mut wire = scene.session()?;
            let shop = scene.gather(&mut wire, "full")?;
            Scene::add_components(&mut wire, &shop)?;
            sessions.push(wire);
        }
        let mut wire = sessions.pop().context("a session")?;
        for other in &mut sessions {
            other.done("PrepareForBackup", json!({}))?;
        }
        // Nobody waits for their answers any more, and they are owed still: 63, and that to the Abort of one that gives up.
        sessions[0].ok("AbortBackup", json!({}))?;
        wire.done("PrepareForBackup", json!({}))?;
        wire.writer_failed("shop", WriterStatusNotAvailable)?.says("unanswered", "fewer backups at once")
    };
}
