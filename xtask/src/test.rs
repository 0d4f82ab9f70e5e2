//! 
use crate::interrupt::Interrupt;
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}
pub(crate) fn run(_: &Arguments, _: &Interrupt) -> anyhow::Result<bool> { Ok(true) }
