//! vss-model
