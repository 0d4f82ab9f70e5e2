//! The rows that make the hold ready: the guard, the thread of the window, and the flush that is not counted in any limit.

use super::StepFuture;
use super::create_set::CreateSet;
use super::held_volumes::HeldVolumes;
use crate::blocking;
use crate::environment::HoldMaker;
use crate::freeze_window::{WINDOW_GRACE, Window, WindowThread};
use crate::hold_trace::Times;
use std::sync::Arc;
use vss_linux::clock;
use vss_model::{VssCode, VssError, limits};

pub(super) fn prepare_hold(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        if saga.window.is_some() {
            return Ok(());
        }
        let set_id = saga.plan.set_id;
        let prepare = move |maker: &dyn HoldMaker, volumes: &HeldVolumes| {
            maker.prepare(set_id, &volumes.held, &volumes.others, &volumes.targets()?)
        };
        let (volumes, maker) = (HeldVolumes::of(&saga.plan.members), Arc::clone(&saga.environment.holds));
        let hold = volumes.ask(maker, "Starting the guard", prepare).await?;
        saga.thread = Some(WindowThread::start()?);
        let providers = saga.providers().into_iter().map(|(_, provider)| provider).collect();
        saga.window = Some(Window::new(saga.plan.set_id, hold, providers));
        Ok(())
    })
}

pub(super) fn end_hold(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        // Ending a guard waits for its process: not on a thread of the runtime.
        let window = saga.window.take();
        saga.thread = None;
        blocking::run("Ending the guard", limits::PROVIDER_IN_WINDOW, move || {
            drop(window);
            Ok(())
        })
        .await
    })
}

pub(super) fn flush(saga: &mut CreateSet) -> StepFuture<'_> {
    Box::pin(async {
        let Some(window) = saga.window.as_mut() else { return Ok(()) };
        if let Some(mut hold) = window.hold.take() {
            // The guard flushes all members, also those that it will not freeze.
            let flushed = blocking::run("Flushing the volumes", limits::FLUSH + WINDOW_GRACE, move || {
                let result = hold.flush(limits::FLUSH);
                Ok((hold, result))
            });
            let (hold, result) = saga.operation.unless_cancelled(flushed).await??;
            window.hold = Some(hold);
            return result;
        }
        // Without a guard no member is held: each flushes itself in its snapshot, and an early flush keeps that short.
        let began_ns = clock::boottime_ns();
        let mount_points: Vec<_> = saga.plan.members.iter().map(|member| member.volume.mount_point.clone()).collect();
        let flushed = blocking::run("Flushing the volumes", limits::FLUSH, move || {
            mount_points.iter().try_for_each(|mount_point| {
                flush_one(mount_point).map_err(|error| {
                    VssError::new(
                        VssCode::FlushWritesTimeout,
                        format!("Cannot flush {}: {error}", mount_point.display()),
                    )
                })
            })
        });
        saga.operation.unless_cancelled(flushed).await??;
        saga.flush.get_or_insert(Times { began_ns, ended_ns: clock::boottime_ns() });
        Ok(())
    })
}

fn flush_one(mount_point: &std::path::Path) -> std::io::Result<()> {
    let directory = std::fs::File::open(mount_point)?;
    vss_linux::freeze::sync(&directory)?;
    Ok(())
}
