//! Typed calls of `org.linuxvss.Management`.

use crate::{Instance, failure, launch};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use vss_api::Empty;
use vss_api::blocks::{
    BlockList, ChangedBlocks, ImageOpened, OpenImage, QueryRevertStatus, RevertStatus, RevertToSnapshot,
};
use vss_api::client::{Client, Follower};
use vss_api::documents::{DocumentEntry, DocumentList, DocumentText, GetDocument, ListDocuments};
use vss_api::management::{
    Call, Check, Deleted, EventList, GetSet, Limits, ListEvents, ProviderEntry, Providers, RegisteredWriter,
    RemoveStorage, Selection, SetForecast, SetLimits, SetRecord, Shadows, Status, StorageEntry, StorageList,
    VolumeEntry, Volumes, Writers,
};
use vss_model::time::milliseconds;
use vss_model::{
    Extent, SetId, ShadowCopy, ShadowCopySet, ShadowId, VolumeId, VssCode, VssError, WriterInstanceId, limits,
};

/// A connection for questions about the service and for what it keeps. It opens no session.
///
/// Every call may fail with what the service answers, and with `VSS_E_UNEXPECTED` when the connection is lost.
#[derive(Debug)]
pub struct Management {
    client: Client,
}

impl Management {
    /// Connects, starting the service when needed and allowed.
    ///
    /// # Errors
    /// Those of [`launch::connect`].
    pub fn connect(instance: &Instance) -> Result<Self, VssError> {
        Ok(Self { client: launch::connect(instance)? })
    }

    /// The longest time for an answer from now on; none: as long as it takes. Later ones fail.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` for a time of zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), VssError> {
        self.client.set_timeout(timeout).map_err(failure::of_call)
    }

    /// What the service is doing now.
    ///
    /// # Errors
    /// See the type.
    pub fn status(&mut self) -> Result<Status, VssError> {
        self.call(&Call::GetStatus)
    }

    /// The limits in force.
    ///
    /// # Errors
    /// See the type.
    pub fn limits(&mut self) -> Result<Limits, VssError> {
        self.call(&Call::GetLimits)
    }

    /// Changes limits until the service ends.
    ///
    /// # Errors
    /// `E_ACCESSDENIED` for others than root; `E_INVALIDARG` out of range.
    pub fn set_limits(&mut self, limits: SetLimits) -> Result<(), VssError> {
        self.call::<Empty>(&Call::SetLimits(limits)).map(drop)
    }

    /// The finished shadow copies, newest first.
    ///
    /// # Errors
    /// See the type.
    pub fn shadows(&mut self) -> Result<Vec<ShadowCopy>, VssError> {
        let reply: Shadows = self.call(&Call::ListShadows)?;
        Ok(reply.shadows)
    }

    /// The record of a set.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`.
    pub fn set(&mut self, set_id: SetId) -> Result<ShadowCopySet, VssError> {
        self.get_set(GetSet { set_id: Some(set_id), shadow_id: None })
    }

    /// The record of the set that a shadow copy belongs to.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`.
    pub fn set_of(&mut self, shadow_id: ShadowId) -> Result<ShadowCopySet, VssError> {
        self.get_set(GetSet { set_id: None, shadow_id: Some(shadow_id) })
    }

    fn get_set(&mut self, question: GetSet) -> Result<ShadowCopySet, VssError> {
        let reply: SetRecord = self.call(&Call::GetSet(question))?;
        Ok(reply.set)
    }

    /// The documents that are kept with a set, the Backup Components Document first.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`; `E_ACCESSDENIED` for a set of somebody else.
    pub fn documents(&mut self, set_id: SetId) -> Result<Vec<DocumentEntry>, VssError> {
        let reply: DocumentList = self.call(&Call::ListDocuments(ListDocuments { set_id }))?;
        Ok(reply.documents)
    }

    /// The text of one of them: the Writer Metadata Document of this writer, or the Backup Components Document.
    ///
    /// # Errors
    /// Those of [`Management::documents`], and why the document is not kept.
    pub fn document(&mut self, set_id: SetId, of: Option<WriterInstanceId>) -> Result<Vec<u8>, VssError> {
        let call = Call::GetDocument(GetDocument { set_id, instance_id: of });
        let (reply, fds) = self.client.call_management_with_fds::<DocumentText>(&call).map_err(failure::of_call)?;
        let file = match (reply.text, reply.file) {
            (Some(text), _) => return Ok(text.into_bytes()),
            (None, file) => file.and_then(|file| fds.into_iter().nth(file as usize)),
        };
        let file =
            file.ok_or_else(|| failure::unexpected_answer("The service sent neither text nor file descriptor"))?;
        let mut bytes = Vec::new();
        // No more than there can be, whatever we were given.
        let read = File::from(file).take(limits::DOCUMENTS_PER_SET as u64).read_to_end(&mut bytes);
        read.map_err(|error| {
            VssError::new(VssCode::Unexpected, format!("A document cannot be read: {error}"))
                .with_hint("Is the disk of the service's state directory whole? Look into dmesg")
        })?;
        Ok(bytes)
    }

    /// The registered writers.
    ///
    /// # Errors
    /// See the type.
    pub fn writers(&mut self) -> Result<Vec<RegisteredWriter>, VssError> {
        let reply: Writers = self.call(&Call::ListWriters)?;
        Ok(reply.writers)
    }

    /// The providers, in the order of choice.
    ///
    /// # Errors
    /// See the type.
    pub fn providers(&mut self) -> Result<Vec<ProviderEntry>, VssError> {
        let reply: Providers = self.call(&Call::ListProviders)?;
        Ok(reply.providers)
    }

    /// The volumes that could be members of a set.
    ///
    /// # Errors
    /// See the type.
    pub fn volumes(&mut self) -> Result<Vec<VolumeEntry>, VssError> {
        let reply: Volumes = self.call(&Call::ListVolumes)?;
        Ok(reply.volumes)
    }

    /// What a set would be, if it were made now; changes nothing. May take as long as the slowest writer takes to say what it
    /// owns, at most 30 s.
    ///
    /// # Errors
    /// `E_INVALIDARG` for a question that is out of bounds; `E_OUTOFMEMORY` when too many checks are running.
    pub fn check(&mut self, question: Check) -> Result<SetForecast, VssError> {
        self.call(&Call::Check(question))
    }

    /// What has happened since the service started, as far as it is remembered and the caller's to see; only what came after
    /// this event, if one is named.
    ///
    /// # Errors
    /// See the type.
    pub fn events(&mut self, after: Option<u64>) -> Result<EventList, VssError> {
        self.call(&Call::ListEvents(ListEvents { after }))
    }

    /// Follows the events from now on, or from this one on. While it does, the service does not end for want of requesters.
    /// The first list comes at once and may be empty; nothing is missed from there on.
    ///
    /// # Errors
    /// See the type; whether there is room for one more follower is told by the first list.
    pub fn follow(self, after: Option<u64>) -> Result<Following, VssError> {
        let follower = self.client.follow(&Call::ListEvents(ListEvents { after })).map_err(failure::of_call)?;
        Ok(Following(follower))
    }

    /// What providers keep for copies to come.
    ///
    /// # Errors
    /// `VSS_E_PROVIDER_VETO` when a provider cannot tell.
    pub fn storage(&mut self) -> Result<Vec<StorageEntry>, VssError> {
        let reply: StorageList = self.call(&Call::ListStorage)?;
        Ok(reply.storage)
    }

    /// Removes what is kept for the chosen volumes and returns what is gone; stops at the first that cannot be removed.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`; `E_ACCESSDENIED` for others than root; `VSS_E_PROVIDER_VETO` when a copy needs it.
    pub fn remove_storage(&mut self, wanted: RemoveStorage) -> Result<Vec<StorageEntry>, VssError> {
        let reply: StorageList = self.call(&Call::RemoveStorage(wanted))?;
        Ok(reply.storage)
    }

    /// Deletes what `selection` names and returns what is gone; stops at the first that cannot be deleted.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`; `E_ACCESSDENIED` for a copy of somebody else; what its provider says.
    pub fn delete(&mut self, selection: Selection) -> Result<Vec<ShadowId>, VssError> {
        let reply: Deleted = self.call(&Call::DeleteShadows(selection))?;
        Ok(reply.shadow_ids)
    }

    /// Deletes every shadow copy of a set; one that is gone already is no error.
    ///
    /// # Errors
    /// `E_ACCESSDENIED`; what a provider says.
    pub fn delete_set(&mut self, set_id: SetId) -> Result<(), VssError> {
        match self.delete(Selection { set_id: Some(set_id), ..Selection::default() }) {
            Err(error) if error.code != VssCode::ObjectNotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Which blocks were written between two copies of a volume, or are in use in one; all of the list, asked for in parts.
    /// The list is empty when [`Blocks::unknown`] says why it is not known.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND`; `E_INVALIDARG` for copies that do not belong together; `VSS_E_NOT_SUPPORTED`; what the
    /// provider says.
    pub fn changed_blocks(&mut self, shadow_id: ShadowId, since: Option<ShadowId>) -> Result<Blocks, VssError> {
        let mut blocks = Blocks { volume_size: 0, block_size: 0, unknown: None, extents: Vec::new() };
        let mut from = Some(0);
        while let Some(place) = from {
            let question = ChangedBlocks { shadow_id, since_shadow_id: since, from: place };
            let part: BlockList = self.call(&Call::ChangedBlocks(question))?;
            (blocks.volume_size, blocks.block_size) = (part.volume_size, part.block_size);
            blocks.unknown = part.unknown;
            blocks.extents.extend(part.extents);
            // A service that does not get on would keep us for ever.
            from = part.next.filter(|next| *next > place);
        }
        Ok(blocks)
    }

    /// The image of a copy, open for reading, and what it is of.
    ///
    /// # Errors
    /// `E_ACCESSDENIED` for others than root; `VSS_E_OBJECT_NOT_FOUND`; `VSS_E_NOT_SUPPORTED`; what the provider says.
    pub fn open_image(&mut self, shadow_id: ShadowId) -> Result<(ImageOpened, File), VssError> {
        let call = Call::OpenImage(OpenImage { shadow_id });
        let (opened, fds) = self.client.call_management_with_fds::<ImageOpened>(&call).map_err(failure::of_call)?;
        let image = fds
            .into_iter()
            .nth(opened.image as usize)
            .ok_or_else(|| failure::unexpected_answer("The service sent no file descriptor with the image"))?;
        Ok((opened, File::from(image)))
    }

    /// Begins to put a volume back to a copy; [`Management::revert_status`] tells how far it is.
    ///
    /// # Errors
    /// What stands in the way, with its code (`RevertToSnapshot` in the interface).
    pub fn revert(&mut self, shadow_id: ShadowId) -> Result<RevertStatus, VssError> {
        self.call(&Call::RevertToSnapshot(RevertToSnapshot { shadow_id, give_up: false }))
    }

    /// Forgets an unfinished revert to a copy; the volume stays as it is, neither the one nor the other.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when there is none.
    pub fn give_up_revert(&mut self, shadow_id: ShadowId) -> Result<RevertStatus, VssError> {
        self.call(&Call::RevertToSnapshot(RevertToSnapshot { shadow_id, give_up: true }))
    }

    /// Where the revert of a volume stands, once it has come further than `seen_progress`, has ended, or `timeout` is over.
    ///
    /// # Errors
    /// `VSS_E_OBJECT_NOT_FOUND` when there is none.
    pub fn revert_status(
        &mut self,
        volume_id: VolumeId,
        seen_progress: u64,
        timeout: Duration,
    ) -> Result<RevertStatus, VssError> {
        let timeout_ms = milliseconds(timeout);
        self.call(&Call::QueryRevertStatus(QueryRevertStatus { volume_id, seen_progress, timeout_ms }))
    }

    fn call<Reply: DeserializeOwned>(&mut self, call: &Call) -> Result<Reply, VssError> {
        self.client.call_management(call).map_err(failure::of_call)
    }
}

/// A whole list of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of the volume.
    pub volume_size: u64,
    /// Bytes of one block.
    pub block_size: u64,
    /// Why it is not known; none when it is.
    pub unknown: Option<String>,
    /// Ascending and apart.
    pub extents: Vec<Extent>,
}

/// Lists of events as they happen, one with the last event of the service being the end. An error is the last item.
#[derive(Debug)]
pub struct Following(Follower<EventList>);

impl Following {
    /// Longest wait for one list; none, as at the beginning: for ever.
    ///
    /// # Errors
    /// `VSS_E_UNEXPECTED` for zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), VssError> {
        self.0.set_timeout(timeout).map_err(failure::of_call)
    }
}

impl Iterator for Following {
    type Item = Result<EventList, VssError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|list| list.map_err(failure::of_call))
    }
}

impl AsFd for Following {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
