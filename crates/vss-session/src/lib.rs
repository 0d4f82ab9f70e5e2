//! A session (backup, query or restore) as a pure state machine: which call may follow which, and what has to be done about it.
//!
//! [`State`] says where a session stands and what it has gathered ([`Draft`]); [`step`] takes an [`Event`] and answers
//! with the next state and a list of [`Effect`]s, or with the refusal that the requester gets. [`permits`] and [`check`]
//! ask the same question without a step. The rules are those of spec R 1.1 to 1.8, 2.2, 2.5 and 3.4.
//!
//! No input, no output, no clock, no ids made here: the conductor (`vss-service`) brings what the outside world says as
//! events, and carries out the effects in their order.

pub mod draft;
pub mod effect;
pub mod event;
pub mod machine;
pub mod order;

pub use draft::{Chosen, ComponentReference, Draft, Member, Progress, SnapshotSet, WriterFilter};
pub use effect::Effect;
pub use event::{Call, Event, Failure, Finished, Kind, Operation};
pub use machine::{Ending, Phase, Running, Session, State, step};
pub use order::{check, permits};
