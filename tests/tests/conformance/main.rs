//! The contract, row by row, over the wire against a real vssd: `cargo xtask conformance` prints the table. A module is a section
//! of the specification (`r_` requesters and writers, `p_` providers and tools), a test is a row of it and is named so.
//!
//! A row that cannot be shown here prints `SKIPPED: NAME: WHY`; the only reasons are "restore" and "Windows only".

mod p_3_contexts;
mod p_4_objects;
mod r_10_creation;
mod r_10_errors;
mod r_10_volumes;
mod r_10_writers;
mod r_1_2_asynchronous;
mod r_1_8_order;
mod r_2_writers;
mod r_3_components;
mod r_4_backup_types;
mod r_5_documents;
mod scene;

/// A row that is shown by something that is not there yet or not on this system.
#[macro_export]
macro_rules! skip {
    ($($row:ident: $why:literal;)*) => {$(
        #[test]
        fn $row() {
            println!("SKIPPED: {}::{}: {}", module_path!().trim_start_matches("conformance::"), stringify!($row), $why);
        }
    )*};
}

/// Rows that need root and btrfs.
#[macro_export]
macro_rules! rows {
    ($($(#[doc = $text:literal])+ $row:ident => $body:expr;)*) => {$(
        #[test]
        $(#[doc = $text])+
        fn $row() -> anyhow::Result<()> {
            if vss_tests::loopfs::LoopFs::skips(stringify!($row), &[vss_tests::loopfs::Kind::Btrfs]) {
                return Ok(());
            }
            let body: fn($crate::scene::Scene) -> anyhow::Result<()> = $body;
            body($crate::scene::Scene::new()?)
        }
    )*};
}
