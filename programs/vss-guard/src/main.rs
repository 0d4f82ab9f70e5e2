//! vss-guard
fn main() {}
