//! A session that stays: psql with a pipe on either side.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};

/// psql prints this after every answer.
const END: &str = "=== end of answer ===";

/// An open session. Dropping it closes it.
#[derive(Debug)]
pub struct Session {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Opens one by `psql`, which knows the server already.
    pub(crate) fn open(mut psql: Command, database: &str) -> anyhow::Result<Self> {
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
        let mut process = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run psql")?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("its output was asked for")?);
        let mut session = Self { process, input, output };
        session.ask("SELECT 1")?;
        Ok(session)
    }

    /// Asks: rows by line, columns by `|`, without the last line end. Waits as long as the server does.
    ///
    /// # Errors
    /// The server refuses, which ends the session; its words are on standard error.
    pub fn ask(&mut self, text: &str) -> anyhow::Result<String> {
        let input = self.input.as_mut().context("the session is closed")?;
        writeln!(input, "{text};\n\\echo '{END}'").context("the session has ended")?;
        let mut answer = String::new();
        loop {
            let begin = answer.len();
            let length = self.output.read_line(&mut answer)?;
            ensure!(length > 0, "the session has ended at: {text}");
            if answer[begin..].trim_end() == END {
                answer.truncate(begin);
                return Ok(answer.trim_end_matches('\n').to_owned());
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // psql ends at the end of its input.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}
