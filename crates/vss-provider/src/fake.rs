//! fake
/// Fake.
pub struct FakeProvider;
