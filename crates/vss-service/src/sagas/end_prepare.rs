//! EndPrepare of one provider: the one phase that may take hours, and that is broken off by a wish to stop.

use super::StepFuture;
use super::create_set::{CreateSet, Member};
use super::held_volumes::HeldVolumes;
use crate::blocking;
use crate::environment::HoldMaker;
use crate::operation::cancelled;
use crate::set_watcher::SetWatcher;
use std::sync::Arc;
use vss_model::{VssError, limits};
use vss_provider::Provider;

impl CreateSet {
    /// EndPrepare of one provider, as long as it gets on. A wish to stop reaches it at once, as its abort from another thread;
    /// the phase is waited for all the same, since its undo must come after it.
    pub(super) async fn end_prepare_of(&mut self, name: &str, provider: Arc<dyn Provider>) -> Result<(), VssError> {
        let set_id = self.plan.set_id;
        let its = |member: &&Member| member.provider.properties().name == name;
        let its = self.plan.members.iter().filter(its);
        let volumes = its.map(|member| (member.shadow_id, member.volume.mount_point.clone())).collect();
        let teller = self.plan.facts.teller.clone();
        let watcher = Arc::new(SetWatcher::new(self.operation.clone(), teller, set_id, name.to_owned(), volumes));
        let (copier, heard) = (Arc::clone(&provider), Arc::clone(&watcher));
        let what = format!("Provider {name} in end_prepare");
        let work = move || copier.end_prepare(set_id, &*heard);
        let running = blocking::run_while_moving(&what, limits::PROVIDER_OUTSIDE, watcher.moved(), work);
        tokio::pin!(running);
        let ended = tokio::select! {
            biased;
            ended = &mut running => ended,
            () = self.operation.cancelled() => {
                watcher.close();
                self.operation.step(format!("stopping provider {name}"));
                let abort = move || provider.abort(set_id);
                let what = format!("Provider {name} in abort");
                let abort = blocking::run(&what, limits::PROVIDER_IN_WINDOW, abort);
                let (aborted, ended) = tokio::join!(abort, tokio::time::timeout(limits::PROVIDER_IN_WINDOW, running));
                if let Err(error) = aborted {
                    // It is aborted once more when the set is undone; that failure counts.
                    tracing::warn!(%set_id, provider = name, %error, "the provider could not be aborted at once");
                }
                if !matches!(ended, Ok(Ok(_))) {
                    self.thread_lost = true;
                }
                return Err(cancelled());
            }
        };
        watcher.close();
        match ended {
            Ok(result) => result.map_err(|error| self.trouble(name, "end_prepare", error)),
            Err(left) => {
                self.thread_lost = true;
                Err(self.trouble(name, "end_prepare", left))
            }
        }
    }
}

pub(super) fn end_prepare(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        for (name, provider) in saga.providers() {
            if saga.phases_done.contains(&("end_prepare", name.clone())) {
                continue;
            }
            saga.end_prepare_of(&name, provider).await?;
            saga.phases_done.insert(("end_prepare", name));
        }
        // Copying may have taken hours, in which mounts came and went: may the volumes still be held?
        let judge = |maker: &dyn HoldMaker, volumes: &HeldVolumes| {
            maker.judge(&volumes.held, &volumes.others, &volumes.targets()?)
        };
        let (volumes, maker) = (HeldVolumes::of(&saga.plan.members), Arc::clone(&saga.environment.holds));
        volumes.ask(maker, "Looking at the mounts", judge).await.map(drop)
    })
}
