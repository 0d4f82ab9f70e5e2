//! vss-writers
fn main() {}
