//! `vss list`: what the service keeps and knows.

use super::Failure;
use crate::args::{ListArguments, Listed};
use crate::json::{List, ListedShadow};
use crate::output;
use vss_api::management::{ProviderEntry, RegisteredWriter, VolumeEntry};
use vss_model::{AppLevel, ShadowCopy};
use vss_requester::{Instance, Management};

pub(super) fn list(instance: &Instance, arguments: &ListArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    match (arguments.what, arguments.json) {
        (Listed::Shadows, true) => {
            let shadows = management.shadows()?;
            output::json(&List::Shadows(shadows.iter().map(ListedShadow::from).collect()))?;
        }
        (Listed::Writers, true) => output::json(&List::Writers(management.writers()?))?,
        (Listed::Providers, true) => output::json(&List::Providers(management.providers()?))?,
        (Listed::Volumes, true) => output::json(&List::Volumes(management.volumes()?))?,
        (Listed::Storage, true) => output::json(&List::Storage(management.storage()?))?,
        (Listed::Storage, false) => super::storage::print(&management.storage()?)?,
        (Listed::Shadows, false) => print(SHADOWS, &management.shadows()?, shadow)?,
        (Listed::Writers, false) => print(WRITERS, &management.writers()?, writer)?,
        (Listed::Providers, false) => print(PROVIDERS, &management.providers()?, provider)?,
        (Listed::Volumes, false) => print(VOLUMES, &management.volumes()?, volume)?,
    }
    Ok(())
}

fn print<T, const COLUMNS: usize>(
    header: [&str; COLUMNS],
    entries: &[T],
    row: fn(&T) -> [String; COLUMNS],
) -> std::io::Result<()> {
    output::table(&header, &entries.iter().map(|entry| row(entry).to_vec()).collect::<Vec<_>>())
}

const SHADOWS: [&str; 6] = ["ID", "VOLUME", "CREATED", "CONSISTENCY", "PROVIDER", "PATH"];

fn shadow(shadow: &ShadowCopy) -> [String; 6] {
    [
        shadow.id.to_string(),
        shadow.volume.display().to_string(),
        shadow.created_at.local(),
        shadow.consistency.to_string(),
        shadow.provider.clone(),
        shadow.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    ]
}

const WRITERS: [&str; 5] = ["NAME", "INSTANCE", "LEVEL", "LIMIT", "PID"];

fn writer(writer: &RegisteredWriter) -> [String; 5] {
    [
        writer.name.clone(),
        writer.instance_name.clone(),
        level(writer.level).to_owned(),
        format!("{} ms", writer.freeze_ms),
        writer.pid.to_string(),
    ]
}

fn level(level: AppLevel) -> &'static str {
    match level {
        AppLevel::FrontEnd => "front end",
        AppLevel::BackEnd => "back end",
        AppLevel::System => "system",
    }
}

const PROVIDERS: [&str; 6] = ["NAME", "VERSION", "TYPE", "KIND", "FREEZE", "MENDABLE"];

fn provider(provider: &ProviderEntry) -> [String; 6] {
    [
        provider.name.clone(),
        provider.version.clone(),
        provider.provider_type.clone(),
        provider.kind.clone(),
        provider.freeze_policy.clone(),
        (if provider.writable_phase { "yes" } else { "no" }).to_owned(),
    ]
}

const VOLUMES: [&str; 5] = ["VOLUME", "TYPE", "SOURCE", "SHADOWS", "PROVIDER"];

fn volume(volume: &VolumeEntry) -> [String; 5] {
    [
        volume.volume.display().to_string(),
        volume.fs_type.clone(),
        volume.source.clone(),
        volume.shadows.to_string(),
        volume.provider.clone().unwrap_or_else(|| format!("none: {}", volume.reason)),
    ]
}
