//! vss-provider
