//! The trait with `async fn` handlers, and which of them serves which event.

use super::Call;
use crate::{Answer, done};
use vss_api::writer::{EventKind, Identify, Identity, Register};
use vss_model::VssError;

/// An application that owns data and can hold it still for the moment in which a shadow copy is cut.
///
/// Who calls each handler, when, what it may and must not do, and what its failure means, is said at the handler of the same
/// name of [`crate::Writer`]. One handler runs at a time. Any but `abort` and `backup_shutdown` may be dropped at an `await`:
/// what it holds by then must be in `self`, for `abort` to let go.
#[expect(async_fn_in_trait, reason = "handlers run inside the future of `run`: it is Send when the writer's own are")]
pub trait Writer {
    /// See [`crate::Writer::registration`]. Called once.
    fn registration(&self) -> Register;

    /// See [`crate::Writer::identify`].
    ///
    /// # Errors
    /// See there.
    async fn identify(&mut self, identify: &Identify) -> Result<Identity, VssError>;

    /// See [`crate::Writer::prepare_backup`].
    ///
    /// # Errors
    /// See there.
    async fn prepare_backup(&mut self, _call: &Call) -> Answer {
        done()
    }

    /// See [`crate::Writer::prepare_snapshot`].
    ///
    /// # Errors
    /// See there.
    async fn prepare_snapshot(&mut self, call: &Call) -> Answer;

    /// See [`crate::Writer::freeze`].
    ///
    /// # Errors
    /// See there.
    async fn freeze(&mut self, call: &Call) -> Answer;

    /// See [`crate::Writer::thaw`].
    ///
    /// # Errors
    /// See there.
    async fn thaw(&mut self, call: &Call) -> Answer;

    /// See [`crate::Writer::post_snapshot`].
    ///
    /// # Errors
    /// See there.
    async fn post_snapshot(&mut self, _call: &Call) -> Answer {
        done()
    }

    /// See [`crate::Writer::abort`].
    ///
    /// # Errors
    /// See there.
    async fn abort(&mut self, call: &Call) -> Answer;

    /// See [`crate::Writer::backup_complete`].
    ///
    /// # Errors
    /// See there.
    async fn backup_complete(&mut self, _call: &Call) -> Answer {
        done()
    }

    /// See [`crate::Writer::backup_shutdown`].
    ///
    /// # Errors
    /// See there.
    async fn backup_shutdown(&mut self, _call: &Call) -> Answer {
        done()
    }
}

/// As [`crate::AnyWriter::event`] of a [`crate::Writer`].
pub(super) async fn deliver<W: Writer>(writer: &mut W, call: &Call) -> Answer {
    match call.kind() {
        EventKind::Identify => done(),
        EventKind::PrepareBackup => writer.prepare_backup(call).await,
        EventKind::PrepareSnapshot => writer.prepare_snapshot(call).await,
        EventKind::Freeze => writer.freeze(call).await,
        EventKind::Thaw => writer.thaw(call).await,
        EventKind::PostSnapshot => writer.post_snapshot(call).await,
        EventKind::Abort => writer.abort(call).await,
        EventKind::BackupComplete => writer.backup_complete(call).await,
        EventKind::BackupShutdown => writer.backup_shutdown(call).await,
    }
}
