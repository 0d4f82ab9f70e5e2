//! vss-writer
