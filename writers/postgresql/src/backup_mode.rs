//! Backup mode: from `pg_backup_start` to `pg_backup_stop` on one session, which must live as long as it lasts.
//!
//! In it the server writes whole pages to its log, and remembers where recovery has to begin. So files that were cut at several
//! instants can be brought to one by the log from the start to the stop, which a copy therefore must hold. A slot of the
//! session's own keeps the server from recycling it in between; slot and backup mode end with the session.

use crate::cluster::Cluster;
use crate::connection::{Connection, Login};
use crate::wal::Lsn;
use vss_model::{VssCode, VssError};
use vss_writer::Call;

/// The version that named the functions `pg_backup_*` and left out their exclusive form.
const RENAMED: u32 = 15;

/// A server in backup mode.
#[derive(Debug)]
pub(crate) struct BackupMode {
    connection: Connection,
    version: u32,
    /// True: a standby, which writes no log of its own.
    pub(crate) on_standby: bool,
}

/// What the server said at the end of backup mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The copy must hold the log up to here.
    pub(crate) end: Lsn,
    /// The contents of `backup_label`, byte for byte.
    pub(crate) label: String,
    /// The contents of `tablespace_map`; none without tablespaces.
    pub(crate) tablespace_map: Option<String>,
}

impl BackupMode {
    /// Begins it, with a checkpoint at full speed. `label` says for whom.
    ///
    /// # Errors
    /// Those of the session; the server's refusal (not a superuser, `wal_level = minimal`).
    pub(crate) fn start(cluster: &Cluster, login: &Login, label: &str, call: &Call<'_>) -> Result<Self, VssError> {
        let mut connection = Connection::open(cluster, login, call)?;
        let what = "begin backup mode";
        // Without a slot (none left, none allowed) the log is there nearly always; what is missing is noticed.
        let slot = format!("vss_{}", std::process::id());
        let reserve = "SELECT pg_create_physical_replication_slot($1, true, true)::text";
        let _ = connection.row("reserve its log", reserve, &[&slot], call);
        let start = if cluster.version >= RENAMED {
            "SELECT pg_is_in_recovery(), pg_backup_start($1, true)::text"
        } else {
            "SELECT pg_is_in_recovery(), pg_start_backup($1, true, false)::text"
        };
        let row = connection.row(what, start, &[&label], call)?;
        Ok(Self { connection, version: cluster.version, on_standby: row.get(0) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// The session was lost since the start: the copy cannot be used. Or the standby became a primary.
    pub(crate) fn stop(mut self, call: &Call<'_>) -> Result<Stopped, VssError> {
        // Not waiting for an archive, which may be broken: the copy gets the log from us.
        let stop = if self.version >= RENAMED {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)"
        } else {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
        };
        let row = self.connection.row("end backup mode", stop, &[], call).map_err(|error| {
            error.with_hint("Backup mode ended before the copies were cut and mended; make the backup again")
        })?;
        let unreadable = || VssError::new(VssCode::WriterErrorNonRetryable, "pg_backup_stop answers something unknown");
        let text = |index: usize| row.try_get::<_, Option<String>>(index).ok().flatten();
        Ok(Stopped {
            end: text(0).and_then(|lsn| lsn.parse().ok()).ok_or_else(unreadable)?,
            label: text(1).ok_or_else(unreadable)?,
            tablespace_map: text(2).filter(|map| !map.is_empty()),
        })
    }
}
