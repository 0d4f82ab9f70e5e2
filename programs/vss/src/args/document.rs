//! What is typed about documents.

use super::shadow::{Id, id};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = DOCUMENT_HELP)]
pub(crate) struct DocumentArguments {
    #[command(subcommand)]
    pub(crate) command: DocumentCommand,
}

const DOCUMENT_HELP: &str = "\
Reads Writer Metadata Documents, Backup Components Documents and the
Manifest.xml of a cabinet, made here or by Windows, in UTF-8 and UTF-16; and those
that are kept with every shadow copy set, for which alone the service is asked.

Examples:
  vss document check BCDocument.xml
  vss document show WM0.xml --files
  vss document list b5946137-7b9f-4925-af80-51abd60b20d5";

#[derive(Debug, Subcommand)]
pub(crate) enum DocumentCommand {
    /// Tell whether a document is valid, or where it is not
    #[command(after_help = DOCUMENT_CHECK_HELP)]
    Check(DocumentCheckArguments),
    /// Show what a document says
    #[command(after_help = DOCUMENT_SHOW_HELP)]
    Show(DocumentShowArguments),
    /// List the documents that are kept with a set
    #[command(after_help = DOCUMENT_LIST_HELP)]
    List(DocumentListArguments),
}

#[derive(Debug, Args)]
pub(crate) struct DocumentListArguments {
    /// A shadow copy set, or a shadow copy of it
    #[arg(value_name = "ID", value_parser = id)]
    pub(crate) set: Id,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const DOCUMENT_LIST_HELP: &str = "\
Of each set there is a Backup Components Document, and a Writer Metadata Document
of each writer of its session; a set of an earlier release has none. They are
deleted with the set.

--json prints an object with set_id and documents: [kind, writer, class_id,
instance_id, bytes, failure], where failure says why one is not kept.

Example:
  vss document list b5946137-7b9f-4925-af80-51abd60b20d5 --json";

#[derive(Debug, Args)]
pub(crate) struct DocumentCheckArguments {
    /// The document
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const DOCUMENT_CHECK_HELP: &str = "\
Words, attributes and elements that are not known here are told and are no fault:
they are kept when the document is changed.

--json prints an object with these keys:
  file      the name
  valid     true or false
  kind      writer_metadata, backup_components, manifest; null when not valid
  encoding  UTF-8, UTF-16LE or UTF-16BE; null when not valid
  error     null, or [code, line, column, message]
  remarks   [line, column, message] of what is not known, at most 100
  remarks_left_out   how many more there are

Example:
  vss document check WM3.xml --json

Exit status: 0 valid, 1 not valid or not there, 2 wrong usage.";

#[derive(Debug, Args)]
pub(crate) struct DocumentShowArguments {
    /// The document
    #[arg(value_name = "FILE", required_unless_present = "set", conflicts_with = "set")]
    pub(crate) file: Option<PathBuf>,
    /// The Backup Components Document that is kept with this set, or with the set of this copy
    #[arg(long, value_name = "ID", value_parser = id)]
    pub(crate) set: Option<Id>,
    /// Of the set, the Writer Metadata Document of this writer, by its name or instance id
    #[arg(long, value_name = "WRITER", requires = "set", conflicts_with = "file")]
    pub(crate) writer: Option<String>,
    /// Print the document as it is
    #[arg(long, conflicts_with_all = ["files", "json"])]
    pub(crate) xml: bool,
    /// Show every file set, however many there are
    #[arg(long)]
    pub(crate) files: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const DOCUMENT_SHOW_HELP: &str = "\
--json prints an object with kind and, by kind,
  metadata  what GetWriterMetadata of org.linuxvss.Requester says of a writer
  session   state, restore_type, set_id, writers: [class_id, instance_id, name,
            backup_schema, components]
  manifest  set_id, machine, shadows, backup_components, aliases, writers
Keys whose value is the default are left out of metadata and session.

Examples:
  vss document show BCDocument.xml
  vss document show WM3.xml --json
  vss document show --set b5946137-7b9f-4925-af80-51abd60b20d5 --writer postgresql
  vss document show --set b5946137-7b9f-4925-af80-51abd60b20d5 --xml > bc.xml";
