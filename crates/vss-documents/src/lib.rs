//! The documents of VSS as XML in Windows' schema (spec R 5): read, written, and written again without losing what this
//! release does not know.
//!
//! A document is kept as it was read ([`Document`]): what nobody changes is written byte by byte as it was, and a change of
//! what is known leaves unknown attributes and elements where they stand. [`WriterMetadataDocument`] and
//! [`BackupComponentsDocument`] turn it into the types of `vss-model` and back; [`Manifest`] reads what stands beside them
//! in a cabinet of diskshadow. What is no document is refused with line and column ([`DocumentError`]), within [`limits`].
//!
//! Two documents are equal ([`difference`]) when they say the same: elements and attributes by namespace and name,
//! attributes in any order, text and values by what they stand for, white space between elements, comments, processing
//! instructions, prefixes and the way of quoting left out.

mod backup_components;
mod characters;
mod encoding;
mod equality;
mod error;
mod fields;
mod kind;
pub mod limits;
mod manifest;
mod merge;
mod parse;
mod schema;
mod tree;
mod words;
mod writer_metadata;

pub use backup_components::BackupComponentsDocument;
pub use encoding::Encoding;
pub use equality::difference;
pub use error::{DocumentError, Fault, Position, Remark};
pub use kind::AnyDocument;
pub use manifest::{Manifest, ManifestAlias, ManifestShadow, ManifestWriter};
pub use schema::TypedDocument;
pub use tree::Document;
pub use writer_metadata::WriterMetadataDocument;
