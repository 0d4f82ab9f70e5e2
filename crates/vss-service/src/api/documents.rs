//! `org.linuxvss.Management` about the documents that are kept with a set.

use crate::catalogue::SetEntry;
use crate::coordinator::Coordinator;
use crate::documents::{self, Documents, KeptDocument};
use crate::environment::Environment;
use crate::{blocking, rules};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use vss_api::documents::{
    DocumentEntry, DocumentKind, DocumentList, DocumentText, GetDocument, ListDocuments, TEXT_BYTES,
};
use vss_api::server::{Peer, Replier};
use vss_model::{BackupComponents, SetId, VssCode, VssError, WriterInstanceId, limits};

impl Coordinator {
    /// ListDocuments.
    pub(super) fn list_documents(&mut self, peer: &Peer, question: ListDocuments, replier: Replier) {
        let (turn, entry, said) = match self.documents_of(peer, question.set_id) {
            Ok(found) => found,
            Err(error) => return replier.error(&error),
        };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || {
                let _turn = turn;
                list(environment.catalogue.documents(), entry, said.as_ref())
            };
            replier.result(blocking::run("Listing documents", limits::PROVIDER_IN_WINDOW, work).await);
        });
    }

    /// GetDocument.
    pub(super) fn get_document(&mut self, peer: &Peer, question: GetDocument, replier: Replier) {
        let (turn, entry, said) = match self.documents_of(peer, question.set_id) {
            Ok(found) => found,
            Err(error) => return replier.error(&error),
        };
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || {
                let _turn = turn;
                get(environment.catalogue.documents(), entry, question.instance_id, said.as_ref())
            };
            match blocking::run("Reading a document", limits::PROVIDER_IN_WINDOW, work).await {
                Ok((text, file)) => replier.ok_with_fds(&text, file.into_iter().collect()),
                Err(error) => replier.error(&error),
            }
        });
    }

    /// A turn, a set that the peer may see, and what the session that made it says of its components by now: none when that has
    /// ended, has no writers, or a job has them.
    fn documents_of(
        &self,
        peer: &Peer,
        set_id: SetId,
    ) -> Result<(OwnedSemaphorePermit, SetEntry, Option<BackupComponents>), VssError> {
        let entry = find(&self.environment, peer, set_id)?;
        let turn = blocking::turn(&self.document_questions, limits::DOCUMENT_QUESTIONS, "documents")?;
        let sessions = self.connections.values().filter_map(|connection| connection.session.as_ref());
        let mut making =
            sessions.filter(|session| session.state.draft().and_then(vss_session::Draft::made_set) == Some(set_id));
        let writers = making.next().and_then(|session| session.writers.as_ref());
        // What broke off has lost them: what is kept says more.
        let writers = writers.filter(|writers| writers.iter().next().is_some());
        let said = writers.map(|writers| documents::backup_components(set_id, entry.set.backup_state, writers));
        Ok((turn, entry, said))
    }
}

/// A set that the peer may see.
fn find(environment: &Environment, peer: &Peer, set_id: SetId) -> Result<SetEntry, VssError> {
    let entry = environment.catalogue.set(set_id).ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, format!("There is no shadow copy set {set_id}"))
            .with_hint("`vss list shadows` shows what there is")
    })?;
    rules::owner(peer, entry.set.owner, "see the documents of this shadow copy set")?;
    Ok(entry)
}

fn list(documents: &Documents, entry: SetEntry, said: Option<&BackupComponents>) -> Result<DocumentList, VssError> {
    let set_id = entry.set.set_id;
    let of = |kept: KeptDocument| {
        let instance_id = kept.writer.as_ref().map(|writer| writer.instance_id);
        let bytes = match (said, instance_id) {
            _ if kept.failure.is_some() => 0,
            (Some(said), None) => documents::backup_components_bytes(said)?.len() as u64,
            _ => documents.bytes(set_id, instance_id)?,
        };
        Ok(DocumentEntry {
            kind: if kept.writer.is_some() { DocumentKind::WriterMetadata } else { DocumentKind::BackupComponents },
            class_id: kept.writer.as_ref().map(|writer| writer.class_id),
            writer: kept.writer.map(|writer| writer.name),
            instance_id,
            bytes,
            failure: kept.failure,
        })
    };
    let listed: Result<_, VssError> = entry.documents.into_iter().map(of).collect();
    Ok(DocumentList { documents: listed? })
}

fn get(
    documents: &Documents,
    entry: SetEntry,
    instance_id: Option<WriterInstanceId>,
    said: Option<&BackupComponents>,
) -> Result<(DocumentText, Option<OwnedFd>), VssError> {
    let set_id = entry.set.set_id;
    let is_it = |kept: &KeptDocument| kept.writer.as_ref().map(|writer| writer.instance_id) == instance_id;
    let kept = entry.documents.into_iter().find(is_it).ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, format!("Shadow copy set {set_id} has no such document"))
            .with_hint("ListDocuments tells which it has; a set that an earlier release made has none")
    })?;
    if let Some(failure) = kept.failure {
        return Err(failure);
    }
    let unreadable = |error: io::Error| {
        VssError::new(VssCode::Unexpected, format!("A document of set {set_id} cannot be read: {error}"))
    };
    let (text, length, file) = match (said, instance_id) {
        (Some(said), None) => {
            let text = documents::backup_components_bytes(said)?;
            let length = text.len() as u64;
            let file = (length > TEXT_BYTES).then(|| sealed(&text)).transpose().map_err(unreadable)?;
            (text, length, file)
        }
        _ => {
            let (mut file, length) = documents.open(set_id, instance_id)?;
            let mut text = Vec::new();
            if length <= TEXT_BYTES {
                file.read_to_end(&mut text).map_err(unreadable)?;
            }
            (text, length, (length > TEXT_BYTES).then(|| file.into()))
        }
    };
    if file.is_some() {
        return Ok((DocumentText { bytes: length, text: None, file: Some(0) }, file));
    }
    let text = String::from_utf8(text).map_err(|error| unreadable(io::Error::other(error)))?;
    Ok((DocumentText { bytes: length, text: Some(text), file: None }, None))
}

/// A file in memory that nobody can change any more (design 2.4).
fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
    let file = File::from(memfd_create("vss-document", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    // Not by its position, which is the reader's too.
    file.write_all_at(text, 0)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_from_the_beginning_and_not_changed() {
        let mut file = File::from(sealed(b"<a/>").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "<a/>");
        assert!(file.write_all_at(b"x", 0).is_err() && file.set_len(1).is_err());
    }
}
