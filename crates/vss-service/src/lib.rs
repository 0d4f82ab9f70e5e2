//! vss-service
