//! Where finished copies are shown: ExposeSnapshot and UnexposeSnapshot.

use crate::catalogue::SetEntry;
use crate::coordinator::Coordinator;
use crate::providers::by_contract;
use crate::{blocking, fault, removal, rules};
use std::sync::Arc;
use vss_api::event::{self, EventKind};
use vss_api::requester::{ExposeSnapshot, Exposed, UnexposeSnapshot};
use vss_api::server::{ConnectionId, Replier};
use vss_model::{ShadowId, VssCode, VssError, limits};

impl Coordinator {
    pub(super) fn expose(&mut self, id: ConnectionId, parameters: ExposeSnapshot, replier: Replier) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer.clone()) else { return };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let all = Arc::clone(&environment);
            let _one = all.changes.lock().await;
            let exposed = blocking::run("Exposing a shadow copy", limits::PROVIDER_OUTSIDE, move || {
                rules::root(&peer, "expose shadow copies")?;
                let (entry, copy) = removal::find(&environment, parameters.shadow_id)?;
                if parameters.path.is_some() {
                    check_exposable_at(&entry, parameters.shadow_id)?;
                }
                if let Some(place) = environment.place(parameters.shadow_id)? {
                    if parameters.path.as_ref().is_none_or(|path| *path == place) {
                        return Ok(Exposed { path: place });
                    }
                    return Err(VssError::new(
                        VssCode::ObjectAlreadyExists,
                        format!("Shadow copy {} is exposed at {} already", parameters.shadow_id, place.display()),
                    )
                    .with_hint("Use it there, or `vss unexpose` it first"));
                }
                let provider = environment.providers.named(&copy.provider)?;
                let trees = provider.mount(&copy.stored, false).map_err(|error| by_contract(&copy.provider, error))?;
                let path = match &parameters.path {
                    Some(path) => environment.expose_at(parameters.shadow_id, trees, path)?.place,
                    None => environment.exposures.expose(parameters.shadow_id, trees)?,
                };
                let event = event::Event { path: Some(path.clone()), ..event::Event::of(EventKind::CopyExposed) };
                removal::tell(&environment, &entry, &copy, event);
                Ok(Exposed { path })
            });
            replier.result(exposed.await);
        });
    }

    pub(super) fn unexpose(&mut self, id: ConnectionId, parameters: UnexposeSnapshot, replier: Replier) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer.clone()) else { return };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let all = Arc::clone(&environment);
            let _one = all.changes.lock().await;
            let done = blocking::run("Unexposing a shadow copy", limits::PROVIDER_OUTSIDE, move || {
                let (entry, copy) = removal::find(&environment, parameters.shadow_id)?;
                rules::owner(&peer, entry.set.owner, "unexpose this shadow copy")?;
                if !environment.unexpose(parameters.shadow_id)? {
                    return Err(VssError::new(
                        VssCode::ObjectNotFound,
                        format!("Shadow copy {} is not exposed", parameters.shadow_id),
                    ));
                }
                removal::tell(&environment, &entry, &copy, event::Event::of(EventKind::CopyUnexposed));
                Ok(vss_api::Empty {})
            });
            replier.result(done.await);
        });
    }
}

/// May this copy be shown at a directory of the caller's? One that goes with its session would be taken away there under
/// whoever uses it; at the service's own place its requester reads it. One for previous versions on shares is shown by the
/// shares (spec P 4.6; one that lives until reboot is ours, P 11).
///
/// # Errors
/// `VSS_E_UNSUPPORTED_CONTEXT`.
fn check_exposable_at(entry: &SetEntry, shadow_id: ShadowId) -> Result<(), VssError> {
    let context = entry.set.context;
    if !(context.is_auto_release() || context.is_client_accessible()) || fault::is_off("exposable") {
        return Ok(());
    }
    let why = if context.is_auto_release() { "goes with its session" } else { "is for previous versions on shares" };
    let message = format!("Shadow copy {shadow_id} {why}, and cannot be exposed at a directory");
    Err(VssError::new(VssCode::UnsupportedContext, message)
        .with_hint("Leave the directory out, or make a copy that stays with `vss create --persistent`"))
}
