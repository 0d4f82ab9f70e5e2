//! Attaches a tracer, says `attached`, and waits for the end of its input: something to be killed.
//!
//! ```text
//! trace_driver INSTANCE VOLUME DEVICE
//! ```

use std::path::Path;

use anyhow::bail;
use vss_tests::tracing::target_of;
use vss_trace::{Pins, Tracer};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [instance, volume, device] = arguments.as_slice() else { bail!("usage: trace_driver INSTANCE VOLUME DEVICE") };
    let target = target_of(Path::new(device))?;
    println!("attaching");
    let _tracer = Tracer::attach(&Pins::new(instance, volume), &target)?;
    println!("attached");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
