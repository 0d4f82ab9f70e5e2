//! The interface as it is on the wire: JSON and a NUL byte, without the house's own types in between.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use vss_model::{VssCode, VssError};

use crate::instance::{Instance, wait_until};

/// An answer that takes longer fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is not let in is told so within this time.
const AT_THE_DOOR: Duration = Duration::from_secs(10);

/// One connection: one session.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    read: Vec<u8>,
}

/// What a call was refused with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The `VSS_E_*` name.
    pub name: String,
    /// Its number.
    pub code: u64,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    /// That of an error of a call, whose members are called so, or of a failure as a value.
    #[must_use]
    pub fn of(parameters: &Value) -> Self {
        let text = |name: &str| parameters[name].as_str().unwrap_or_default().to_owned();
        let (name, code) = if parameters["number"].is_null() { ("name", "code") } else { ("code", "number") };
        let code = parameters[code].as_u64().unwrap_or_default();
        Self { name: text(name), code, message: text("message"), hint: text("hint") }
    }

    /// Checks that the message has the cause and the hint the way out, and that the line which a person reads has both, the
    /// code's name and its number.
    ///
    /// # Errors
    /// Something is missing.
    pub fn says(&self, cause: &str, way_out: &str) -> anyhow::Result<()> {
        let error = VssError::new(self.name.parse()?, &self.message).with_hint(&self.hint);
        let (line, number) = (error.to_string(), format!("{:#X}", self.code));
        let is_said = [&self.message, &self.hint, &self.name, &number].iter().all(|part| line.contains(*part));
        let good = self.message.contains(cause) && self.hint.contains(way_out) && is_said;
        ensure!(good, "cause {cause:?} and way out {way_out:?} expected: {line}");
        Ok(())
    }
}

impl Wire {
    /// Connects to the requesters' socket; the service has to run.
    ///
    /// # Errors
    /// It does not run.
    pub fn connect(instance: &Instance) -> anyhow::Result<Self> {
        Self::connect_to(&instance.requester_socket())
    }

    /// Connects to a socket of the service.
    ///
    /// # Errors
    /// It does not run.
    pub fn connect_to(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("vssd does not run")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Calls a method of `org.linuxvss.Requester`, or another one by its whole name.
    ///
    /// # Errors
    /// The connection breaks, or the error is none of the service's.
    pub fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Result<Value, Refusal>> {
        let whole = if method.contains('.') { method.to_owned() } else { format!("org.linuxvss.Requester.{method}") };
        self.send(&json!({"method": whole, "parameters": parameters}))?;
        let reply = self.receive()?;
        let parameters = reply["parameters"].clone();
        match reply["error"].as_str() {
            None => Ok(Ok(parameters)),
            Some(error) if error.ends_with(".VssError") => Ok(Err(Refusal::of(&parameters))),
            Some(other) => bail!("{method}: {other}: {parameters}"),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn receive(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(serde_json::from_slice(&message[..end])?);
            }
            let mut chunk = [0; 65536];
            let length = self.stream.read(&mut chunk)?;
            ensure!(length > 0, "the connection is closed");
            self.read.extend_from_slice(&chunk[..length]);
        }
    }

    /// A call that has to succeed. A set begins when that of the test's session before, whose connection was just dropped, is
    /// undone.
    ///
    /// # Errors
    /// It does not.
    pub fn ok(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let in_progress = VssCode::SnapshotSetInProgress.name();
        let mut answer = self.call(method, parameters.clone())?;
        wait_until(PATIENCE, || {
            let is_in_the_way = answer.as_ref().is_err_and(|refusal| refusal.name == in_progress);
            if is_in_the_way && let Ok(again) = self.call(method, parameters.clone()) {
                answer = again;
            }
            !is_in_the_way
        });
        answer.map_err(|refusal| anyhow::anyhow!("{method}: {refusal:?}"))
    }

    /// A call that has to be refused with this code, by name and number, in words that a person understands.
    ///
    /// # Errors
    /// It is not.
    pub fn refused(&mut self, method: &str, parameters: Value, code: VssCode) -> anyhow::Result<Refusal> {
        match self.call(method, parameters)? {
            Ok(answer) => bail!("{method} is accepted: {answer}"),
            Err(refusal) => {
                let good = refusal.name == code.name() && refusal.code == u64::from(code.hresult());
                ensure!(good && !refusal.message.is_empty(), "{method}: {code} expected, {refusal:?}");
                Ok(refusal)
            }
        }
    }

    /// Starts an operation and waits for its end; where it stands then.
    ///
    /// # Errors
    /// It does not start, or not end.
    pub fn operate(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let started = self.ok(method, parameters)?;
        self.end_of(&started["operation_id"])
    }

    /// Waits for the end of an operation.
    ///
    /// # Errors
    /// It does not come.
    pub fn end_of(&mut self, operation: &Value) -> anyhow::Result<Value> {
        loop {
            let status = self.ok("Wait", json!({"operation_id": operation, "timeout_ms": 60_000}))?;
            if status["state"] != "pending" {
                return Ok(status);
            }
        }
    }

    /// An operation that has to succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn done(&mut self, method: &str, parameters: Value) -> anyhow::Result<()> {
        let status = self.operate(method, parameters)?;
        ensure!(status["state"] == "finished", "{method}: {status}");
        Ok(())
    }

    /// An operation that has to fail with this code, by name and number.
    ///
    /// # Errors
    /// It does not.
    pub fn fails(&mut self, method: &str, parameters: Value, code: VssCode) -> anyhow::Result<Refusal> {
        let started = self.ok(method, parameters)?;
        self.failed(&started["operation_id"], code).with_context(|| method.to_owned())
    }

    /// Waits for the end of an operation that has to fail with this code, by name and number.
    ///
    /// # Errors
    /// It does not.
    pub fn failed(&mut self, operation: &Value, code: VssCode) -> anyhow::Result<Refusal> {
        let status = self.end_of(operation)?;
        let good = status["state"] == "failed"
            && status["number"] == code.hresult()
            && status["error"]["code"] == code.name()
            && status["error"]["number"] == code.hresult();
        ensure!(good, "{code} expected, {status}");
        Ok(Refusal::of(&status["error"]))
    }

    /// Checks that one writer has failed with this code, by name and number.
    ///
    /// # Errors
    /// It has not.
    pub fn writer_failed(&mut self, name: &str, code: VssCode) -> anyhow::Result<Refusal> {
        let status = self.writer_status(name)?;
        let failure = Refusal::of(&status["failure"]);
        let good = failure.name == code.name() && failure.code == u64::from(code.hresult());
        ensure!(good, "{name}: {code} expected, {status}");
        Ok(failure)
    }

    /// What the service says to a caller that it does not let in.
    ///
    /// # Errors
    /// It says nothing, or something else.
    pub fn turned_away(&mut self, code: VssCode) -> anyhow::Result<Refusal> {
        self.stream.set_read_timeout(Some(AT_THE_DOOR))?;
        let said = self.receive()?;
        let refusal = Refusal::of(&said["parameters"]);
        let good = refusal.name == code.name() && refusal.code == u64::from(code.hresult());
        ensure!(good && said["error"].as_str().is_some_and(|error| error.ends_with(".VssError")), "{said}");
        Ok(refusal)
    }

    /// The status of one writer, by name, after a new GatherWriterStatus.
    ///
    /// # Errors
    /// There is none.
    pub fn writer_status(&mut self, name: &str) -> anyhow::Result<Value> {
        self.done("GatherWriterStatus", json!({}))?;
        let status = self.ok("GetWriterStatus", json!({}))?;
        let of_it = status["writers"].as_array().into_iter().flatten().find(|writer| writer["name"] == name);
        of_it.cloned().with_context(|| format!("no status of {name}: {status}"))
    }
}
