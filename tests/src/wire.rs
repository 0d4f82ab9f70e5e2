//! The interface as it is on the wire: JSON and a NUL byte, without the house's own types in between.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use vss_model::VssCode;

use crate::instance::Instance;

/// An answer that takes longer fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

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
}

impl Wire {
    /// Connects to the requesters' socket; the service has to run.
    ///
    /// # Errors
    /// It does not run.
    pub fn connect(instance: &Instance) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(instance.requester_socket()).context("vssd does not run")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Calls a method of `org.linuxvss.Requester`, or another one by its whole name.
    ///
    /// # Errors
    /// The connection breaks, or the error is none of the service's.
    pub fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Result<Value, Refusal>> {
        let whole = if method.contains('.') { method.to_owned() } else { format!("org.linuxvss.Requester.{method}") };
        let mut message = serde_json::to_vec(&json!({"method": whole, "parameters": parameters}))?;
        message.push(0);
        self.stream.write_all(&message)?;
        let reply = self.receive()?;
        let parameters = reply["parameters"].clone();
        match reply["error"].as_str() {
            None => Ok(Ok(parameters)),
            Some(error) if error.ends_with(".VssError") => Ok(Err(Refusal {
                name: parameters["name"].as_str().unwrap_or_default().to_owned(),
                code: parameters["code"].as_u64().unwrap_or_default(),
                message: parameters["message"].as_str().unwrap_or_default().to_owned(),
            })),
            Some(other) => bail!("{method}: {other}: {parameters}"),
        }
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
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

    /// A call that has to succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn ok(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let answer = self.call(method, parameters)?;
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
    pub fn fails(&mut self, method: &str, parameters: Value, code: VssCode) -> anyhow::Result<Value> {
        let status = self.operate(method, parameters)?;
        let good = status["state"] == "failed"
            && status["number"] == code.hresult()
            && status["error"]["code"] == code.name()
            && status["error"]["number"] == code.hresult();
        ensure!(good, "{method}: {code} expected, {status}");
        Ok(status)
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
