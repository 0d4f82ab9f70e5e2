//! `org.linuxvss.Management`: status, lists, limits, delete. Status and limits are answered from memory, at any time.

use crate::catalogue::SetEntry;
use crate::coordinator::Coordinator;
use crate::environment::Environment;
use crate::writers::registry;
use crate::{blocking, fault, removal, rules, storage, volumes};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vss_api::Empty;
use vss_api::management::{
    Call, Deleted, GetSet, Limits, ProviderEntry, Providers, Selection, SetLimits, SetRecord, SetsAborted, Shadows,
    Status, StorageList, VolumeEntry, Volumes, Writers,
};
use vss_api::requester;
use vss_api::server::{ConnectionId, Peer, Replier};
use vss_model::time::milliseconds;
use vss_model::{SetId, ShadowId, VssCode, VssError, limits};

impl Coordinator {
    /// Performs one call.
    pub(crate) fn management_call(&mut self, id: ConnectionId, call: Call, replier: Replier) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer.clone()) else { return };
        let environment = Arc::clone(&self.environment);
        match call {
            Call::GetStatus => replier.ok(&self.status(&peer)),
            Call::GetLimits => replier.ok(&self.limits()),
            Call::SetLimits(parameters) => replier.result(self.set_limits(&peer, parameters)),
            Call::ListWriters => replier.ok(&Writers { writers: self.registry.entries() }),
            Call::ListProviders => replier.ok(&providers(&environment)),
            Call::ListShadows => self.answer(async move {
                let shadows = blocking::run("Reading the mount table", limits::PROVIDER_IN_WINDOW, move || {
                    Ok(Shadows { shadows: shadows_of(&environment, &peer) })
                });
                replier.result(shadows.await);
            }),
            Call::GetSet(parameters) => self.answer(async move {
                let set = blocking::run("Reading the mount table", limits::PROVIDER_IN_WINDOW, move || {
                    set_record(&environment, &peer, parameters)
                });
                replier.result(set.await);
            }),
            Call::ListDocuments(question) => self.list_documents(&peer, question, replier),
            Call::GetDocument(question) => self.get_document(&peer, question, replier),
            Call::ListVolumes => self.answer(async move {
                let work = move || Ok(Volumes { volumes: list_volumes(&environment)? });
                replier.result(blocking::run("Examining the volumes", limits::PROVIDER_OUTSIDE, work).await);
            }),
            Call::Check(question) => self.check(&peer, question, replier),
            Call::ListEvents(question) => environment.events.answer(peer.uid, question, replier),
            Call::ListStorage => self.answer(async move {
                let work = move || Ok(StorageList { storage: storage::list(&environment)? });
                replier.result(blocking::run("Listing the shadow storage", limits::PROVIDER_OUTSIDE, work).await);
            }),
            Call::RemoveStorage(wanted) => {
                if let Err(error) = rules::root(&peer, "remove shadow storage") {
                    return replier.error(&error);
                }
                self.answer(async move {
                    let all = Arc::clone(&environment);
                    let _one = all.changes.lock().await;
                    let work = move || Ok(StorageList { storage: storage::remove(&environment, &wanted)? });
                    replier.result(blocking::run("Removing shadow storage", limits::PROVIDER_OUTSIDE, work).await);
                });
            }
            Call::ChangedBlocks(question) => self.changed_blocks(peer, question, replier),
            Call::OpenImage(question) => self.open_image(peer, question, replier),
            Call::RevertToSnapshot(wanted) => self.revert(peer, wanted, replier),
            Call::QueryRevertStatus(question) => self.revert_status(&peer, question, replier),
            Call::AbortAllSnapshotsInProgress => replier.result(self.abort_all(&peer)),
            Call::DeleteShadows(selection) => {
                let leases = self.leases(&peer);
                self.answer(async move { replier.result(delete(environment, peer, selection, leases).await) });
            }
        }
    }

    /// Where the service stands; the sessions are those that the peer may see: all for root, its own for others.
    fn status(&self, peer: &Peer) -> Status {
        let sessions: Vec<_> = self
            .connections
            .values()
            .filter_map(|connection| connection.session.as_ref().map(|session| (session, &connection.peer)))
            .collect();
        let creating = sessions.iter().find(|(session, _)| session.lock.is_some());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            recovery: self.recovery.clone(),
            creating: creating.and_then(|(session, _)| session.facts().set_id),
            holding: sessions
                .iter()
                .filter_map(|(session, _)| session.last_operation())
                .any(crate::operation::Operation::is_holding),
            sessions: sessions
                .iter()
                .filter(|(_, owner)| peer.uid == 0 || peer.uid == owner.uid)
                .map(|(session, owner)| session.status(owner))
                .collect(),
            writers: self.registry.writers().len() as u64,
            shadows: self.environment.catalogue.shadows(),
        }
    }

    fn limits(&self) -> Limits {
        let (writer_freeze_ms, writers) = self.registry.freeze_limits();
        Limits {
            volumes_per_set: limits::VOLUMES_PER_SET as u64,
            shadow_copies_per_volume: limits::SHADOW_COPIES_PER_VOLUME as u64,
            backup_sessions: self.backup_sessions as u64,
            restore_sessions: limits::RESTORE_SESSIONS as u64,
            writer_freeze_ms,
            writer_prepare_ms: milliseconds(self.writer_prepare),
            hold_ms: milliseconds(limits::HOLD),
            writers,
        }
    }

    fn set_limits(&mut self, peer: &Peer, wanted: SetLimits) -> Result<Empty, VssError> {
        rules::root(peer, "change limits")?;
        let within = |name: &str, value: u64, most: u64| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(VssError::new(VssCode::InvalidArgument, format!("{name} is 1 to {most}, not {value}")))
        };
        let most_freeze = milliseconds(limits::WRITER_FREEZE);
        if let Some(value) = wanted.backup_sessions {
            within("backup_sessions", value, limits::BACKUP_SESSIONS as u64)?;
        }
        if let Some(value) = wanted.writer_freeze_ms {
            within("writer_freeze_ms", value, most_freeze)?;
        }
        if let Some(value) = wanted.writer_prepare_ms {
            within("writer_prepare_ms", value, 3_600_000)?;
        }
        if let Some(limit) = &wanted.writer {
            within("writer.freeze_ms", limit.freeze_ms, most_freeze)?;
            registry::check_name(&limit.name)?;
        }
        // Everything is checked: now nothing can be changed half.
        if let Some(value) = wanted.backup_sessions {
            self.backup_sessions = usize::try_from(value).unwrap_or(limits::BACKUP_SESSIONS);
        }
        if let Some(value) = wanted.writer_freeze_ms {
            self.registry.set_freeze_limit(None, Duration::from_millis(value));
        }
        if let Some(value) = wanted.writer_prepare_ms {
            self.writer_prepare = Duration::from_millis(value);
        }
        if let Some(limit) = wanted.writer {
            self.registry.set_freeze_limit(Some(limit.name), Duration::from_millis(limit.freeze_ms));
        }
        Ok(Empty {})
    }

    /// AbortAllSnapshotsInProgress: every session with an open set is aborted, as by its own AbortBackup.
    fn abort_all(&mut self, peer: &Peer) -> Result<SetsAborted, VssError> {
        rules::root(peer, "abort the shadow copy sets of others")?;
        let open: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(id, connection)| {
                let draft = connection.session.as_ref()?.state.draft()?;
                draft.set().filter(|_| draft.holds_creation_lock()).map(|set| (*id, set.id()))
            })
            .collect();
        let mut sets = Vec::new();
        for (id, set_id) in open {
            if !fault::is_off("abort_all") {
                // In the session's turn: a volume that is being added to its set belongs to what is undone.
                self.requester_call(id, requester::Call::AbortBackup, Replier::detached(requester::INTERFACE).0);
            }
            sets.push(set_id);
        }
        Ok(SetsAborted { sets })
    }

    /// What this peer may delete of the auto-release sets as of now.
    pub(super) fn leases(&self, peer: &Peer) -> Leases {
        let (own, others): (Vec<_>, Vec<_>) = self
            .connections
            .values()
            .filter_map(|connection| {
                Some((connection.peer.pid, connection.session.as_ref()?.state.draft()?.set()?.id()))
            })
            // A process of another pid namespace has the pid 0: it may be any.
            .partition(|(pid, _)| *pid == peer.pid && *pid != 0);
        let mut free: BTreeSet<SetId> = self.environment.catalogue.auto_release().into_iter().collect();
        for (_, set_id) in others {
            free.remove(&set_id);
        }
        free.extend(own.into_iter().map(|(_, set_id)| set_id));
        Leases(free)
    }
}

/// The auto-release sets that are leased by no live session of another process (design 2.2): left behind, or the peer's own.
/// One that is not named here is leased, also when it was finished only after this was found out.
pub(super) struct Leases(BTreeSet<SetId>);

impl Leases {
    fn are_on(&self, entry: &SetEntry) -> bool {
        entry.set.context.is_auto_release() && !self.0.contains(&entry.set.set_id)
    }
}

fn providers(environment: &Environment) -> Providers {
    Providers { providers: provider_entries(environment) }
}

pub(super) fn provider_entries(environment: &Environment) -> Vec<ProviderEntry> {
    let name = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
    environment
        .providers
        .iter()
        .map(|provider| {
            let properties = provider.properties();
            ProviderEntry {
                id: properties.id,
                name: properties.name,
                version: properties.version,
                provider_type: name(serde_json::json!(properties.provider_type)),
                freeze_policy: name(serde_json::json!(properties.freeze_policy)),
                kind: name(serde_json::json!(properties.capabilities.kind)),
                writable_phase: properties.capabilities.writable_phase,
            }
        })
        .collect()
}

/// What a peer may see: all for root, its own for others.
fn shadows_of(environment: &Environment, peer: &Peer) -> Vec<vss_model::ShadowCopy> {
    let sets = environment.catalogue.sets();
    let visible = sets.into_iter().filter(|entry| peer.uid == 0 || entry.set.owner == peer.uid);
    let mut shadows: Vec<_> = visible.flat_map(|entry| entry.set.shadows).collect();
    environment.show_places(&mut shadows);
    shadows
}

fn set_record(environment: &Environment, peer: &Peer, wanted: GetSet) -> Result<SetRecord, VssError> {
    let entry = match (wanted.set_id, wanted.shadow_id) {
        (Some(set_id), None) => environment.catalogue.set(set_id),
        (None, Some(shadow_id)) => environment.catalogue.set_of(shadow_id),
        _ => {
            let why = "GetSet takes exactly one of set_id and shadow_id";
            return Err(VssError::new(VssCode::InvalidArgument, why));
        }
    };
    let entry = entry.ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, "There is no such shadow copy or set")
            .with_hint("`vss list shadows` shows what there is")
    })?;
    rules::owner(peer, entry.set.owner, "see this shadow copy set")?;
    let mut set = entry.set;
    environment.show_places(&mut set.shadows);
    Ok(SetRecord { set })
}

fn list_volumes(environment: &Environment) -> Result<Vec<VolumeEntry>, VssError> {
    let volumes = volumes::list()?;
    Ok(volumes
        .into_iter()
        .map(|volume| {
            let shadows = environment.catalogue.copies_of(&volume.id) as u64;
            let (provider, reason) = match environment.providers.first_for(&volume) {
                Ok(provider) => (Some(provider.properties().name), String::new()),
                Err(reason) => (None, reason),
            };
            VolumeEntry {
                volume: volume.mount_point,
                volume_id: volume.id,
                fs_type: volume.fs_type,
                source: volume.source,
                provider,
                reason,
                shadows,
            }
        })
        .collect())
}

/// DeleteShadows: one after another, stops at the first that cannot be deleted and names it (spec P 10, row 17).
async fn delete(
    environment: Arc<Environment>,
    peer: Peer,
    selection: Selection,
    leases: Leases,
) -> Result<Deleted, VssError> {
    let (chooser, chosen_by) = (Arc::clone(&environment), peer.clone());
    let (all, by_name) = (selection.all, !selection.shadow_ids.is_empty());
    let chosen = blocking::run("Choosing shadow copies", limits::PROVIDER_IN_WINDOW, move || {
        choose(&chooser, &chosen_by, &selection)
    })
    .await?;
    let how = How { all, by_name };
    match delete_each(&environment, &peer, &chosen, &leases, how).await {
        (deleted, None) => Ok(Deleted { shadow_ids: deleted }),
        (_, Some((_, error))) => Err(error),
    }
}

/// How copies to be deleted were chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// All that can be deleted: a leased one is left out.
    pub(super) all: bool,
    /// By their own ids: one that is gone is an error.
    pub(super) by_name: bool,
}

/// Deletes one after another until the first that cannot be; returns what is gone, and where it stopped (spec P 4.5).
pub(super) async fn delete_each(
    environment: &Arc<Environment>,
    peer: &Peer,
    chosen: &[ShadowId],
    leases: &Leases,
    how: How,
) -> (Vec<ShadowId>, Option<(ShadowId, VssError)>) {
    let mut deleted = Vec::new();
    for &shadow_id in chosen {
        let entry = match removal::find(environment, shadow_id) {
            Ok((entry, _)) => entry,
            // Somebody else has deleted it since we looked, which is what was wanted.
            Err(_) if !how.by_name => continue,
            Err(error) => return (deleted, Some((shadow_id, error))),
        };
        if let Err(error) = rules::owner(peer, entry.set.owner, &format!("delete shadow copy {shadow_id}")) {
            return (deleted, Some((shadow_id, error)));
        }
        if leases.are_on(&entry) {
            // `--all` means what can be deleted; a copy that a running backup reads cannot.
            if how.all {
                continue;
            }
            let error = VssError::new(
                VssCode::VolumeInUse,
                format!("Shadow copy {shadow_id} is in use by a running backup ({})", entry.set.requester),
            )
            .with_hint("It goes when that backup ends");
            return (deleted, Some((shadow_id, error)));
        }
        match removal::remove(environment, shadow_id).await {
            Ok(()) => deleted.push(shadow_id),
            Err(_) if !how.by_name && removal::find(environment, shadow_id).is_err() => {}
            Err(error) => {
                let done = deleted.len();
                let error = error.while_doing(format!("Shadow copy {shadow_id} was not deleted ({done} were)"));
                return (deleted, Some((shadow_id, error)));
            }
        }
    }
    (deleted, None)
}

fn choose(environment: &Environment, peer: &Peer, selection: &Selection) -> Result<Vec<ShadowId>, VssError> {
    let ways =
        [!selection.shadow_ids.is_empty(), selection.set_id.is_some(), selection.oldest_of.is_some(), selection.all];
    if ways.iter().filter(|way| **way).count() != 1 {
        return Err(VssError::new(
            VssCode::InvalidArgument,
            "DeleteShadows takes exactly one of shadow_ids, set_id, oldest_of and all",
        ));
    }
    if let Some(set_id) = selection.set_id {
        return removal::of_set(environment, set_id);
    }
    if let Some(path) = &selection.oldest_of {
        let volume = volumes::resolve(path)?.volume;
        let sets = environment.catalogue.sets();
        let visible = sets.iter().rev().filter(|entry| peer.uid == 0 || entry.set.owner == peer.uid);
        let oldest = visible.flat_map(|entry| &entry.copies).find(|copy| copy.stored.volume.id == volume.id);
        return oldest.map(|copy| vec![copy.stored.shadow_id]).ok_or_else(|| {
            VssError::new(VssCode::ObjectNotFound, format!("{} has no shadow copy", volume.mount_point.display()))
        });
    }
    if selection.all {
        return Ok(shadows_of(environment, peer).into_iter().map(|shadow| shadow.id).collect());
    }
    Ok(selection.shadow_ids.clone())
}
