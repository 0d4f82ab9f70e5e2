//! `org.linuxvss.Requester` about finished shadow copies: query, properties, delete, break (spec P 4.1 to 4.8). Any session
//! may call these, at any time.

use super::management::{How, delete_each, provider_entries};
use crate::coordinator::Coordinator;
use crate::environment::Environment;
use crate::{blocking, fault, removal, rules};
use std::sync::Arc;
use vss_api::Empty;
use vss_api::objects::{
    BreakSnapshotSet, DeleteSnapshots, Properties, Queried, Query, SetSnapshotProperty, Snapshot, SnapshotsDeleted,
};
use vss_api::server::{ConnectionId, Peer, Replier};
use vss_model::error::status;
use vss_model::{
    Context, ObjectType, SetId, ShadowId, SnapshotProperties, SnapshotProperty, VssCode, VssError, limits,
};
use vss_session::Call as Step;

/// Longest name of a machine, in bytes (the longest domain name, RFC 1035).
const LONGEST_MACHINE: usize = 255;
/// `VSS_BREAKEX_FLAG_MASK_LUNS`: excludes every other flag (spec P 4.8).
const MASK_LUNS: u32 = 0x1;
/// `VSS_BREAKEX_FLAG_REVERT_IDENTITY_ALL` and `_NONE`: exclude each other.
const REVERT_IDENTITY: u32 = 0x4 | 0x8;

impl Coordinator {
    /// The caller and its session's context, if it may make this call now.
    fn caller(&mut self, id: ConnectionId, call: Step) -> Result<(Peer, Context), VssError> {
        let session = self.session(id)?;
        vss_session::permits(&session.state, call)?;
        let context = session.state.draft().map(vss_session::Draft::context).unwrap_or_default();
        let peer = self.connections.get(&id).map(|connection| connection.peer.clone());
        Ok((peer.ok_or_else(|| VssError::new(VssCode::Unexpected, "The connection is gone"))?, context))
    }

    /// Answers a call about objects with what `work` finds out on a thread of its own.
    fn about_objects<T: serde::Serialize + Send + 'static>(
        &mut self,
        id: ConnectionId,
        call: Step,
        replier: Replier,
        work: impl FnOnce(&Environment, &Peer, Context) -> Result<T, VssError> + Send + 'static,
    ) {
        let (peer, context) = match self.caller(id, call) {
            Ok(caller) => caller,
            Err(error) => return replier.error(&error),
        };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let all = Arc::clone(&environment);
            let _one = all.changes.lock().await;
            let what = format!("{call} of finished shadow copies");
            let work = move || work(&environment, &peer, context);
            replier.result(blocking::run(&what, limits::PROVIDER_IN_WINDOW, work).await);
        });
    }

    pub(super) fn query(&mut self, id: ConnectionId, parameters: Query, replier: Replier) {
        self.about_objects(id, Step::Query, replier, move |environment, peer, context| {
            query(environment, peer, context, parameters)
        });
    }

    pub(super) fn snapshot_properties(&mut self, id: ConnectionId, parameters: Snapshot, replier: Replier) {
        self.about_objects(id, Step::GetSnapshotProperties, replier, move |environment, peer, _| {
            let (entry, _) = removal::find(environment, parameters.snapshot_id)?;
            rules::owner(peer, entry.set.owner, "see this shadow copy")?;
            let mut set = entry.set;
            environment.show_places(&mut set.shadows);
            let shadow = set.shadows.iter().find(|shadow| shadow.id == parameters.snapshot_id);
            let properties = shadow.map(|shadow| SnapshotProperties::of(&set, shadow));
            let gone = || VssError::new(VssCode::ObjectNotFound, "The shadow copy is deleted");
            Ok(Properties { properties: properties.ok_or_else(gone)? })
        });
    }

    pub(super) fn set_snapshot_property(&mut self, id: ConnectionId, wanted: SetSnapshotProperty, replier: Replier) {
        self.about_objects(id, Step::SetSnapshotProperty, replier, move |environment, peer, _| {
            let (entry, _) = removal::find(environment, wanted.snapshot_id)?;
            rules::owner(peer, entry.set.owner, "change this shadow copy")?;
            let value = &wanted.value;
            if wanted.property != SnapshotProperty::ServiceMachine {
                let message = format!("Property {:?} is not a requester's to set", wanted.property);
                return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Only service_machine is"));
            }
            if value.is_empty() || value.len() > LONGEST_MACHINE || value.chars().any(char::is_control) {
                let message = format!("A machine's name has 1 to {LONGEST_MACHINE} bytes and no control character");
                return Err(VssError::new(VssCode::InvalidArgument, message));
            }
            if !fault::is_off("property") {
                environment.catalogue.set_service_machine(wanted.snapshot_id, value)?;
            }
            Ok(Empty {})
        });
    }

    pub(super) fn delete_snapshots(&mut self, id: ConnectionId, wanted: DeleteSnapshots, replier: Replier) {
        let peer = match self.caller(id, Step::DeleteSnapshots) {
            Ok((peer, _)) => peer,
            Err(error) => return replier.error(&error),
        };
        let chosen = match chosen(&self.environment, &wanted) {
            Ok(chosen) => chosen,
            Err(error) => return replier.error(&error),
        };
        let how = How { all: false, by_name: wanted.object_type == ObjectType::Snapshot };
        let leases = self.leases(&peer);
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let (deleted, stopped) = delete_each(&environment, &peer, &chosen, &leases, how).await;
            let deleted = u32::try_from(deleted.len()).unwrap_or(u32::MAX);
            let (first_not_deleted, failure) = stopped.unzip();
            replier.ok(&SnapshotsDeleted { deleted, first_not_deleted, failure });
        });
    }

    pub(super) fn break_snapshot_set(&mut self, id: ConnectionId, wanted: BreakSnapshotSet, replier: Replier) {
        self.about_objects(id, Step::BreakSnapshotSet, replier, move |environment, peer, _| -> Result<Empty, _> {
            let BreakSnapshotSet { set_id, flags } = wanted;
            if (flags & MASK_LUNS != 0 && flags != MASK_LUNS) || flags & REVERT_IDENTITY == REVERT_IDENTITY {
                let message = format!("Flags {flags:#x} of BreakSnapshotSet exclude each other");
                return Err(VssError::new(VssCode::InvalidArgument, message));
            }
            removal::of_set(environment, set_id)?;
            if let Some(entry) = environment.catalogue.set(set_id) {
                rules::owner(peer, entry.set.owner, "break this shadow copy set")?;
            }
            let message =
                format!("The copies of set {set_id} live on what their volumes hold and cannot be broken off");
            Err(VssError::new(VssCode::ProviderVeto, message)
                .with_hint("Copy the files out of an exposed copy instead"))
        });
    }
}

fn query(environment: &Environment, peer: &Peer, context: Context, wanted: Query) -> Result<Queried, VssError> {
    if wanted.queried_type != ObjectType::None {
        let message = format!("A query takes no object of type {:?} as filter", wanted.queried_type);
        return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Leave queried_type out"));
    }
    let (mut snapshots, mut providers) = (Vec::new(), Vec::new());
    match wanted.returned_type {
        ObjectType::Snapshot => {
            for entry in environment.catalogue.sets() {
                let is_shown = context == Context::All || entry.set.context == context || fault::is_off("query");
                if is_shown && (peer.uid == 0 || entry.set.owner == peer.uid) {
                    let mut set = entry.set;
                    environment.show_places(&mut set.shadows);
                    snapshots.extend(set.shadows.iter().map(|shadow| SnapshotProperties::of(&set, shadow)));
                }
            }
        }
        ObjectType::Provider => providers = provider_entries(environment),
        other => {
            let message = format!("A query returns shadow copies or providers, not {other:?}");
            return Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Use snapshot or provider"));
        }
    }
    let result = if snapshots.is_empty() && providers.is_empty() { status::S_FALSE } else { status::S_OK };
    Ok(Queried { result, snapshots, providers })
}

/// The copies that a DeleteSnapshots names, in the order in which they go.
fn chosen(environment: &Environment, wanted: &DeleteSnapshots) -> Result<Vec<ShadowId>, VssError> {
    let no_id = || VssError::new(VssCode::InvalidArgument, format!("\"{}\" is no id", wanted.object_id));
    match wanted.object_type {
        ObjectType::Snapshot => {
            let shadow_id: ShadowId = wanted.object_id.parse().map_err(|_| no_id())?;
            removal::find(environment, shadow_id)?;
            Ok(vec![shadow_id])
        }
        ObjectType::SnapshotSet => {
            let set_id: SetId = wanted.object_id.parse().map_err(|_| no_id())?;
            removal::of_set(environment, set_id)
        }
        other => {
            let message = format!("DeleteSnapshots deletes shadow copies and sets, not {other:?}");
            Err(VssError::new(VssCode::InvalidArgument, message).with_hint("Use snapshot or snapshot_set"))
        }
    }
}
