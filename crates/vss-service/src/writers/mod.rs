//! Writers: who is registered ([`registry`]), how one is called ([`port`]), what each owns ([`identify`](mod@identify)), what
//! those of a session are told ([`session`]) and what their answers mean ([`session_writer`]).

pub mod excluded;
pub mod identify;
pub mod port;
pub mod registry;
pub mod session;
pub mod session_writer;

pub use identify::{Asked, identify};
pub use port::{PortError, WriterPort};
pub use registry::{RegisteredWriter, Registry};
pub use session::{EventFacts, SessionWriters};
pub use session_writer::SessionWriter;
