//! vss-api
