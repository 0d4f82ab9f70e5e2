//! What the calls of the three interfaces mean: the coordinator's side of the door.

mod blocks;
mod check;
pub mod documents;
pub mod door;
mod management;
mod objects;
mod requester;
mod writer;
