//! A directory of programs that are run with `freeze` and `thaw`: hooks of qemu-guest-agent, VMware and Veeam, unchanged.

use crate::config::HooksConfig;
use crate::environment::variables;
use crate::ledger::Ledger;
use crate::program::Program;
use crate::trust::trusted_program;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vss_api::writer::{Event, EventKind, Identify, Identity, Register};
use vss_model::{Attributes, BackupState, Context, SessionId, VssCode, VssError};
use vss_writer::{Answer, Call, Writer, done};

/// Longest time for one hook's thaw, if the configuration does not say otherwise.
const THAW: Duration = Duration::from_secs(10);
/// What is left of the writer's time when a freeze hook is killed: a tenth, at most this. The error that names the hook
/// must arrive before the service gives up.
const MARGIN: Duration = Duration::from_secs(1);

/// Endings of files that packaging and editors leave behind; qemu-guest-agent's dispatcher skips the same.
const LEFT_BEHIND: [&str; 8] = ["~", ".bak", ".orig", ".rpmnew", ".rpmorig", ".rpmsave", ".sample", ".toml"];

/// A program that freezes and another that thaws, as VMware and Veeam name them; each also with `.sh`.
const PAIRS: [(&str, &str); 2] = [("pre-freeze-script", "post-thaw-script"), ("pre-freeze", "post-thaw")];

/// Which argument hooks are given when the copy does not come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `thaw`, as after a copy.
    Plain,
    /// `freezeFail`, as VMware calls the scripts in `backupScripts.d`.
    Vmware,
}

impl Dialect {
    /// VMware's for a directory named `backupScripts.d`, else the plain one.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        if directory.file_name() == Some(OsStr::new("backupScripts.d")) { Self::Vmware } else { Self::Plain }
    }

    const fn undo(self) -> &'static str {
        match self {
            Self::Plain => "thaw",
            Self::Vmware => "freezeFail",
        }
    }
}

/// One hook: what freezes and what thaws; mostly the same program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hook {
    name: String,
    freeze: Option<PathBuf>,
    thaw: Option<PathBuf>,
}

/// Runs every executable file of a directory: at Freeze in the order of their names with `freeze`, at Thaw and Abort in
/// the reverse order with `thaw`.
///
/// A hook that was begun is thawed, also when it failed, was killed, or when a later one failed. A hook whose thaw fails is
/// tried once more when Abort follows. It owns every file of the machine unless its configuration says otherwise, so it
/// takes part in every set; a directory without hooks owns nothing.
#[derive(Debug)]
pub struct HookDirectory {
    directory: PathBuf,
    config: HooksConfig,
    dialect: Dialect,
    ledger: Option<Ledger>,
    /// Looked up in PrepareSnapshot, because Freeze must be quick.
    planned: Option<(SessionId, Vec<Hook>)>,
    /// What was begun and is to be thawed, in the order of freezing.
    frozen: Option<(SessionId, Vec<Hook>)>,
}

impl HookDirectory {
    /// The hooks of `directory`.
    #[must_use]
    pub fn new(directory: &Path, config: HooksConfig) -> Self {
        let dialect = Dialect::of(directory);
        Self { directory: directory.to_owned(), config, dialect, ledger: None, planned: None, frozen: None }
    }

    /// The same, with a note of what is frozen in `runtime`.
    #[must_use]
    pub fn with_ledger(mut self, runtime: &Path) -> Self {
        self.ledger = Some(Ledger::new(runtime, &self.registration().class_id.to_string()));
        self
    }

    /// Thaws what the note of an earlier process names, and strikes it out.
    ///
    /// # Errors
    /// The note cannot be read or a hook is not trusted: the note stays. A hook's thaw failed: it is struck out.
    pub fn thaw_left_over(&mut self) -> Result<(), VssError> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let unreadable = |error: std::io::Error| {
            VssError::new(
                VssCode::WriterErrorNonRetryable,
                format!("{} cannot be read: {error}", ledger.path().display()),
            )
        };
        let Some(names) = ledger.read().map_err(unreadable)? else { return Ok(()) };
        let left_over = self.trusted_hooks()?.into_iter().filter(|hook| names.contains(&hook.name)).collect();
        let event = nobody();
        self.frozen = Some((event.session_id, left_over));
        let thawed = self.release(&Call::new(EventKind::Abort, &event), self.dialect.undo());
        self.forget();
        thawed
    }

    /// The hooks in the order of freezing: pairs first (VMware's order), then by name.
    fn hooks(&self) -> Result<Vec<Hook>, VssError> {
        let unreadable = |error: std::io::Error| {
            VssError::new(
                VssCode::WriterErrorNonRetryable,
                format!("{} cannot be read: {error}", self.directory.display()),
            )
        };
        let mut programs = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            let left_behind =
                name.starts_with('.') || name.contains(".dpkg-") || LEFT_BEHIND.iter().any(|end| name.ends_with(end));
            let executable =
                fs::metadata(&path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
            if executable && !left_behind {
                programs.insert(name, path);
            }
        }
        let mut hooks = Vec::new();
        for (freeze, thaw) in PAIRS {
            let mut take = |name: &str| programs.remove(name).or_else(|| programs.remove(&format!("{name}.sh")));
            let (freezing, thawing) = (take(freeze), take(thaw));
            if freezing.is_some() || thawing.is_some() {
                hooks.push(Hook { name: freeze.to_owned(), freeze: freezing, thaw: thawing });
            }
        }
        hooks.extend(programs.into_iter().map(|(name, path)| Hook {
            name,
            freeze: Some(path.clone()),
            thaw: Some(path),
        }));
        Ok(hooks)
    }

    /// The hooks, each one trusted.
    fn trusted_hooks(&self) -> Result<Vec<Hook>, VssError> {
        let hooks = self.hooks()?;
        for program in hooks.iter().flat_map(|hook| [&hook.freeze, &hook.thaw]).flatten() {
            trusted_program(program).map_err(|distrust| {
                VssError::new(VssCode::WriterErrorNonRetryable, format!("Hook refused: {distrust}"))
                    .with_hint("Root runs only what nobody but root can change")
            })?;
        }
        Ok(hooks)
    }

    /// Runs one program of a hook to its end.
    fn perform(
        &self,
        name: &str,
        program: &Path,
        phase: &str,
        call: &Call<'_>,
        until: Instant,
    ) -> Result<(), VssError> {
        let mut command = Command::new(program);
        command.arg(phase).stdin(Stdio::null()).envs(variables(&self.registration().name, call.event())?);
        let what = format!("Hook {name}");
        let mut running = Program::start(&mut command, true).map_err(|error| {
            VssError::new(VssCode::WriterErrorNonRetryable, format!("{what} could not be started in {phase}: {error}"))
        })?;
        let ended = running.wait(call, until);
        running.verdict(&ended, &what, phase).map_or(Ok(()), Err)
    }

    /// Freezes the hooks in order, until one fails.
    fn hold(&mut self, hooks: Vec<Hook>, call: &Call<'_>) -> Result<(), VssError> {
        if let Some(ledger) = &self.ledger {
            ledger.write(hooks.iter().map(|hook| hook.name.as_str())).map_err(|error| {
                let path = ledger.path().display();
                VssError::new(VssCode::WriterErrorOutOfResources, format!("{path} cannot be written: {error}"))
            })?;
        }
        let margin = (call.time_left() / 10).min(MARGIN);
        let until = call.deadline().checked_sub(margin).unwrap_or_else(Instant::now);
        self.frozen = Some((call.event().session_id, Vec::with_capacity(hooks.len())));
        for hook in hooks {
            let (name, freeze) = (hook.name.clone(), hook.freeze.clone());
            if let Some((_, frozen)) = &mut self.frozen {
                frozen.push(hook);
            }
            if let Some(program) = freeze {
                self.perform(&name, &program, "freeze", call, until)?;
            }
        }
        Ok(())
    }

    /// Thaws everything that was begun, the last one first, whatever fails on the way; what failed stays noted.
    fn release(&mut self, call: &Call<'_>, phase: &str) -> Result<(), VssError> {
        let Some((session, hooks)) = self.frozen.take() else { return Ok(()) };
        let limit = self.config.thaw_timeout_ms.map_or(THAW, Duration::from_millis);
        let (mut failed, mut first) = (Vec::new(), None);
        for hook in hooks.into_iter().rev() {
            let Some(program) = &hook.thaw else { continue };
            if let Err(error) = self.perform(&hook.name, program, phase, call, Instant::now() + limit) {
                first.get_or_insert(error);
                failed.insert(0, hook);
            }
        }
        match first {
            None => {
                self.forget();
                Ok(())
            }
            Some(error) => {
                let others = failed.len() - 1;
                self.frozen = Some((session, failed));
                let more = if others == 0 { String::new() } else { format!("; {others} more hooks failed") };
                Err(VssError { message: format!("{}{more}", error.message), ..error })
            }
        }
    }

    /// Nothing is frozen any more, or nothing more can be done about it.
    fn forget(&mut self) {
        self.frozen = None;
        if let Some(ledger) = &self.ledger {
            // What cannot be struck out is thawed once too often at the next start; hooks must bear that.
            let _ = ledger.clear();
        }
    }

    fn is_frozen_for(&self, call: &Call<'_>) -> bool {
        self.frozen.as_ref().is_some_and(|(session, _)| *session == call.event().session_id)
    }
}

/// What failed in Freeze, and then in the thawing of what was begun; the ways out of both.
fn with_thawing(first: VssError, second: &VssError) -> VssError {
    let message = format!("{}. Thawing failed too: {}", first.message, second.message);
    let hint = match (first.hint.as_str(), second.hint.as_str()) {
        (one, other) if one == other || other.is_empty() => one.to_owned(),
        ("", other) => other.to_owned(),
        (one, other) => format!("{one}. {other}"),
    };
    VssError { code: first.code, message, hint }
}

/// The event of a thaw that belongs to no session of ours.
pub(crate) fn nobody() -> Event {
    Event {
        session_id: SessionId::from_u128(0),
        set_id: None,
        context: Context::Backup,
        attributes: Attributes::empty(),
        backup_state: BackupState::default(),
        components: Vec::new(),
        volumes: Vec::new(),
        time_left_ms: 60_000,
    }
}

impl Writer for HookDirectory {
    fn registration(&self) -> Register {
        self.config.register(&self.directory)
    }

    fn identify(&mut self, _: &Identify) -> Result<Identity, VssError> {
        // Without hooks nobody is held still, and no copy may call itself consistent because of us.
        if self.hooks()?.is_empty() { Ok(Identity::default()) } else { self.config.identity() }
    }

    fn prepare_backup(&mut self, call: &Call<'_>) -> Answer {
        self.trusted_hooks()?;
        // What no hook can be started with is told before anything is frozen.
        variables(&self.registration().name, call.event())?;
        done()
    }

    fn prepare_snapshot(&mut self, call: &Call<'_>) -> Answer {
        self.planned = Some((call.event().session_id, self.trusted_hooks()?));
        done()
    }

    fn freeze(&mut self, call: &Call<'_>) -> Answer {
        if self.frozen.is_some() && !self.is_frozen_for(call) {
            return Err(VssError::new(VssCode::WriterErrorRetryable, "The hooks are frozen for another session")
                .with_hint("Wait for the other backup"));
        }
        let planned = self.planned.take().filter(|(session, _)| *session == call.event().session_id);
        let hooks = planned.map_or_else(|| self.trusted_hooks(), |(_, hooks)| Ok(hooks))?;
        if hooks.is_empty() {
            return done();
        }
        if let Err(error) = self.hold(hooks, call) {
            // In a call of its own, which nothing interrupts. What fails here is tried again in Abort.
            let thawing = Call::new(EventKind::Abort, call.event());
            return Err(match self.release(&thawing, self.dialect.undo()) {
                Ok(()) => error,
                Err(second) => with_thawing(error, &second),
            });
        }
        done()
    }

    fn thaw(&mut self, call: &Call<'_>) -> Answer {
        if self.is_frozen_for(call) {
            self.release(call, "thaw")?;
        }
        done()
    }

    fn abort(&mut self, call: &Call<'_>) -> Answer {
        if self.is_frozen_for(call) {
            self.release(call, self.dialect.undo())?;
        }
        done()
    }

    fn backup_shutdown(&mut self, call: &Call<'_>) -> Answer {
        if self.is_frozen_for(call) {
            let released = self.release(call, self.dialect.undo());
            self.forget();
            released?;
        }
        done()
    }
}
