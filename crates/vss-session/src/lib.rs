//! vss-session
