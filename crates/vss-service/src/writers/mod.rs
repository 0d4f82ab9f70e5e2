//! Writers: who is registered ([`registry`]), how one is called ([`port`]) and what those of a session are told
//! ([`session`]).

pub mod port;
pub mod registry;
pub mod session;

pub use port::{PortError, WriterPort};
pub use registry::{RegisteredWriter, Registry};
pub use session::{EventFacts, SessionWriter, SessionWriters};
