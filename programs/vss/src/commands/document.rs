//! `vss document`: what a document says, and whether it is one. Asks no service.

use super::Failure;
use crate::args::{DocumentArguments, DocumentCheckArguments, DocumentCommand, DocumentShowArguments};
use crate::document_text;
use crate::exit::{report, system_error};
use crate::json::{DocumentCheck, DocumentShown};
use crate::output;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use vss_documents::{AnyDocument, DocumentError, limits};
use vss_model::VssError;

pub(super) fn document(arguments: &DocumentArguments) -> Result<(), Failure> {
    match &arguments.command {
        DocumentCommand::Check(arguments) => check(arguments),
        DocumentCommand::Show(arguments) => show(arguments),
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

fn show(arguments: &DocumentShowArguments) -> Result<(), Failure> {
    let document = AnyDocument::parse(&read(&arguments.file)?).map_err(|error| named(&arguments.file, error))?;
    if arguments.json {
        output::json(&DocumentShown::from(&document))?;
    } else {
        document_text::print(&document, arguments.files)?;
    }
    Ok(())
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
    read().map_err(|error| system_error(format!("Cannot read {}", file.display()), &error))
}
