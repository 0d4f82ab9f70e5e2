//! Every part of the conformance suite, turned red by a writer that is wrong in just that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;
use vss_api::writer::{ComponentReply, EventKind, EventReply, Identify, Identity, Register};
use vss_model::{BackupType, Component, ComponentName, SessionId, VssCode, VssError, WriterClassId, WriterState};
use vss_writer::fake::FakeWriter;
use vss_writer::{Answer, AnyWriter, Call, conformance};

use EventKind::{Abort, BackupComplete, BackupShutdown, Freeze, PostSnapshot, PrepareBackup, PrepareSnapshot, Thaw};

/// What came before a call.
struct Past<'a>(&'a [(SessionId, EventKind)], SessionId);

impl Past<'_> {
    /// How often this session heard it.
    fn heard(&self, kind: EventKind) -> usize {
        self.0.iter().filter(|(session, other)| *session == self.1 && *other == kind).count()
    }

    /// The other sessions that were prepared and not shut down.
    fn others(&self) -> usize {
        let count = |kind| self.0.iter().filter(|(session, other)| *session != self.1 && *other == kind).count();
        count(PrepareBackup).saturating_sub(count(BackupShutdown))
    }
}

/// Its answer in place of the right one; none: the right one.
type Mistake = Box<dyn Fn(&Past<'_>, &Call<'_>) -> Option<Answer>>;

/// What it says of itself in place of what is right.
type Claims = Box<dyn Fn(Identity, &[(SessionId, EventKind)]) -> Identity>;

/// A writer that is right but for one mistake.
struct Wrong {
    fake: FakeWriter,
    past: Vec<(SessionId, EventKind)>,
    register: Box<dyn Fn(Register) -> Register>,
    identity: Claims,
    mistake: Mistake,
}

impl Wrong {
    fn new() -> Self {
        Self {
            fake: FakeWriter::new("wrong", "/srv"),
            past: Vec::new(),
            register: Box::new(|register| register),
            identity: Box::new(|identity, _| identity),
            mistake: Box::new(|_, _| None),
        }
    }
}

impl AnyWriter for Wrong {
    fn registration(&self) -> Register {
        (self.register)(self.fake.registration())
    }

    fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError> {
        let identity = self.fake.identify(identify)?;
        Ok((self.identity)(identity, &self.past))
    }

    fn event(&mut self, call: &Call<'_>) -> Answer {
        let session = call.event().session_id;
        let answer = (self.mistake)(&Past(&self.past, session), call);
        self.past.push((session, call.kind()));
        answer.unwrap_or_else(|| self.fake.event(call))
    }
}

fn refusal() -> Answer {
    Err(VssError::new(VssCode::WriterErrorNonRetryable, "made to fail"))
}

/// What the suite says of a writer.
fn verdict(mut writer: Wrong) -> String {
    panic_of(|| conformance::check(&mut writer))
}

fn panic_of(work: impl FnOnce()) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(work)) else { return "nothing is wrong".to_owned() };
    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap()
}

#[test]
fn a_writer_without_a_mistake_passes() {
    assert_eq!(verdict(Wrong::new()), "nothing is wrong");
}

#[test]
fn wrong_registrations_are_found() {
    type Change = fn(Register) -> Register;
    let wrong: [(Change, &str); 5] = [
        (|register| Register { class_id: WriterClassId::from_u128(0), ..register }, "class id is nil"),
        (|register| Register { class_id: WriterClassId::random(), ..register }, "registration changes"),
        (|register| Register { name: String::new(), ..register }, "the name has 0 bytes"),
        (|register| Register { name: "x".repeat(129), ..register }, "the name has 129 bytes"),
        (|register| Register { freeze_timeout_ms: Some(0), ..register }, "the freeze limit is 0"),
    ];
    for (register, why) in wrong {
        let said = verdict(Wrong { register: Box::new(register), ..Wrong::new() });
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn wrong_identities_are_found() {
    type Change = fn(Identity, &[(SessionId, EventKind)]) -> Identity;
    let named = |name: &str| Identity::of([Component::file_group(name).files_below("/srv").build().unwrap()]);
    let wrong: [(Change, &str); 4] = [
        (|_, _| Identity::default(), "no component"),
        (|identity, _| Identity::of([identity.components.clone(), identity.components].concat()), "not sound"),
        (
            |_, _| Identity::of([Component::file_group(SessionId::random().to_string()).build().unwrap()]),
            "something else the second time",
        ),
        (
            |identity, past| {
                let frozen = past.last().is_some_and(|(_, kind)| *kind == Freeze);
                if frozen { Identity::default() } else { identity }
            },
            "something else after Freeze",
        ),
    ];
    for (identity, why) in wrong {
        let said = verdict(Wrong { identity: Box::new(identity), ..Wrong::new() });
        assert!(said.contains(why), "{why}: {said}");
    }
    let right = Wrong { identity: Box::new(move |_, _| named("data")), ..Wrong::new() };
    assert_eq!(verdict(right), "nothing is wrong");
}

#[test]
fn wrong_sequences_are_found() {
    type Wrongs = (&'static str, fn(&Past<'_>, &Call<'_>) -> bool, &'static str);
    let wrong: [Wrongs; 14] = [
        ("refuses a copy backup", |_, call| call.event().backup_state.backup_type == BackupType::Copy, "PrepareBackup"),
        ("refuses a log backup", |_, call| call.event().backup_state.backup_type == BackupType::Log, "PrepareBackup"),
        (
            "completes only what was copied",
            |past, call| call.kind() == BackupComplete && past.heard(PostSnapshot) == 0,
            "BackupComplete after [PrepareBackup, BackupComplete",
        ),
        (
            "wants every component to be backed up",
            |_, call| call.event().components.iter().any(|component| component.backup_succeeded == Some(false)),
            "failed",
        ),
        ("wants a component", |_, call| call.event().components.is_empty(), "failed"),
        ("aborts once", |past, call| call.kind() == Abort && past.heard(Abort) == 1, "Abort"),
        ("aborts what it froze", |past, call| call.kind() == Abort && past.heard(Freeze) == 0, "Abort"),
        (
            "aborts what it knows",
            |past, call| call.kind() == Abort && past.heard(PrepareBackup) == 0,
            "Abort after [Abort,",
        ),
        ("is done after Abort", |past, call| call.kind() == PrepareBackup && past.heard(Abort) > 0, "PrepareBackup"),
        (
            "completes once",
            |past, call| call.kind() == BackupComplete && past.heard(BackupComplete) > 0,
            "BackupComplete after [BackupComplete,",
        ),
        (
            "insists on BackupComplete",
            |past, call| call.kind() == BackupShutdown && past.heard(BackupComplete) + past.heard(Abort) == 0,
            "BackupShutdown after [BackupShutdown]",
        ),
        (
            "shuts down what it knows",
            |past, call| call.kind() == BackupShutdown && past.heard(PrepareBackup) + past.heard(Abort) == 0,
            "BackupShutdown after [BackupShutdown]",
        ),
        ("knows one session", |past, call| call.kind() == PrepareBackup && past.others() > 0, "PrepareBackup"),
        ("knows three sessions", |past, call| call.kind() == PrepareBackup && past.others() > 2, "PrepareBackup"),
    ];
    for (what, is_wrong, why) in wrong {
        let mistake: Mistake = Box::new(move |past, call| is_wrong(past, call).then(refusal));
        let said = verdict(Wrong { mistake, ..Wrong::new() });
        assert!(said.contains(why) && said.contains("made to fail"), "{what}: {said}");
    }
}

#[test]
fn wrong_answers_are_found() {
    let foreign = || ComponentReply {
        code: Some(VssCode::WriterErrorRetryable),
        ..ComponentReply::of(ComponentName { logical_path: String::new(), name: "theirs".into() })
    };
    let wrong: [(Answer, &str); 5] = [
        (Ok(EventReply { code: Some(VssCode::WriterErrorRetryable), ..EventReply::default() }), "Thaw after"),
        (Ok(EventReply { state: Some(WriterState::FailedAtThaw), ..EventReply::default() }), "Thaw after"),
        (Ok(EventReply { state: Some(WriterState::Stable), ..EventReply::default() }), "the answer says STABLE"),
        (Ok(EventReply { components: vec![foreign()], ..EventReply::default() }), "component theirs"),
        (Err(VssError::new(VssCode::Unexpected, "x")), "no writer's code"),
    ];
    for (answer, why) in wrong {
        let mistake: Mistake = Box::new(move |_, call| (call.kind() == Thaw).then(|| answer.clone()));
        let said = verdict(Wrong { mistake, ..Wrong::new() });
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn a_freeze_longer_than_the_writers_own_limit_is_found() {
    let mistake: Mistake = Box::new(|_, call| {
        if call.kind() == Freeze {
            sleep(Duration::from_millis(60));
        }
        None
    });
    let register = |register| Register { freeze_timeout_ms: Some(50), ..register };
    let said = verdict(Wrong { mistake, register: Box::new(register), ..Wrong::new() });
    assert!(said.contains("Freeze took") && said.contains("too late after 50ms"), "{said}");
}

#[test]
fn a_handler_that_is_deaf_to_its_deadline_is_found() {
    let mistake: Mistake = Box::new(|_, call| {
        if call.kind() == PrepareSnapshot && call.time_left().is_zero() {
            sleep(Duration::from_millis(2100));
        }
        None
    });
    let said = verdict(Wrong { mistake, ..Wrong::new() });
    assert!(said.contains("PrepareSnapshot went on") && said.contains("Deadline"), "{said}");
}

#[test]
fn a_handler_that_is_deaf_to_the_end_of_its_service_is_found() {
    let mistake: Mistake = Box::new(|_, call| {
        // Waits for its application until the deadline and looks at nothing else.
        if call.kind() == Freeze && call.sleep(Duration::ZERO).is_err() {
            sleep(Duration::from_millis(2100).min(call.time_left()));
        }
        None
    });
    let said = verdict(Wrong { mistake, ..Wrong::new() });
    assert!(said.contains("Freeze went on") && said.contains("Connection"), "{said}");
}

#[test]
fn what_a_failed_freeze_leaves_behind_is_found() {
    let stuck = AtomicBool::new(false);
    let mistake: Mistake = Box::new(move |_, call| {
        if call.kind() == Freeze && call.time_left().is_zero() {
            stuck.store(true, Ordering::Relaxed);
            return Some(refusal());
        }
        (call.kind() == Freeze && stuck.load(Ordering::Relaxed)).then(refusal)
    });
    let said = verdict(Wrong { mistake, ..Wrong::new() });
    assert!(said.contains("Freeze after") && said.contains("made to fail"), "{said}");
}

/// What the hold suite says when each call first does this to the application, of which the last number counts the holds.
fn hold_verdict(application: impl Fn(&Past<'_>, &Call<'_>, &AtomicUsize) + 'static, identify_releases: bool) -> String {
    let holds = Arc::new(AtomicUsize::new(0));
    let (seen, identified) = (Arc::clone(&holds), Arc::clone(&holds));
    let mut writer = Wrong {
        mistake: Box::new(move |past, call| {
            application(past, call, &seen);
            None
        }),
        identity: Box::new(move |identity, _| {
            if identify_releases {
                identified.store(0, Ordering::Relaxed);
            }
            identity
        }),
        ..Wrong::new()
    };
    panic_of(|| conformance::check_hold(&mut writer, &mut || holds.load(Ordering::Relaxed) > 0))
}

/// What a right application does.
fn right(past: &Past<'_>, call: &Call<'_>, holds: &AtomicUsize) {
    match call.kind() {
        Freeze => holds.store(1, Ordering::Relaxed),
        Thaw | Abort if past.heard(Freeze) > 0 => holds.store(0, Ordering::Relaxed),
        _ => {}
    }
}

#[test]
fn an_application_that_is_held_rightly_passes() {
    assert_eq!(hold_verdict(right, false), "nothing is wrong");
    let fake = FakeWriter::new("fake", "/srv");
    let (handle, mut fake) = (fake.handle(), fake);
    conformance::check_hold(&mut fake, &mut || handle.is_frozen());
}

#[test]
fn wrong_holds_are_found() {
    type Application = fn(&Past<'_>, &Call<'_>, &AtomicUsize);
    let wrong: [(&str, Application, &str); 7] = [
        ("never holds", |_, _, _| {}, "goes on after Freeze"),
        (
            "holds from the beginning",
            |past, call, holds| {
                if call.kind() == PrepareBackup { holds.store(1, Ordering::Relaxed) } else { right(past, call, holds) }
            },
            "is held after PrepareBackup",
        ),
        (
            "forgets to thaw",
            |past, call, holds| {
                if call.kind() != Thaw {
                    right(past, call, holds);
                }
            },
            "is held after Thaw",
        ),
        (
            "goes on with PostSnapshot",
            |past, call, holds| match call.kind() {
                Thaw => {}
                PostSnapshot => holds.store(0, Ordering::Relaxed),
                _ => right(past, call, holds),
            },
            "is held after Thaw",
        ),
        (
            "forgets to abort",
            |past, call, holds| {
                if call.kind() != Abort {
                    right(past, call, holds);
                }
            },
            "is held after Abort that followed Freeze",
        ),
        (
            "does not tell sessions apart",
            |past, call, holds| {
                if call.kind() == Abort { holds.store(0, Ordering::Relaxed) } else { right(past, call, holds) }
            },
            "goes on after Abort of another session",
        ),
        (
            "loses a hold that was cut short",
            |past, call, holds| match call.kind() {
                Freeze if call.time_left().is_zero() => holds.store(2, Ordering::Relaxed),
                Abort if holds.load(Ordering::Relaxed) == 2 => {}
                _ => right(past, call, holds),
            },
            "a Freeze that was cut short",
        ),
    ];
    for (what, application, why) in wrong {
        let said = hold_verdict(application, false);
        assert!(said.contains(why), "{what}: {said}");
    }
    let said = hold_verdict(right, true);
    assert!(said.contains("goes on after Identify"), "{said}");
}
