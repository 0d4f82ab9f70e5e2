//! Work that waits, done beside the coordinator: operations of a session, taking a volume, and what follows a session's end.
//!
//! A job gets what it needs by value and gives it back with its outcome; it never touches the coordinator's state.

use crate::creation_lock::CreationLock;
use crate::environment::Environment;
use crate::operation::Operation;
use crate::sagas::create_set::{self, CreateSet, Member, Plan};
use crate::writers::{EventFacts, RegisteredWriter, SessionWriters};
use crate::{blocking, documents, fault, providers, removal, reverts, sagas, volumes, writers};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vss_api::event::{self, Event};
use vss_api::requester::{VolumeAdded, VolumeQuestion, VolumeSupport};
use vss_api::writer::EventKind;
use vss_model::{
    Attributes, Context, CreationOptions, HoldProof, SetId, ShadowCopySet, ShadowId, Volume, VolumeId, VssCode,
    VssError, limits,
};
use vss_provider::{PrepareRequest, Provider};
use vss_session::{Chosen, ComponentReference, Effect, Failure, Finished};

/// What a finished operation gives back.
pub struct OperationOutcome {
    /// How it ended.
    pub finished: Finished,
    /// The session's writers.
    pub writers: SessionWriters,
    /// The finished set if it has no volume: the catalogue keeps only what there are copies of.
    pub empty_set: Option<ShadowCopySet>,
}

impl OperationOutcome {
    /// An operation that made no set.
    #[must_use]
    pub fn new(finished: Finished, writers: SessionWriters) -> Self {
        Self { finished, writers, empty_set: None }
    }
}

/// The end of an operation, told apart from a wish to stop.
fn ended<T>(operation: &Operation, result: Result<T, VssError>) -> Result<T, Failure> {
    result.map_err(|error| if operation.is_cancelled() { Failure::Cancelled } else { Failure::Error(error) })
}

/// GatherWriterMetadata, of these writers; or the error of writers that are wanted and do not run.
pub async fn gather_metadata(
    operation: Operation,
    facts: EventFacts,
    writers: Result<Vec<(Arc<RegisteredWriter>, Duration)>, VssError>,
    prepare_limit: Duration,
) -> OperationOutcome {
    operation.step("asking writers what they own");
    let result = match writers {
        Ok(writers) => operation.unless_cancelled(writers::identify(facts.session_id, writers)).await,
        Err(error) => Err(error),
    };
    match ended(&operation, result) {
        Ok(asked) => {
            for one in &asked {
                let name = &one.writer.register.name;
                facts.teller.writer(None, name, EventKind::Identify.name(), one.took, one.metadata.as_ref().err());
            }
            let writers = SessionWriters::new(asked, prepare_limit);
            let metadata = writers.iter().map(|writer| writer.metadata.clone()).collect();
            OperationOutcome::new(Finished::GatherWriterMetadata(Ok(metadata)), writers)
        }
        Err(failure) => OperationOutcome::new(Finished::GatherWriterMetadata(Err(failure)), SessionWriters::default()),
    }
}

/// Which writers a backup concerns.
pub enum Involvement {
    /// Those whose components the requester chose.
    Chosen(Vec<(ComponentReference, Chosen)>),
    /// Those with a component on one of these volumes.
    ByVolume(Vec<VolumeId>),
}

/// PrepareForBackup.
pub async fn prepare_for_backup(
    operation: Operation,
    mut writers: SessionWriters,
    facts: EventFacts,
    involvement: Involvement,
) -> OperationOutcome {
    operation.step("telling writers of the backup");
    let result = match involve(&mut writers, involvement).await {
        Ok(()) => operation.unless_cancelled(writers.tell(EventKind::PrepareBackup, &facts)).await,
        Err(error) => Err(error),
    };
    OperationOutcome::new(Finished::PrepareForBackup(ended(&operation, result)), writers)
}

async fn involve(writers: &mut SessionWriters, involvement: Involvement) -> Result<(), VssError> {
    match involvement {
        Involvement::Chosen(components) => {
            for writer in writers.iter_mut() {
                let instance = writer.metadata.instance_id;
                let of_it = components.iter().filter(|(component, _)| component.instance_id == instance);
                writer.words = of_it.map(|(component, words)| (component.name.clone(), words.clone())).collect();
                writer.components = writer.words.keys().cloned().collect();
                if writer.components.is_empty() && fault::is_off("silence") {
                    writer.components = writer.metadata.components.iter().map(|one| one.name.clone()).collect();
                }
            }
        }
        Involvement::ByVolume(of_set) => {
            let table = mount_table().await?;
            let mounts: Vec<_> = table.iter().map(|(path, volume)| (path.as_path(), volume)).collect();
            writers.involve_by_volume(&of_set, &mounts);
        }
    }
    Ok(())
}

async fn mount_table() -> Result<Vec<(PathBuf, VolumeId)>, VssError> {
    blocking::run("Reading the mount table", limits::PROVIDER_IN_WINDOW, volumes::mount_table).await
}

/// DoSnapshotSet.
pub async fn create_set(
    environment: Arc<Environment>,
    operation: Operation,
    plan: Plan,
    writers: SessionWriters,
) -> OperationOutcome {
    let (teller, name) = (plan.facts.teller.clone(), plan.requester.name.clone());
    let mounts = match mount_table().await {
        Ok(mounts) => mounts,
        Err(error) => {
            return OperationOutcome::new(Finished::DoSnapshotSet(ended(&operation, Err(error))), writers);
        }
    };
    let set_id = plan.set_id;
    let told = |kind| Event { set_id: Some(set_id), requester: Some(name.clone()), ..Event::of(kind) };
    teller.tell(told(event::EventKind::SetBegun));
    let mut saga = CreateSet::new(environment, operation.clone(), plan, writers, mounts);
    let result = sagas::run(create_set::TABLE, &mut saga).await.map_err(|failure| {
        tracing::warn!(%set_id, row = failure.row, cause = %failure.cause, undo_failures = failure.undo_failures.len(), "the set was not made");
        failure.into_error()
    });
    teller.tell(match (&result, saga.set()) {
        (Err(failure), _) => Event { failure: Some(failure.clone()), ..told(event::EventKind::SetFailed) },
        (Ok(()), set) => Event {
            consistency: set.map(|set| set.consistency),
            hold_us: set.map(|set| set.proof.as_ref().map_or(0, HoldProof::hold_us)),
            ..told(event::EventKind::SetFinished)
        },
    });
    if let (Ok(()), Some(set)) = (&result, saga.set()) {
        tracing::info!(%set_id, shadows = set.shadows.len(), hold_ms = set.hold_ms, "the set is made");
    }
    let empty_set = saga.set().filter(|set| set.shadows.is_empty()).cloned();
    OperationOutcome { finished: Finished::DoSnapshotSet(ended(&operation, result)), writers: saga.writers, empty_set }
}

/// Keeps with the set what the session has said of its components by now. What fails is logged: the writers' part in the
/// backup does not hang on it, and the document as it was stays.
async fn renew_document(environment: &Arc<Environment>, set_id: SetId, writers: &SessionWriters) {
    // Without writers there is nothing new; of an operation that broke off they are lost, and what is kept says more.
    let is_said = writers.iter().next().is_some();
    let Some(entry) = environment.catalogue.set(set_id).filter(|entry| is_said && !entry.documents.is_empty()) else {
        return;
    };
    let said = documents::backup_components(set_id, entry.set.backup_state, writers);
    let environment = Arc::clone(environment);
    let work = move || environment.catalogue.documents().renew(set_id, &said);
    if let Err(error) = blocking::run("Writing a document", limits::PROVIDER_OUTSIDE, work).await {
        tracing::warn!(%set_id, %error, "the Backup Components Document is kept as it was");
    }
}

/// BackupComplete.
pub async fn complete_backup(
    environment: Arc<Environment>,
    operation: Operation,
    mut writers: SessionWriters,
    facts: EventFacts,
) -> OperationOutcome {
    operation.step("telling writers that the backup is done");
    // Before the writers hear of it: what they then throw away is in a backup whose document says so.
    if let Some(set_id) = facts.set_id {
        renew_document(&environment, set_id, &writers).await;
    }
    let result = operation.unless_cancelled(writers.tell(EventKind::BackupComplete, &facts)).await;
    OperationOutcome::new(Finished::BackupComplete(ended(&operation, result)), writers)
}

/// IsVolumeSupported.
///
/// # Errors
/// `VSS_E_OBJECT_NOT_FOUND` for a path that is not there, `VSS_E_PROVIDER_NOT_REGISTERED`.
pub async fn is_volume_supported(
    environment: Arc<Environment>,
    question: VolumeQuestion,
) -> Result<VolumeSupport, VssError> {
    blocking::run("Examining the volume", limits::PROVIDER_IN_WINDOW, move || {
        let located = volumes::resolve(&question.volume)?;
        let chosen = volumes::check_is_alone(&located.volume)
            .and_then(|()| environment.providers.choose(&located.volume, question.provider.as_deref()));
        match chosen {
            Ok(provider) => {
                Ok(VolumeSupport { supported: true, provider: Some(provider.properties().name), reason: String::new() })
            }
            Err(error) if error.code == VssCode::ProviderNotRegistered => Err(error),
            Err(error) => Ok(VolumeSupport { supported: false, provider: None, reason: error.message }),
        }
    })
    .await
}

/// A volume that may join a set, and who would copy it.
pub struct Candidate {
    /// The copy to be.
    pub shadow_id: ShadowId,
    /// Where the path lies in the volume.
    pub inner: PathBuf,
    /// The volume.
    pub volume: Volume,
    /// Who would copy it.
    pub provider: Arc<dyn Provider>,
}

/// AddToSnapshotSet, first part: finds the volume and its provider. Tells nobody.
///
/// # Errors
/// `E_INVALIDARG`, `VSS_E_OBJECT_NOT_FOUND`, `VSS_E_VOLUME_NOT_SUPPORTED` and the others of spec P 2.3,
/// `VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED`, `VSS_E_REVERT_IN_PROGRESS`, `VSS_E_UNSUPPORTED_CONTEXT`.
pub async fn find_volume(
    environment: Arc<Environment>,
    question: VolumeQuestion,
    context: Context,
    attributes: Attributes,
) -> Result<Candidate, VssError> {
    blocking::run("Finding the volume", limits::PROVIDER_IN_WINDOW, move || {
        let located = volumes::resolve(&question.volume)?;
        let volume = located.volume;
        volumes::check_is_alone(&volume)?;
        if let Some(pending) = reverts::pending(&environment, &volume.id)? {
            return Err(reverts::in_progress(&volume, pending.shadow_id));
        }
        let copies = environment.catalogue.copies_of(&volume.id);
        if copies >= limits::SHADOW_COPIES_PER_VOLUME && !fault::is_off("copies") {
            return Err(VssError::new(
                VssCode::MaximumNumberOfSnapshotsReached,
                format!("{} has {copies} shadow copies, the most there can be", volume.mount_point.display()),
            )
            .with_hint("Delete some: `vss delete --oldest VOLUME`"));
        }
        let provider = environment.providers.choose_for(&volume, question.provider.as_deref(), attributes)?;
        providers::check_context(provider, context)?;
        let provider = Arc::clone(provider);
        Ok(Candidate { shadow_id: ShadowId::random(), inner: located.inner, volume, provider })
    })
    .await
}

/// AddToSnapshotSet, second part: the provider takes the volume into the set. Only for what the session's machine accepts:
/// a provider makes a copy of everything that it was told here.
///
/// # Errors
/// Those of [`Provider::begin_prepare`].
pub async fn begin_prepare(
    set_id: SetId,
    context: Context,
    options: CreationOptions,
    candidate: Candidate,
) -> Result<(Member, VolumeAdded), VssError> {
    let Candidate { shadow_id, inner, volume, provider } = candidate;
    let name = provider.properties().name;
    let added = VolumeAdded { shadow_id, volume: volume.mount_point.clone(), inner, provider: name.clone() };
    blocking::run(&format!("Provider {name} in begin_prepare"), limits::PROVIDER_IN_WINDOW, move || {
        let request = PrepareRequest { set_id, shadow_id, volume: volume.clone(), context, options };
        let stored = provider.begin_prepare(&request).map_err(|error| providers::by_contract(&name, error))?;
        Ok((Member { shadow_id, volume, provider, stored }, added))
    })
    .await
}

/// What an epilogue works with, and gives back.
pub struct Epilogue {
    /// The session's writers.
    pub writers: SessionWriters,
    /// The volumes of its set.
    pub members: Vec<Member>,
    /// The creation lock, if the session holds it.
    pub lock: Option<CreationLock>,
}

/// Carries out the effects that follow an abort or the end of a session, in their order. They must be made to work: what
/// fails is logged, and left for the next start.
pub async fn epilogue(
    environment: Arc<Environment>,
    mut epilogue: Epilogue,
    facts: EventFacts,
    effects: Vec<Effect>,
) -> Epilogue {
    for effect in effects {
        match effect {
            // For tests that must see what these are for.
            Effect::AbortWriters if fault::is_off("abort") => {}
            Effect::ShutdownWriters { .. } if fault::is_off("shutdown") => {}
            Effect::DeleteAutoRelease(_) if fault::is_off("auto_release") => {}
            Effect::AbortWriters => epilogue.writers.abort_all(&facts).await,
            Effect::ForgetSet(set_id) => {
                for member in &epilogue.members {
                    let provider = Arc::clone(&member.provider);
                    let work = move || provider.abort(set_id);
                    if let Err(error) = blocking::run("Forgetting a set", limits::PROVIDER_IN_WINDOW, work).await {
                        tracing::warn!(%set_id, %error, "a provider could not forget the set");
                    }
                }
                epilogue.members.clear();
            }
            Effect::ReleaseCreationLock => epilogue.lock = None,
            Effect::ShutdownWriters { set_id } => {
                // A session that ends without BackupComplete has said something of its components too.
                if let Some(set_id) = set_id {
                    renew_document(&environment, set_id, &epilogue.writers).await;
                }
                let facts = EventFacts { set_id, ..facts.clone() };
                epilogue.writers.shut_down(&facts).await;
            }
            Effect::DeleteAutoRelease(set_id) => {
                // A set whose copies were deleted one by one before is gone already.
                for shadow_id in removal::of_set(&environment, set_id).unwrap_or_default() {
                    if let Err(error) = removal::remove(&environment, shadow_id).await {
                        tracing::error!(%shadow_id, %error, "a shadow copy of an ended session could not be deleted");
                    }
                }
            }
            Effect::IdentifyWriters(_)
            | Effect::PrepareWriters
            | Effect::CreateSet { .. }
            | Effect::GatherStatus
            | Effect::CompleteBackup
            | Effect::CancelOperation(_) => {}
        }
    }
    epilogue
}
