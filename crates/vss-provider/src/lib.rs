//! The provider contract: what the service asks of the mechanism that makes copies.
//!
//! Here live the trait with VSS's phases ([`Provider`]), a fake ([`fake::FakeProvider`]), a provider for tests that copies
//! byte by byte ([`block_copy::BlockCopyProvider`]) and the conformance suite that every provider runs ([`conformance`]). Real providers are crates of their own under `providers/`.
//!
//! What only some can do stands beside it: keep something for later copies ([`storage`]), tell which blocks changed
//! ([`blocks`]), put a volume back ([`revert`]). Slow work tells how far it is ([`progress`]).
//!
//! What several of them have in common lives here too, so that they look alike: the one set in creation ([`current`]), the
//! stage that it has reached ([`stage`]), the directory of copies ([`store`]), the file system that it lies on ([`outer`]),
//! copies that are images ([`image_copy`]), the space guard ([`space`]) and the kernel's errors in the words of the contract
//! ([`failure`]).
//!
//! Everything that crosses the trait is plain serialisable data or a file descriptor, so that a provider in another
//! process can be served by the same calls.

pub mod block_copy;
pub mod blocks;
pub mod conformance;
pub mod contract;
pub mod current;
pub mod failure;
pub mod fake;
pub mod image_copy;
pub mod outer;
pub mod progress;
pub mod revert;
pub mod space;
pub mod stage;
pub mod storage;
pub mod store;

pub use contract::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
};
pub use vss_model::{CopyForecast, PlaceForecast};
