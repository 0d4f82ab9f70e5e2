//! What the calls of the three interfaces mean: the coordinator's side of the door.

mod blocks;
mod check;
pub mod documents;
pub mod door;
mod exposures;
mod management;
mod objects;
mod operations;
mod requester;
mod sets;
mod writer;
