//! `org.linuxvss.Management` about copies as blocks: what changed, the image, and the way back.

use crate::catalogue::{KeptCopy, SetEntry};
use crate::coordinator::Coordinator;
use crate::environment::Environment;
use crate::providers::by_contract;
use crate::{blocking, removal, rules};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use vss_api::blocks::{
    BlockList, ChangedBlocks, EXTENTS, ImageOpened, OpenImage, QueryRevertStatus, RevertState, RevertToSnapshot,
};
use vss_api::server::{Peer, Replier};
use vss_model::{Extent, ShadowId, VssCode, VssError, limits};
use vss_provider::blocks::Changes;
use vss_provider::{Provider, StoredCopy};

/// Longest single wait; a caller that wants more asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Coordinator {
    /// ChangedBlocks.
    pub(super) fn changed_blocks(&mut self, peer: Peer, question: ChangedBlocks, replier: Replier) {
        let turn = match blocking::turn(&self.block_questions, limits::BLOCK_QUESTIONS, "blocks") {
            Ok(turn) => turn,
            Err(error) => return replier.error(&error),
        };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || {
                let _turn = turn;
                changed(&environment, &peer, question)
            };
            replier.result(blocking::run("Telling changed blocks", limits::PROVIDER_OUTSIDE, work).await);
        });
    }

    /// OpenImage.
    pub(super) fn open_image(&mut self, peer: Peer, question: OpenImage, replier: Replier) {
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || open(&environment, &peer, question.shadow_id);
            match blocking::run("Opening an image", limits::PROVIDER_OUTSIDE, work).await {
                Ok((opened, image)) => replier.ok_with_fds(&opened, vec![image]),
                Err(error) => replier.error(&error),
            }
        });
    }

    /// RevertToSnapshot: answered when it is recorded; the job goes on until the volume is put back.
    pub(super) fn revert(&mut self, peer: Peer, wanted: RevertToSnapshot, replier: Replier) {
        let (environment, reverts) = (Arc::clone(&self.environment), Arc::clone(&self.reverts));
        let RevertToSnapshot { shadow_id, give_up } = wanted;
        self.answer(async move {
            let for_it = Arc::clone(&environment);
            let one = environment.changes.lock().await;
            if give_up {
                let work = move || reverts.give_up(&for_it, &peer, shadow_id);
                return replier.result(blocking::run("Giving up a revert", limits::PROVIDER_OUTSIDE, work).await);
            }
            let work = move || reverts.begin(&for_it, &peer, shadow_id);
            match blocking::run("Beginning a revert", limits::PROVIDER_OUTSIDE, work).await {
                Ok(revert) => {
                    drop(one);
                    replier.ok(&revert.status());
                    let for_it = Arc::clone(&environment);
                    // As long as it takes; it tells by itself how it ended, unless its thread panics.
                    if let Err(error) = tokio::task::spawn_blocking(move || revert.run(&for_it)).await {
                        tracing::error!(%error, "a revert broke off");
                    }
                }
                Err(error) => replier.error(&error),
            }
        });
    }

    /// Goes on with the reverts that an earlier run left unfinished.
    pub(crate) fn resume_reverts(&mut self) {
        let (environment, reverts) = (Arc::clone(&self.environment), Arc::clone(&self.reverts));
        self.answer(async move {
            let for_it = Arc::clone(&environment);
            let Ok(left) = tokio::task::spawn_blocking(move || reverts.left(&for_it)).await else { return };
            let mut running = tokio::task::JoinSet::new();
            for revert in left {
                let environment = Arc::clone(&environment);
                running.spawn_blocking(move || revert.run(&environment));
            }
            while running.join_next().await.is_some() {}
        });
    }

    /// QueryRevertStatus.
    pub(super) fn revert_status(&mut self, peer: &Peer, question: QueryRevertStatus, replier: Replier) {
        let revert = match self.reverts.of(peer, &question.volume_id) {
            Ok(revert) => revert,
            Err(error) => return replier.error(&error),
        };
        let limit = Duration::from_millis(question.timeout_ms).min(LONGEST_WAIT);
        // Not counted as a job: it must not keep the service alive when its caller is gone.
        tokio::spawn(async move {
            let mut status = revert.watch();
            let moved = status
                .wait_for(|status| status.state != RevertState::Running || status.progress > question.seen_progress);
            // Either way the answer is where it stands now.
            drop(tokio::time::timeout(limit, moved).await);
            replier.ok(&revert.status());
        });
    }
}

/// A copy that the peer may see, with its provider.
fn find<'a>(
    environment: &'a Environment,
    peer: &Peer,
    shadow_id: ShadowId,
) -> Result<(SetEntry, KeptCopy, &'a Arc<dyn Provider>), VssError> {
    let (entry, copy) = removal::find(environment, shadow_id)?;
    rules::owner(peer, entry.set.owner, &format!("read the blocks of shadow copy {shadow_id}"))?;
    let provider = environment.providers.named(&copy.provider)?;
    Ok((entry, copy, provider))
}

fn no_blocks(provider: &str, what: &str) -> VssError {
    VssError::new(VssCode::NotSupported, format!("Provider {provider} {what}")).with_hint(
        "Make the copy with a provider of whole images, as `vss create --provider mirror`, or compare the files",
    )
}

fn changed(environment: &Environment, peer: &Peer, question: ChangedBlocks) -> Result<BlockList, VssError> {
    let (_, copy, provider) = find(environment, peer, question.shadow_id)?;
    let since = question.since_shadow_id.map(|since| find(environment, peer, since)).transpose()?;
    if let Some((_, since, _)) = &since {
        check_pair(since, &copy)?;
    }
    let blocks = provider.blocks().ok_or_else(|| no_blocks(&copy.provider, "does not know its copies as blocks"))?;
    let told = |error| by_contract(&copy.provider, error);
    let image = blocks.open(&copy.stored).map_err(told)?;
    let since: Option<&StoredCopy> = since.as_ref().map(|(_, since, _)| &since.stored);
    let (unknown, extents) = match blocks.changed(&copy.stored, since).map_err(told)? {
        Changes::Known(extents) => (None, extents),
        Changes::Unknown(why) => (Some(why), Vec::new()),
    };
    let (extents, next) = page(&extents, question.from);
    Ok(BlockList { volume_size: image.size, block_size: image.block, unknown, extents: extents.to_vec(), next })
}

/// What one answer has of a list from a place on, and where the next begins.
fn page(extents: &[Extent], from: u64) -> (&[Extent], Option<u64>) {
    let begin = extents.partition_point(|extent| extent.offset < from);
    let rest = &extents[begin..];
    (&rest[..rest.len().min(EXTENTS)], rest.get(EXTENTS).map(|extent| extent.offset))
}

/// Two copies of one volume by one provider.
fn check_pair(since: &KeptCopy, copy: &KeptCopy) -> Result<(), VssError> {
    let (earlier, later) = (&since.stored, &copy.stored);
    let wrong = |what: String| {
        Err(VssError::new(VssCode::InvalidArgument, what)
            .with_hint("`vss list shadows` shows volume and provider of each"))
    };
    if earlier.shadow_id == later.shadow_id {
        return wrong(format!("{} is one copy, and two are compared", later.shadow_id));
    }
    if earlier.volume.id != later.volume.id {
        let (one, other) = (earlier.volume.mount_point.display(), later.volume.mount_point.display());
        return wrong(format!("{} is a copy of {one}, and {} of {other}", earlier.shadow_id, later.shadow_id));
    }
    if since.provider != copy.provider {
        let (one, other) = (&since.provider, &copy.provider);
        return wrong(format!("{} was made by {one}, and {} by {other}", earlier.shadow_id, later.shadow_id));
    }
    Ok(())
}

fn open(environment: &Environment, peer: &Peer, shadow_id: ShadowId) -> Result<(ImageOpened, OwnedFd), VssError> {
    rules::root(peer, "open the image of a shadow copy, which holds every file of its volume")?;
    let (entry, copy, provider) = find(environment, peer, shadow_id)?;
    let blocks = provider.blocks().ok_or_else(|| no_blocks(&copy.provider, "has no image of its copies"))?;
    let image = blocks.open(&copy.stored).map_err(|error| by_contract(&copy.provider, error))?;
    let record = entry.set.shadows.iter().find(|shadow| shadow.id == shadow_id);
    let opened = ImageOpened {
        image: 0,
        offset: image.offset,
        volume_size: image.size,
        block_size: image.block,
        set_id: entry.set.set_id,
        volume_id: copy.stored.volume.id.clone(),
        fs_type: copy.stored.volume.fs_type.clone(),
        cut_at: record.map_or(entry.set.created_at, |shadow| shadow.cut_at),
    };
    Ok((opened, image.file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_comes_in_parts_that_make_it_up() {
        for count in [0, 1, EXTENTS, EXTENTS + 1, 3 * EXTENTS] {
            let whole: Vec<Extent> =
                (0..count as u64).map(|number| Extent { offset: number * 8192, length: 4096 }).collect();
            let (mut together, mut from) = (Vec::new(), Some(0));
            let mut parts = 0;
            while let Some(place) = from {
                let (part, next) = page(&whole, place);
                together.extend_from_slice(part);
                from = next;
                parts += 1;
            }
            assert_eq!(together, whole);
            assert_eq!(parts, count.div_ceil(EXTENTS).max(1));
        }
    }

    #[test]
    fn the_longest_answer_is_a_message() {
        let widest = Extent { offset: u64::MAX, length: u64::MAX };
        let list = BlockList {
            volume_size: u64::MAX,
            block_size: u64::MAX,
            unknown: None,
            extents: vec![widest; EXTENTS],
            next: Some(u64::MAX),
        };
        assert!(serde_json::to_vec(&list).unwrap().len() < vss_api::MESSAGE_BYTES / 2);
    }
}
