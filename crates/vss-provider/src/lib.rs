//! The provider contract: what the service asks of the mechanism that makes copies.
//!
//! Here live the trait with VSS's phases ([`Provider`]), a fake ([`fake::FakeProvider`]) and the conformance suite that
//! every provider runs ([`conformance`]). Real providers are crates of their own under `providers/`.
//!
//! Everything that crosses the trait is plain serialisable data or a file descriptor, so that a provider in another
//! process can be served by the same calls.

pub mod conformance;
pub mod contract;
pub mod fake;
pub mod stage;

pub use contract::{
    Capabilities, CommittedCopy, CopyKind, Deletion, Forecast, MountedTree, PrepareRequest, Presence, Provider,
    ProviderProperties, ProviderType, StoredCopy, Support,
};
