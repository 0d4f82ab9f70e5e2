//! The set of a session: begun, given its volumes, and shown when it is finished.

use crate::coordinator::{Action, Coordinator};
use crate::creation_lock::CreationLock;
use crate::jobs::{self, Candidate};
use crate::sagas::create_set::Member;
use crate::{blocking, fault, rules, volumes};
use std::sync::Arc;
use vss_api::requester::{FinishedSet, SetStarted, VolumeAdded, VolumeQuestion};
use vss_api::server::{ConnectionId, Replier};
use vss_model::{CreationOptions, VssCode, VssError, limits};
use vss_session::{Call as Step, Event};

impl Coordinator {
    pub(super) fn is_volume_supported(&mut self, id: ConnectionId, question: VolumeQuestion, replier: Replier) {
        if let Err(error) =
            self.session(id).and_then(|session| vss_session::permits(&session.state, Step::IsVolumeSupported))
        {
            return replier.error(&error);
        }
        let work = jobs::is_volume_supported(Arc::clone(&self.environment), question);
        self.answer(async move { replier.result(work.await) });
    }

    /// Taking the lock writes a file, which may lie on a volume that another instance holds: a job.
    pub(super) fn start_set(&mut self, id: ConnectionId, options: CreationOptions, replier: Replier) {
        let path = self.creation_lock.clone();
        let permitted = self.session(id).and_then(|session| {
            vss_session::permits(&session.state, Step::StartSnapshotSet)?;
            options.check()?;
            Ok(session.requester.clone())
        });
        let requester = match permitted {
            Ok(requester) => requester,
            Err(error) => return replier.error(&error),
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if options.storage.is_some()
            && let Err(error) = rules::choose_storage(&connection.peer)
        {
            return replier.error(&error);
        }
        let holder = format!("{requester} (process {})", connection.peer.pid);
        connection.queue.begin();
        let work = async move {
            let take = move || {
                options.storage.as_deref().map_or(Ok(()), volumes::check_storage)?;
                fault::check_turn()?;
                Ok((CreationLock::try_take(&path, &holder)?, options))
            };
            let lock = blocking::run("Taking the creation lock", limits::PROVIDER_IN_WINDOW, take).await;
            Action::LockTaken(id, lock, replier)
        };
        self.spawn(work, move || Action::Resumed(id));
    }

    /// StartSnapshotSet goes on.
    pub(crate) fn lock_taken(
        &mut self,
        id: ConnectionId,
        taken: Result<(CreationLock, CreationOptions), VssError>,
        replier: Replier,
    ) {
        let started = taken.and_then(|(lock, options)| {
            let session = self.session(id)?;
            let set_id = vss_model::SetId::random();
            session.state.apply(Event::StartSnapshotSet(set_id))?;
            session.lock = Some(lock);
            session.options = options;
            Ok(SetStarted { set_id })
        });
        replier.result(started);
        self.resume(id);
    }

    pub(super) fn take_volume(&mut self, id: ConnectionId, question: VolumeQuestion, replier: Replier) {
        let permitted =
            self.session(id).and_then(|session| vss_session::permits(&session.state, Step::AddToSnapshotSet));
        if let Err(error) = permitted {
            return replier.error(&error);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.queue.begin();
        }
        let draft = self.session(id).ok().and_then(|session| session.state.draft());
        let (context, attributes) = draft.map(|draft| (draft.context(), draft.attributes())).unwrap_or_default();
        let work = jobs::find_volume(Arc::clone(&self.environment), question, context, attributes);
        let work = async move { Action::VolumeFound(id, work.await.map(Box::new), replier) };
        self.spawn(work, move || Action::Resumed(id));
    }

    /// AddToSnapshotSet goes on: the session's machine decides before the provider is told.
    pub(crate) fn volume_found(&mut self, id: ConnectionId, found: Result<Box<Candidate>, VssError>, replier: Replier) {
        let accepted = found.and_then(|candidate| {
            let session = self.session(id)?;
            let event = Event::AddToSnapshotSet(vss_session::Member {
                shadow_id: candidate.shadow_id,
                volume: candidate.volume.id.clone(),
                provider: candidate.provider.properties().id,
            });
            vss_session::check(&session.state, &event)?;
            let facts = session.facts();
            Ok((*candidate, facts.set_id.ok_or_else(no_set)?, facts.context, session.options.clone()))
        });
        let (candidate, set_id, context, options) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                replier.error(&error);
                return self.resume(id);
            }
        };
        let work = jobs::begin_prepare(set_id, context, options, candidate);
        let work = async move { Action::VolumeTaken(id, work.await.map(Box::new), replier) };
        self.spawn(work, move || Action::Resumed(id));
    }

    pub(crate) fn volume_taken(
        &mut self,
        id: ConnectionId,
        taken: Result<Box<(Member, VolumeAdded)>, VssError>,
        replier: Replier,
    ) {
        let added = taken.and_then(|taken| {
            let (member, added) = *taken;
            let session = self.session(id)?;
            session.state.apply(Event::AddToSnapshotSet(vss_session::Member {
                shadow_id: member.shadow_id,
                volume: member.volume.id.clone(),
                provider: member.provider.properties().id,
            }))?;
            session.members.push(member);
            Ok(added)
        });
        replier.result(added);
        self.resume(id);
    }

    pub(super) fn finished_set(&mut self, id: ConnectionId, replier: Replier) {
        let environment = Arc::clone(&self.environment);
        let permitted = self.session(id).and_then(|session| {
            vss_session::permits(&session.state, Step::GetSnapshotSet)?;
            Ok((session.state.draft().and_then(vss_session::Draft::made_set), session.empty_set.clone()))
        });
        let (made, empty) = match permitted {
            Ok(permitted) => permitted,
            Err(error) => return replier.error(&error),
        };
        self.answer(async move {
            let set = blocking::run("Reading the mount table", limits::PROVIDER_IN_WINDOW, move || {
                let kept = made.and_then(|set_id| environment.catalogue.set(set_id)).map(|entry| entry.set);
                let mut set = kept.or(empty).ok_or_else(|| {
                    VssError::new(VssCode::ObjectNotFound, "The copies of the session's set are deleted")
                })?;
                environment.show_places(&mut set.shadows);
                Ok(FinishedSet { set })
            });
            replier.result(set.await);
        });
    }
}

fn no_set() -> VssError {
    VssError::new(VssCode::BadState, "There is no set").with_hint("Call StartSnapshotSet first")
}
