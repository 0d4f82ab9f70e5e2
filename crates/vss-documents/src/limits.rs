//! What a document may have. The largest that Windows is known to write, that of the System Writer, has 2 MiB, 18,925 file
//! sets and a depth of 4; these are ours, far above it.
//!
//! They bound the memory too: besides the bytes themselves (twice, for UTF-16) a document costs at most about 100 bytes for
//! each of [`NODES`] and 32 for each of [`ATTRIBUTES`], and a document is never expanded, since nothing in it can stand for
//! more than itself.

/// Bytes of a document, in whatever encoding.
pub const DOCUMENT_BYTES: usize = 32 << 20;
/// Elements within elements.
pub const DEPTH: usize = 32;
/// Elements, comments, processing instructions and pieces of text.
pub const NODES: usize = 500_000;
/// Attributes of one element.
pub const ATTRIBUTES_PER_ELEMENT: usize = 64;
/// Attributes of the whole document.
pub const ATTRIBUTES: usize = 1_000_000;
/// Declarations of namespaces that are in force at one place.
pub const PREFIXES: usize = 64;
/// Bytes of the name of an element or attribute.
pub const NAME_BYTES: usize = 256;
/// Remarks that are kept of one document; what is beyond is counted.
pub const REMARKS: usize = 100;
