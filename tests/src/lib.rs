//! What the tests of the whole house share: file systems of their own, programs under test, loads, clusters.

pub mod backups;
pub mod blocks;
pub mod chain;
pub mod forecast;
pub mod gate;
pub mod guard;
pub mod image;
pub mod instance;
pub mod kills;
pub mod load;
pub mod loopfs;
pub mod mirror;
pub mod postgresql;
pub mod programs;
pub mod scale;
pub mod simulated;
pub mod stalling;
pub mod systemd;
pub mod traces;
pub mod tracing;
pub mod trees;
pub mod turn;
pub mod varlink;
pub mod volume;
pub mod wire;
pub mod writers;
