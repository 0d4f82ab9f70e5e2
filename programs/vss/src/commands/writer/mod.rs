//! `vss writer`: writers for tests.

mod simulate;

use super::Failure;
use crate::args::{WriterArguments, WriterCommand};
use vss_requester::Instance;

pub(super) fn writer(instance: &Instance, arguments: &WriterArguments) -> Result<(), Failure> {
    match &arguments.command {
        WriterCommand::Simulate(arguments) => simulate::simulate(instance, arguments),
    }
}
