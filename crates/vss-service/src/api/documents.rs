//! `org.linuxvss.Management` about the documents that are kept with a set.

use crate::catalogue::SetEntry;
use crate::coordinator::Coordinator;
use crate::documents::KeptDocument;
use crate::environment::Environment;
use crate::{blocking, rules};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vss_api::documents::{
    DocumentEntry, DocumentKind, DocumentList, DocumentText, GetDocument, ListDocuments, TEXT_BYTES,
};
use vss_api::server::{Peer, Replier};
use vss_model::{SetId, VssCode, VssError, limits};

impl Coordinator {
    /// ListDocuments.
    pub(super) fn list_documents(&mut self, peer: Peer, question: ListDocuments, replier: Replier) {
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || list(&environment, &peer, question.set_id);
            replier.result(blocking::run("Listing documents", limits::PROVIDER_IN_WINDOW, work).await);
        });
    }

    /// GetDocument.
    pub(super) fn get_document(&mut self, peer: Peer, question: GetDocument, replier: Replier) {
        let environment = Arc::clone(&self.environment);
        self.answer(async move {
            let work = move || get(&environment, &peer, question);
            match blocking::run("Reading a document", limits::PROVIDER_IN_WINDOW, work).await {
                Ok((text, file)) => replier.ok_with_fds(&text, file.into_iter().collect()),
                Err(error) => replier.error(&error),
            }
        });
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

fn list(environment: &Environment, peer: &Peer, set_id: SetId) -> Result<DocumentList, VssError> {
    let of = |kept: KeptDocument| {
        let instance_id = kept.writer.as_ref().map(|writer| writer.instance_id);
        let bytes =
            if kept.failure.is_some() { Ok(0) } else { environment.catalogue.documents().bytes(set_id, instance_id) };
        Ok(DocumentEntry {
            kind: if kept.writer.is_some() { DocumentKind::WriterMetadata } else { DocumentKind::BackupComponents },
            class_id: kept.writer.as_ref().map(|writer| writer.class_id),
            writer: kept.writer.map(|writer| writer.name),
            instance_id,
            bytes: bytes?,
            failure: kept.failure,
        })
    };
    let documents: Result<_, VssError> = find(environment, peer, set_id)?.documents.into_iter().map(of).collect();
    Ok(DocumentList { documents: documents? })
}

fn get(
    environment: &Environment,
    peer: &Peer,
    question: GetDocument,
) -> Result<(DocumentText, Option<OwnedFd>), VssError> {
    let GetDocument { set_id, instance_id } = question;
    let entry = find(environment, peer, set_id)?;
    let is_it = |kept: &KeptDocument| kept.writer.as_ref().map(|writer| writer.instance_id) == instance_id;
    let kept = entry.documents.into_iter().find(is_it).ok_or_else(|| {
        VssError::new(VssCode::ObjectNotFound, format!("Shadow copy set {set_id} has no such document"))
            .with_hint("ListDocuments tells which it has; a set that an earlier release made has none")
    })?;
    if let Some(failure) = kept.failure {
        return Err(failure);
    }
    let (mut file, bytes) = environment.catalogue.documents().open(set_id, instance_id)?;
    if bytes > TEXT_BYTES {
        return Ok((DocumentText { bytes, text: None, file: Some(0) }, Some(file.into())));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| {
        VssError::new(VssCode::Unexpected, format!("A document of set {set_id} cannot be read: {error}"))
    })?;
    Ok((DocumentText { bytes, text: Some(text), file: None }, None))
}
