//! Class ids of writers that name none: made from their name.

use vss_model::WriterClassId;

/// The class id of the writer with this name.
#[must_use]
pub fn class_id(name: &str) -> WriterClassId {
    WriterClassId::of_name("vss-writer-script", name)
}
