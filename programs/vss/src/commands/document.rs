//! `vss document`: what a document says, and whether it is one; of a file, or of a set that the service keeps.

use super::{Failure, show};
use crate::args::{
    DocumentArguments, DocumentCheckArguments, DocumentCommand, DocumentListArguments, DocumentShowArguments,
};
use crate::document_text;
use crate::exit::{report, unreadable_file};
use crate::json::{DocumentCheck, DocumentShown, DocumentsListed};
use crate::output;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use vss_api::documents::{DocumentEntry, DocumentKind};
use vss_documents::{AnyDocument, DocumentError, limits};
use vss_model::{Bytes, SetId, VssCode, VssError, WriterInstanceId};
use vss_requester::{Instance, Management};

pub(super) fn document(instance: &Instance, arguments: &DocumentArguments) -> Result<(), Failure> {
    match &arguments.command {
        DocumentCommand::Check(arguments) => check(arguments),
        DocumentCommand::Show(arguments) => show(instance, arguments),
        DocumentCommand::List(arguments) => list(instance, arguments),
    }
}

fn check(arguments: &DocumentCheckArguments) -> Result<(), Failure> {
    let read = AnyDocument::parse(&read(&arguments.file)?);
    if arguments.json {
        output::json(&DocumentCheck::of(&arguments.file, &read))?;
    }
    match read {
        Ok(document) if arguments.json => drop(document),
        Ok(document) => document_text::print_check(&arguments.file, &document)?,
        Err(error) => {
            if !arguments.json {
                report(&named(&arguments.file, error));
            }
            return Err(Failure::No);
        }
    }
    Ok(())
}

fn show(instance: &Instance, arguments: &DocumentShowArguments) -> Result<(), Failure> {
    let (bytes, name) = match (&arguments.file, arguments.set) {
        (Some(file), _) => (read(file)?, file.display().to_string()),
        (None, Some(id)) => {
            let mut management = Management::connect(instance)?;
            let set_id = show::find(&mut management, id)?.0.set_id;
            let writer = arguments.writer.as_ref().map(|writer| chosen(&management.documents(set_id)?, writer));
            (management.document(set_id, writer.transpose()?)?, format!("A document of set {set_id}"))
        }
        (None, None) => {
            return Err(VssError::new(VssCode::InvalidArgument, "Neither FILE nor --set names a document")
                .with_hint("Name a file, or a set that `vss list shadows` shows: --set ID")
                .into());
        }
    };
    if arguments.xml {
        return Ok(output::bytes(&bytes)?);
    }
    let document = AnyDocument::parse(&bytes).map_err(|error| VssError::from(error).while_doing(name))?;
    if arguments.json {
        output::json(&DocumentShown::from(&document))?;
    } else {
        document_text::print(&document, arguments.files)?;
    }
    Ok(())
}

/// The running writer of that name, or with that instance id.
fn chosen(documents: &[DocumentEntry], writer: &str) -> Result<WriterInstanceId, VssError> {
    let is_it = |one: &&DocumentEntry| {
        one.writer.as_deref() == Some(writer) || one.instance_id.is_some_and(|id| id.to_string() == writer)
    };
    let found: Vec<_> = documents.iter().filter(is_it).filter_map(|one| one.instance_id).collect();
    match found[..] {
        [instance_id] => Ok(instance_id),
        [] => Err(VssError::new(VssCode::ObjectNotFound, format!("The set has no document of a writer {writer}"))
            .with_hint("`vss document list ID` shows those that it has")),
        _ => Err(VssError::new(VssCode::InvalidArgument, format!("The set has {} writers {writer}", found.len()))
            .with_hint("Name one by the instance id that `vss document list ID` shows")),
    }
}

const LIST: &[&str] = &["DOCUMENT", "WRITER", "INSTANCE", "SIZE"];

fn list(instance: &Instance, arguments: &DocumentListArguments) -> Result<(), Failure> {
    let mut management = Management::connect(instance)?;
    let set_id: SetId = show::find(&mut management, arguments.set)?.0.set_id;
    let documents = management.documents(set_id)?;
    if arguments.json {
        return Ok(output::json(&DocumentsListed { set_id, documents: &documents })?);
    }
    let row = |one: &DocumentEntry| {
        let kind = match one.kind {
            DocumentKind::BackupComponents => "backup components",
            DocumentKind::WriterMetadata => "writer metadata",
        };
        let instance_id = one.instance_id.map(|id| id.to_string());
        let size = match &one.failure {
            None => Bytes(one.bytes).to_string(),
            Some(failure) => format!("not kept: {failure}"),
        };
        vec![kind.to_owned(), one.writer.clone().unwrap_or_default(), instance_id.unwrap_or_default(), size]
    };
    Ok(output::table(LIST, &documents.iter().map(row).collect::<Vec<_>>())?)
}

fn named(file: &Path, error: DocumentError) -> VssError {
    VssError::from(error).while_doing(file.display())
}

/// The bytes of the file: no more than a document may have and one, whatever the file is.
fn read(file: &Path) -> Result<Vec<u8>, VssError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?.take(limits::DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| unreadable_file(file, &error))
}
