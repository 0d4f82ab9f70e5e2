//! Real servers for tests, the demo and the benchmarks: made, loaded, copied, restored and judged. And what the tests of
//! providers share.
//!
//! `postgresql` knows nothing of shadow copies: what a copy is worth is judged by the same rules however it was made.

mod account;
pub mod postgresql;
mod process;
pub mod providers;
