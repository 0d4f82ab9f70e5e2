//! `vss`: the command line of shadow copies. A requester like any other: everything is asked of the service through its
//! public interface; only the view of `vss run` is made here.

mod args;
mod caller;
mod commands;
mod document_text;
mod event_text;
mod exit;
mod forecast;
mod inside;
mod json;
mod live;
mod meter;
mod output;
mod progress;
mod request;
mod signals;
#[cfg(test)]
mod table;
mod transfer;
mod window;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(commands::execute(args::Arguments::parse()))
}
