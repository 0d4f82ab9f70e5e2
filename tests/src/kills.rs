//! Programs that are killed: at moments that no two runs share, and at chosen calls of theirs.

use std::process::Command;
use std::thread;
use std::time::Duration;

use vss_linux::process::Signal;

use crate::instance::{Instance, Outcome, Running};

/// Parts of a whole between 0 and 1, others in each run of a test.
#[derive(Debug)]
pub struct Moments(u64);

impl Default for Moments {
    fn default() -> Self {
        Self(std::process::id().into())
    }
}

impl Moments {
    /// The next moment of something that takes so long.
    pub fn of(&mut self, whole: Duration) -> Duration {
        // Knuth's MMIX; the upper half is the random one.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        whole.mul_f64((self.0 >> 33) as f64 / f64::from(1_u32 << 31))
    }
}

/// Starts `vss WORDS` and kills it after this time, if it lives then.
///
/// # Errors
/// It cannot be started or waited for.
pub fn kill_after(instance: &Instance, time: Duration, words: &[&str]) -> anyhow::Result<Outcome> {
    let running = instance.start_vss(words)?;
    thread::sleep(time);
    running.signal(Signal::KILL)?;
    running.finish()
}

/// Starts `vss WORDS` and kills it as soon as the condition holds, if it lives then.
///
/// # Errors
/// It cannot be started or waited for.
pub fn kill_when(instance: &Instance, mut condition: impl FnMut() -> bool, words: &[&str]) -> anyhow::Result<Outcome> {
    let mut running = instance.start_vss(words)?;
    while !running.has_ended() {
        if condition() {
            running.signal(Signal::KILL)?;
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    running.finish()
}

/// True when a test that kills at calls has to be left out here; says so in one line.
#[must_use]
pub fn skips(test: &str) -> bool {
    let missing = Command::new("strace").arg("-V").output().is_err();
    if missing {
        println!("SKIPPED: {test}: needs strace");
    }
    missing
}

/// Starts `vss WORDS` and kills it before it does its `number`th call of this name, if there are so many.
///
/// # Errors
/// It cannot be started or takes too long.
pub fn kill_at(instance: &Instance, call: &str, number: u32, words: &[&str]) -> anyhow::Result<Outcome> {
    let vss = instance.command("vss");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
    command.arg("-e").arg(format!("inject={call}:signal=KILL:when={number}")).arg(vss.get_program());
    command.args(instance.arguments()).args(words);
    command.envs(vss.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Running::start(command)?.finish()
}
