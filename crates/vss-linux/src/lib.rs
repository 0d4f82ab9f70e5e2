//! vss-linux
