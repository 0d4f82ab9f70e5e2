//! The script writer: one process per session, told each event as a line.
//!
//! ```text
//!  PrepareBackup: start --> alive --(BackupShutdown: backup-shutdown, end of input)--> gone
//!                            |  dies, is late, talks nonsense: killed
//!                            v
//!                           dead: every event fails with the reason, until
//!                            |  Abort: started anew, told abort alone
//!                            v
//!                          alive
//! ```

use crate::config::ScriptConfig;
use crate::conversation::{Conversation, Failure, into_answer};
use crate::environment::{escaped, variables};
use crate::trust::trusted_program;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use vss_api::writer::{EventKind, EventReply, Identify, Identity, Register};
use vss_model::{Component, SessionId, VssCode, VssError};
use vss_writer::{Answer, Call, Writer, done};

/// A session's script.
#[derive(Debug)]
enum Script {
    Alive(Conversation),
    /// Why it is not.
    Dead(VssError),
}

/// An application that is held still by a script.
#[derive(Debug)]
pub struct ScriptWriter {
    config: ScriptConfig,
    components: Vec<Component>,
    scripts: BTreeMap<SessionId, Script>,
}

impl ScriptWriter {
    /// The writer that a configuration describes.
    #[must_use]
    pub fn new(config: ScriptConfig) -> Self {
        let components = config.identity().components;
        Self { config, components, scripts: BTreeMap::new() }
    }

    fn start(&self, call: &Call<'_>) -> Result<Conversation, VssError> {
        let [program, arguments @ ..] = self.config.command.as_slice() else {
            return Err(VssError::new(
                VssCode::WriterErrorNonRetryable,
                format!("Script {} has no command", self.config.name),
            ));
        };
        trusted_program(Path::new(program)).map_err(|distrust| {
            VssError::new(VssCode::WriterErrorNonRetryable, format!("Script refused: {distrust}"))
                .with_hint("Root runs only what nobody but root can change")
        })?;
        let mut command = Command::new(program);
        command.args(arguments).envs(variables(&self.config.name, call.event())?);
        command.env("VSS_FREEZE_TIMEOUT_MS", self.config.writer.freeze_timeout_ms.unwrap_or(60_000).to_string());
        Conversation::start(&self.config.name, &mut command)
    }

    /// Tells the session's script a phase; remembers its death.
    fn ask(&mut self, phase: &str, words: &[u8], call: &Call<'_>) -> Answer {
        let id = call.event().session_id;
        match self.scripts.get_mut(&id) {
            Some(Script::Alive(conversation)) => {
                let result = conversation.ask(phase, words, &self.components, call);
                if let Err(Failure::Dead(error)) = &result {
                    self.scripts.insert(id, Script::Dead(error.clone()));
                }
                into_answer(result)
            }
            Some(Script::Dead(error)) => Err(error.clone()),
            None => {
                let message = format!("Script {} is not running in this session", self.config.name);
                Err(VssError::new(VssCode::WriterErrorNonRetryable, message).with_hint("PrepareBackup starts it"))
            }
        }
    }
}

impl Writer for ScriptWriter {
    fn registration(&self) -> Register {
        self.config.register()
    }

    fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        Ok(self.config.identity())
    }

    fn prepare_backup(&mut self, call: &Call<'_>) -> Answer {
        let id = call.event().session_id;
        let script = self.start(call);
        let outcome = script.as_ref().map(|_| ()).map_err(Clone::clone);
        self.scripts.insert(id, script.map_or_else(Script::Dead, Script::Alive));
        outcome?;
        self.ask("prepare-backup", b"", call)
    }

    fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer {
        self.ask("prepare-snapshot", b"", call)
    }

    fn freeze(&mut self, call: &Call<'_>) -> Answer {
        self.ask("freeze", b"", call)
    }

    fn thaw(&mut self, call: &Call<'_>) -> Answer {
        self.ask("thaw", b"", call)
    }

    fn post_snapshot(&mut self, call: &Call<'_>) -> Answer {
        let mut words = Vec::new();
        for volume in &call.event().volumes {
            if let Some(directory) = call.directory(&volume.volume) {
                words.push(b' ');
                words.extend(escaped(volume.volume.as_os_str().as_bytes()));
                // The script is another process of the same user: it reaches the directory through ours.
                words.extend(format!("=/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd()).into_bytes());
            }
        }
        self.ask("post-snapshot", &words, call)
    }

    fn abort(&mut self, call: &Call<'_>) -> Answer {
        let id = call.event().session_id;
        match self.scripts.get(&id) {
            // It never ran: nothing is held.
            None => return done(),
            Some(Script::Alive(_)) => {}
            // What it did may have outlived it. A new one hears `abort` alone.
            Some(Script::Dead(_)) => {
                let script = self.start(call)?;
                self.scripts.insert(id, Script::Alive(script));
            }
        }
        self.ask("abort", b"", call)
    }

    fn backup_complete(&mut self, call: &Call<'_>) -> Answer {
        let mut words = Vec::new();
        for component in &call.event().components {
            words.push(b' ');
            words.extend(escaped(component.name.to_string().as_bytes()));
            words.extend_from_slice(if component.backup_succeeded == Some(true) { b"=succeeded" } else { b"=failed" });
        }
        self.ask("backup-complete", &words, call)
    }

    fn backup_shutdown(&mut self, call: &Call<'_>) -> Answer {
        let Some(Script::Alive(mut conversation)) = self.scripts.remove(&call.event().session_id) else {
            return done();
        };
        debug_assert_eq!(call.kind(), EventKind::BackupShutdown);
        let result: Result<EventReply, Failure> = conversation.ask("backup-shutdown", b"", &self.components, call);
        conversation.end(call);
        into_answer(result)
    }
}
