//! vss
fn main() {}
