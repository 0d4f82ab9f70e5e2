//! vssd
fn main() {}
